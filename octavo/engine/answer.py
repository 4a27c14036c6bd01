"""What one request has been told so far, and when it has been told enough.

Owns the text held back, the counts and the times. Knows no batch.
"""

from dataclasses import dataclass

from octavo.engine.constraints import Following
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
        self._text = TextStream(tokenizer, params.stop)
        self._eos_ids = frozenset() if params.ignore_eos else tokenizer.eos_ids
        room = max_context - sequence.num_prompt
        self._max_tokens = room if params.max_tokens is None else min(room, params.max_tokens)
        self._prompt_scores: list[TokenLogprob] = []
        self._is_scored = params.prompt_logprobs is None
        self._times = [now]  # accepted, first in a step, first token
        self._num_pages = self._num_tokens = 0

    def begin(self, now: float) -> None:
        """A step has it, perhaps not for the first time."""
        if len(self._times) == 1:
            self._times.append(now)

    def take(self, outcome: Outcome, following: Following, now: float) -> list[Event]:
        """What the step says: its token and those known to follow it, none of which is one of
        `sequence.output_ids` yet. Sets `end`, after which no token is told."""
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
            if not self._num_tokens:
                self._times.append(now)
            events.append(self._delta(outcome.sampled, following))
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

    def _delta(self, sampled: Sampled, following: Following) -> Delta:
        logprobs = () if sampled.logprob is None else (sampled.logprob,)
        token_ids = [sampled.token_id, *following.token_ids]
        text, told = "", 0
        while told < len(token_ids) and not self.end:
            text += self._push(token_ids[told])
            told += 1
        is_whole = following.is_complete and told == len(token_ids)
        if is_whole and (self.end is None or self.end.reason == "length"):
            self.end = End("stop")
            text += self._text.flush()
        return Delta(text, tuple(token_ids[:told]), logprobs)

    def _push(self, token: int) -> str:
        self._num_tokens += 1
        if (end := self._ends_at(token)) is not None:
            self.end = end
            return self._text.flush()
        text = self._text.push(token)
        if self._text.stopped is not None:
            self.end = End("stop", self._text.stopped)
        elif self._num_tokens >= self._max_tokens:
            self.end = End("length")
            text += self._text.flush()
        return text

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
