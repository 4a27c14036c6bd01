"""Rows of logits in, tokens and their logprobs out. Knows no sequence: a Row says all it needs.

The choice itself is native (cpp/kernels/sample.cpp). Logprobs are those of the model: before
penalties, temperature and cuts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from octavo.kernels import _cpu, cpu
from octavo.types import Ints, SamplingParams, Tensor, TokenLogprob

NO_IDS = np.empty(0, np.int32)
NO_BIASES = np.empty(0, np.float32)
SEED_MASK = 2**64 - 1  # a negative seed counts from the top


@dataclass(frozen=True, slots=True)
class Row:
    """What a row of logits is sampled by."""

    params: SamplingParams
    seed: int
    position: int  # of the token to be chosen, within its sequence
    prompt_ids: Sequence[int] = ()  # read only where a penalty asks for them
    output_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Sampled:
    token_id: int
    logprob: TokenLogprob | None  # where params.logprobs asks for it


def sample(logits: Tensor, rows: Sequence[Row]) -> list[Sampled]:
    """One token for each row of logits [rows, vocab]. The logits are overwritten."""
    return [_sample(line, row) for line, row in zip(logits, rows, strict=True)]


def score(logits: Tensor, targets: Sequence[int], top: int) -> list[TokenLogprob]:
    """The logprob of targets[i] under row i, and of the `top` likeliest."""
    return [_score(line, target, top) for line, target in zip(logits, targets, strict=True)]


def _sample(line: Tensor, row: Row) -> Sampled:
    p = row.params
    seen, generated = _seen(row)
    bias_ids, biases = _biases(p.logit_bias)
    before = line.copy() if p.logprobs is not None and (len(seen) or len(bias_ids)) else line
    token_id = _cpu.sample(
        cpu.INSTRUCTION_SET,
        line,
        p.temperature,
        p.top_k or 0,
        p.top_p,
        p.min_p,
        p.repetition_penalty,
        p.presence_penalty,
        p.frequency_penalty,
        row.seed & SEED_MASK,
        row.position,
        seen,
        generated,
        bias_ids,
        biases,
    )
    if p.logprobs is None:
        return Sampled(token_id, None)
    return Sampled(token_id, _score(before, token_id, p.logprobs))


def _score(line: Tensor, target: int, top: int) -> TokenLogprob:
    total = _cpu.log_sum_exp(cpu.INSTRUCTION_SET, line)
    best = _cpu.top(cpu.INSTRUCTION_SET, line, top) if top else []
    alternatives = tuple((token, float(line[token] - total)) for token in best)
    return TokenLogprob(target, float(line[target] - total), alternatives)


def _seen(row: Row) -> tuple[Ints, Ints]:
    """Distinct tokens of prompt and output, and how often each was generated."""
    p = row.params
    if p.repetition_penalty == 1 and p.presence_penalty == 0 and p.frequency_penalty == 0:
        return NO_IDS, NO_IDS
    counts = Counter(row.output_ids)
    ids = counts.keys() if p.repetition_penalty == 1 else counts.keys() | set(row.prompt_ids)
    seen = np.fromiter(ids, np.int32, len(ids))
    return seen, np.fromiter((counts[token] for token in seen.tolist()), np.int32, len(seen))


def _biases(logit_bias: Mapping[int, float]) -> tuple[Ints, Tensor]:
    if not logit_bias:
        return NO_IDS, NO_BIASES
    ids = np.fromiter(logit_bias.keys(), np.int32, len(logit_bias))
    return ids, np.fromiter(logit_bias.values(), np.float32, len(logit_bias))
