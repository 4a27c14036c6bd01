"""What one request has been told so far, and when it has been told enough.

Owns the text held back, the counts and the times. Knows no batch.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b

from octavo.engine.chat_format import ChatFormat
from octavo.engine.reply import ReplyStream
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
    problem: str | None = None  # one sentence, where the reason is "error"


class Answer:
    def __init__(
        self,
        sequence: Sequence,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        max_context: int,
        now: float,
    ) -> None:
        """`now` and every later time are seconds of one clock, the engine's."""
        params = sequence.request.params
        self.sequence = sequence
        self.end: End | None = None  # why no further token is wanted
        self._text = self._stream(tokenizer, chat_format)
        self._has_called = False
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
            events += self._deltas(outcome.sampled)
        return events

    def _stream(
        self, tokenizer: Tokenizer, chat_format: ChatFormat
    ) -> "ReplyStream | _PlainStream":
        request = self.sequence.request
        if request.reading is None:
            return _PlainStream(tokenizer, request.params.stop)
        return ReplyStream(
            tokenizer, chat_format.spelling, request.reading, request.params.stop, self._call_id
        )

    def _call_id(self, index: int) -> str:
        """The same request with the same seed gives the same ids again, another turn others."""
        said = (*self.sequence.request.prompt_ids, self.sequence.seed, index)
        return blake2b(repr(said).encode(), digest_size=12).hexdigest()

    def finished(self, end: End, now: float) -> Finished:
        sequence = self.sequence
        return Finished(
            reason=end.reason,
            usage=Usage(
                sequence.num_prompt,
                len(sequence.output_ids),
                sequence.cached_tokens,
                self._text.num_thought,
            ),
            seed=sequence.seed,
            stop=end.stop,
            error=end.problem,
            timing=self._timing(now),
        )

    def _deltas(self, sampled: Sampled) -> list[Delta]:
        token = sampled.token_id
        logprobs = () if sampled.logprob is None else (sampled.logprob,)
        if (end := self._ends_at(token)) is not None:
            told = self._text.flush()
        else:
            told = self._text.push(token)
            if self._text.stopped is not None:
                end = End("stop", self._text.stopped)
            elif len(self.sequence.output_ids) >= self._max_tokens:
                end = End("length")
                told += self._text.flush()
        self._has_called |= any(delta.calls for delta in told)
        self.end = self._judged(end)
        return [replace(told[0], token_ids=(token,), logprobs=logprobs), *filter(_says, told[1:])]

    def _judged(self, end: End | None) -> End | None:
        """What it ends as. A call that went wrong, or ends before it is whole, is not one."""
        if self._text.is_broken or (end and end.reason == "stop" and not self._text.is_whole):
            return End("error", problem="a call of a tool is malformed: ask again")
        if end and end.reason == "stop" and self._has_called:
            return replace(end, reason="tool_calls")
        return end

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


class _PlainStream:
    """As ReplyStream, where nothing is to be told apart."""

    num_thought = 0
    is_whole, is_broken = True, False

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self._text = TextStream(tokenizer, stop)

    def push(self, token_id: int) -> list[Delta]:
        return [Delta(self._text.push(token_id), ())]

    def flush(self) -> list[Delta]:
        return [Delta(self._text.flush(), ())]

    @property
    def stopped(self) -> str | None:
        return self._text.stopped


def _says(delta: Delta) -> bool:
    return bool(delta.text or delta.reasoning or delta.calls)
