"""Rows of logits in, tokens and their logprobs out. Knows no sequence: a Row says all it needs.

The choice itself is native (cpp/kernels/sample.cpp). Logprobs are those of the model: before masks,
penalties, temperature and cuts. A row that holds no choice (not a number, +infinity, or nothing but
-infinity) gives None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from octavo.kernels import _cpu, cpu
from octavo.types import Ints, Logits, SamplingParams, Tensor, TokenLogprob

SEED_MASK = 2**64 - 1  # a negative seed counts from the top


@dataclass(frozen=True, slots=True)
class Row:
    """What a row of logits is sampled by."""

    params: SamplingParams
    seed: int
    position: int  # of the token to be chosen, within its sequence
    prompt_ids: Sequence[int] = ()  # read only where a penalty asks for them
    output_ids: Sequence[int] = ()
    allowed: Ints | None = None  # uint32: bit i % 32 of word i // 32 allows token i; None: all


@dataclass(frozen=True, slots=True)
class Sampled:
    token_id: int
    logprob: TokenLogprob | None  # where params.logprobs asks for it


def sample(logits: Logits, rows: Sequence[Row]) -> list[Sampled | None]:
    """One token for each row of logits."""
    lines = zip(logits.values, logits.maxima, rows, strict=True)
    return [_sample(values, maxima, row) for values, maxima, row in lines]


def score(logits: Logits, targets: Sequence[int], top: int) -> list[TokenLogprob | None]:
    """The logprob of targets[i] under row i, and of the `top` likeliest."""
    lines = zip(logits.values, logits.maxima, targets, strict=True)
    return [_score(values, maxima, target, top) for values, maxima, target in lines]


def _sample(values: Tensor, maxima: Tensor, row: Row) -> Sampled | None:
    p = row.params
    repeats = p.repetition_penalty != 1
    counts = repeats or p.presence_penalty != 0 or p.frequency_penalty != 0
    token_id = _cpu.sample(
        cpu.INSTRUCTION_SET,
        values,
        maxima,
        p.temperature,
        p.top_k or 0,
        p.top_p,
        p.min_p,
        p.repetition_penalty,
        p.presence_penalty,
        p.frequency_penalty,
        row.seed & SEED_MASK,
        row.position,
        row.prompt_ids if repeats else (),
        row.output_ids if counts else (),
        tuple(p.logit_bias),
        tuple(p.logit_bias.values()),
        row.allowed,
    )
    if token_id is None or p.logprobs is None:
        return None if token_id is None else Sampled(token_id, None)
    return Sampled(token_id, _score(values, maxima, token_id, p.logprobs))


def _score(values: Tensor, maxima: Tensor, target: int, top: int) -> TokenLogprob | None:
    total = _cpu.log_sum_exp(cpu.INSTRUCTION_SET, values, maxima)
    if not isfinite(total):
        return None
    best = _cpu.top(cpu.INSTRUCTION_SET, values, maxima, top) if top else []
    alternatives = tuple((token, float(values[token] - total)) for token in best)
    return TokenLogprob(target, float(values[target] - total), alternatives)
