"""What one request has been told so far, and when it has been told enough.

Owns the text held back, the counts and the times. Knows no batch.
"""

from dataclasses import dataclass

from octavo.engine.runner import Outcome
from octavo.engine.text import TextStream
from octavo.loader.tokenizer import Tokenizer
from octavo.sampling.sampler import Sampled
from octavo.scheduler.sequence import Sequence
from octavo.types import (
    Delta,
    Event,
    Finished,
    FinishReason,
    PromptScored,
    Timing,
    TokenLogprob,
    Usage,
)


@dataclass(frozen=True, slots=True)
class End:
    reason: FinishReason
    stop: str | int | None = None


class Answer:
    def __init__(
        self, sequence: Sequence, tokenizer: Tokenizer, max_context: int, now: float
    ) -> None:
        """`now` and every later time are seconds of one clock, the engine's."""
        params = sequence.request.params
        self.sequence = sequence
        self.end: End | None = None  # why no further token is wanted
        timeout = sequence.request.timeout
        self.deadline = None if timeout is None else now + timeout
        self._text = TextStream(tokenizer, params.stop)
        self._eos_ids = frozenset() if params.ignore_eos else tokenizer.eos_ids
        room = max_context - sequence.num_prompt
        self._max_tokens = room if params.max_tokens is None else min(room, params.max_tokens)
        self._prompt_scores: list[TokenLogprob] = []
        self._is_scored = params.prompt_logprobs is None
        self._times = [now]  # accepted, first in a step, first token
        self._num_pages = 0

    def begin(self, now: float) -> None:
        """A step has it, perhaps not for the first time."""
        if len(self._times) == 1:
            self._times.append(now)

    def take(self, outcome: Outcome, now: float) -> list[Event]:
        """What the step says, once its token is one of `sequence.output_ids`. Sets `end`."""
        self._num_pages = self.sequence.table.num_held
        events: list[Event] = []
        if not self._is_scored:
            start = outcome.chunk.start
            # A preempted prompt is scored again from its beginning.
            self._prompt_scores[start : start + len(outcome.scored)] = outcome.scored
            if len(self._prompt_scores) == self.sequence.num_prompt - 1:
                self._is_scored = True
                events.append(PromptScored(tuple(self._prompt_scores)))
        if outcome.sampled:
            if len(self.sequence.output_ids) == 1:
                self._times.append(now)
            events.append(self._delta(outcome.sampled))
        return events

    def finished(self, end: End, now: float, error: str | None = None) -> Finished:
        sequence = self.sequence
        return Finished(
            reason=end.reason,
            usage=Usage(sequence.num_prompt, len(sequence.output_ids), sequence.cached_tokens),
            seed=sequence.seed,
            stop=end.stop,
            error=error,
            timing=self._timing(now),
        )

    def _delta(self, sampled: Sampled) -> Delta:
        token = sampled.token_id
        logprobs = () if sampled.logprob is None else (sampled.logprob,)
        if (end := self._ends_at(token)) is not None:
            self.end, text = end, self._text.flush()
        else:
            text = self._text.push(token)
            if self._text.stopped is not None:
                self.end = End("stop", self._text.stopped)
            elif len(self.sequence.output_ids) >= self._max_tokens:
                self.end = End("length")
                text += self._text.flush()
        return Delta(text, (token,), logprobs)

    def _ends_at(self, token: int) -> End | None:
        """The token itself is never shown."""
        if token in self.sequence.request.params.stop_token_ids:
            return End("stop", token)
        return End("stop") if token in self._eos_ids else None

    def _timing(self, now: float) -> Timing:
        accepted, began, first_token = (*self._times, now, now)[:3]
        return Timing(
            waiting=began - accepted,
            prefill=first_token - began,
            decode=now - first_token,
            preemptions=self.sequence.num_preempted,
            pages=self._num_pages,
        )
