"""The scheduler's steps become batches, batches become tokens.

Owns the arrays that a batch is written into, the same ones each step. Knows nothing of events, text
or stopping.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from octavo.engine.constraints import Constraints, Held
from octavo.engine.memory import pages_for
from octavo.errors import StepFailed
from octavo.kernels.ops import Limits, Program
from octavo.sampling.sampler import Row, Sampled, sample, score
from octavo.scheduler.scheduler import Chunk, Step
from octavo.types import Batch, Logits, TokenLogprob

NOT_NUMBERS = "no token can be chosen: the model's logits are not finite numbers"


@dataclass(slots=True)
class Outcome:
    """What a step found out about one chunk."""

    chunk: Chunk
    sampled: Sampled | None = None  # None: the chunk ends before its sequence does
    scored: list[TokenLogprob] = field(default_factory=list)  # prompt tokens after chunk.start
    error: str | None = None  # one sentence: why its sequence cannot go on
    is_late: bool = False  # its mask is not made yet: its last token is to be computed again


@dataclass(frozen=True, slots=True)
class _Want:
    """A row of logits, and what for."""

    chunk: int  # its place within the step
    token: int  # its place within the batch
    target: int | None  # the token after it, if that is the prompt's; None: it is to be chosen


class Runner:
    def __init__(
        self,
        program: Program,
        num_groups: int,
        limits: Limits,
        max_context: int,
        constraints: Constraints,
    ) -> None:
        self._program, self._rows, self._constraints = program, limits.rows, constraints
        self._token_ids = np.zeros(limits.tokens, np.int32)
        self._positions = np.zeros(limits.tokens, np.int32)
        self._starts = np.zeros(limits.sequences + 1, np.int32)
        self._tables = np.zeros((num_groups, limits.sequences, pages_for(max_context)), np.int32)

    def run(self, step: Step) -> list[Outcome]:
        """One for each chunk, in their order. Raises StepFailed for whatever goes wrong."""
        try:
            batch, wants = self._batch(step.chunks)
            self._constraints.begin(step.chunks)
            self._program.run(batch)
            return self._outcomes(step.chunks, wants, self._constraints.end(step.chunks))
        except Exception as error:
            raise StepFailed(f"the step failed: {type(error).__name__}: {error}") from error

    def _batch(self, chunks: Sequence[Chunk]) -> tuple[Batch, list[_Want]]:
        token_ids: list[int] = []
        positions: list[int] = []
        starts = [0]
        wants: list[_Want] = []
        for i, chunk in enumerate(chunks):
            wants += _wants(i, chunk, first=len(token_ids))
            token_ids += chunk.sequence.tokens[chunk.start : chunk.end]
            positions += range(chunk.start, chunk.end)
            starts.append(len(token_ids))
            for table, pages in zip(self._tables, chunk.sequence.table.pages, strict=True):
                table[i, : len(pages)] = pages
        num_tokens, num_chunks = len(token_ids), len(chunks)
        self._token_ids[:num_tokens] = token_ids
        self._positions[:num_tokens] = positions
        self._starts[: num_chunks + 1] = starts
        batch = Batch(
            token_ids=self._token_ids[:num_tokens],
            positions=self._positions[:num_tokens],
            starts=self._starts[: num_chunks + 1],
            tables=tuple(table[:num_chunks] for table in self._tables),
            outputs=np.array([want.token for want in wants], np.int32),
        )
        return batch, wants

    def _outcomes(
        self, chunks: Sequence[Chunk], wants: Sequence[_Want], held: Mapping[str, Held]
    ) -> list[Outcome]:
        outcomes = [Outcome(chunk) for chunk in chunks]
        for first in range(0, len(wants), self._rows):
            block = wants[first : first + self._rows]
            logits = self._program.logits(first, first + len(block))
            _score(logits, block, outcomes)
            _sample(logits, block, outcomes, held)
        return outcomes


def _wants(place: int, chunk: Chunk, first: int) -> Iterator[_Want]:
    """The rows of a chunk whose tokens begin at `first` within the batch, in their order."""
    sequence = chunk.sequence
    if sequence.wants_prompt_logits:
        for position in range(chunk.start, min(chunk.end, sequence.num_prompt - 1)):
            yield _Want(place, first + position - chunk.start, sequence.tokens[position + 1])
    if chunk.samples:
        yield _Want(place, first + chunk.end - 1 - chunk.start, None)


def _score(logits: Logits, block: Sequence[_Want], outcomes: Sequence[Outcome]) -> None:
    for i, want in enumerate(block):
        if want.target is not None:
            outcome = outcomes[want.chunk]
            top = outcome.chunk.sequence.request.params.prompt_logprobs or 0
            (scored,) = score(_lines(logits, slice(i, i + 1)), [want.target], top)
            if scored is None:
                outcome.error = NOT_NUMBERS
            else:
                outcome.scored.append(scored)


def _sample(
    logits: Logits,
    block: Sequence[_Want],
    outcomes: Sequence[Outcome],
    held: Mapping[str, Held],
) -> None:
    places: list[int] = []
    rows: list[Row] = []
    for i, want in enumerate(block):
        if want.target is not None:
            continue
        outcome = outcomes[want.chunk]
        mask = held.get(outcome.chunk.sequence.id)
        if mask is not None and (mask.is_late or mask.error):
            outcome.error, outcome.is_late = None if mask.is_late else mask.error, mask.is_late
        else:
            places.append(i)
            rows.append(_row(outcome.chunk, mask))
    if not places:
        return
    lines = logits if len(places) == len(block) else _lines(logits, places)
    for i, sampled in zip(places, sample(lines, rows), strict=True):
        outcome = outcomes[block[i].chunk]
        outcome.sampled = sampled
        if sampled is None:
            outcome.error = NOT_NUMBERS


def _lines(logits: Logits, places: list[int] | slice) -> Logits:
    return Logits(logits.values[places], logits.maxima[places])


def _row(chunk: Chunk, held: Held | None) -> Row:
    sequence = chunk.sequence
    return Row(
        params=sequence.request.params,
        seed=sequence.seed,
        position=len(sequence.tokens),
        prompt_ids=sequence.request.prompt_ids,
        output_ids=sequence.output_ids,
        allowed=None if held is None else held.mask,
    )
