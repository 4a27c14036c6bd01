"""What one request has been told so far, and when it has been told enough.

Owns the text held back, the counts and the times. Knows no batch.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b

from octavo.engine.chat_format import ChatFormat
from octavo.engine.constraints import Following
from octavo.engine.reader import Part, Said
from octavo.engine.reply import ReplyStream, deltas
from octavo.engine.runner import Outcome
from octavo.engine.text import TextStream
from octavo.loader.tokenizer import Tokenizer
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
    problem: str | None = None  # one sentence, where the reason is "error" or "timeout"


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
        timeout = sequence.request.timeout
        self.deadline = None if timeout is None else now + timeout
        self._text = self._stream(tokenizer, chat_format)
        self._has_called = False
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
        """The events of a step: its token and those known to follow it, which are not among
        `sequence.output_ids` yet. Sets `end` where the answer ends; no token is told after it."""
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
            logprobs = () if outcome.sampled.logprob is None else (outcome.sampled.logprob,)
            events += self._deltas((outcome.sampled.token_id,), following, logprobs)
        return events

    def _stream(
        self, tokenizer: Tokenizer, chat_format: ChatFormat
    ) -> "ReplyStream | _PlainStream":
        request = self.sequence.request
        if request.reading is None:
            return _PlainStream(tokenizer, request.params.stop)
        return ReplyStream(
            tokenizer,
            chat_format.spelling,
            request.reading,
            request.params.stop,
            id_of=self._call_id,
            closing=chat_format.closing,
        )

    def _call_id(self, index: int) -> str:
        """The same for the same request and seed, different in another turn of a conversation."""
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

    @property
    def closing(self) -> tuple[int, ...]:
        """What must come next to close a thought that has had its tokens."""
        return () if self.end else self._text.closing

    def close_thought(self, following: Following) -> list[Event]:
        """`closing` has come, and what follows it."""
        return list(self._deltas(self.closing, following, ()))

    def _deltas(
        self,
        token_ids: tuple[int, ...],
        following: Following,
        logprobs: tuple[TokenLogprob, ...],
    ) -> list[Delta]:
        """At least one; the first has the tokens."""
        token_ids += following.token_ids
        parts: list[Part] = []
        told = 0
        while told < len(token_ids) and not self.end:
            parts += self._push(token_ids[told])
            told += 1
        is_whole = following.is_complete and told == len(token_ids)
        if is_whole and (self.end is None or self.end.reason == "length"):
            self.end = End("stop")
            parts += self._text.flush()
        said = deltas(parts, token_ids[:told], logprobs)
        self._has_called |= any(delta.calls for delta in said)
        self._judge()
        return said

    def _push(self, token: int) -> list[Part]:
        self._num_tokens += 1
        if (end := self._ends_at(token)) is not None:
            self.end = end
            return self._text.flush()
        parts = self._text.push(token)
        if self._text.stopped is not None:
            self.end = End("stop", self._text.stopped)
        elif self._num_tokens >= self._max_tokens:
            self.end = End("length")
            parts += self._text.flush()
        return parts

    def _judge(self) -> None:
        """A call that went wrong, or that the model ended before it was whole, is none."""
        is_over = self.end is not None and self.end.reason == "stop"
        if self._text.is_broken or (is_over and not self._text.is_whole):
            self.end = End("error", problem="the model's call of a tool is malformed: ask again")
        elif self.end and is_over and self._has_called:
            self.end = replace(self.end, reason="tool_calls")

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

    closing: tuple[int, ...] = ()
    num_thought = 0
    is_whole, is_broken = True, False

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self._text = TextStream(tokenizer, stop)

    def push(self, token_id: int) -> list[Part]:
        return [Said(self._text.push(token_id))]

    def flush(self) -> list[Part]:
        return [Said(self._text.flush())]

    @property
    def stopped(self) -> str | None:
        return self._text.stopped
