"""What a body asked for and what a reply is made of, in no protocol's words."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, TypeAlias

from octavo.engine.tools import calls_of
from octavo.errors import StepFailed, Stopping, TimedOut
from octavo.server.bodies import Unknown
from octavo.types import (
    Chat,
    Delta,
    Event,
    Finished,
    Grammar,
    Json,
    PromptScored,
    Reading,
    SamplingParams,
    TokenLogprob,
    ToolCall,
)

FAILED = "the server failed, its log has the cause"  # of any error that nobody foresaw


@dataclass(frozen=True, slots=True)
class Thread:
    """What a call has to do with those before and after it."""

    items: tuple[Json, ...]  # what was said in it, in its protocol's words
    opening: Chat  # what they are said in: instructions, tools, how to think
    previous: str | None = None  # it goes on from that reply
    is_kept: bool = True  # others may go on from its own
    is_background: bool = False  # it runs whether or not anybody waits
    body: bytes = b""  # as it came


Prompt: TypeAlias = Chat | str | tuple[int, ...]
Events: TypeAlias = AsyncIterator[tuple[int, Event]]  # (choice, event), choices interleaved


@dataclass(frozen=True, slots=True)
class Call:
    """One body. Every prompt is answered `n` times; choice k answers prompt k // n."""

    model: str
    prompts: tuple[Prompt, ...]
    params: SamplingParams
    n: int = 1
    priority: int = 0
    timeout: float | None = None  # seconds
    cache_salt: str | None = None
    stream: bool = False
    include_usage: bool = False  # as a last chunk of the stream
    echo: bool = False  # the prompt is said before the answer
    silent: bool = False  # the answer is not said: only the echo was wanted
    shows_thoughts: bool = True
    names: Mapping[str, str] = field(default_factory=dict)  # of params: ours -> theirs, if other
    ignored: Unknown = field(default_factory=dict)
    repeated: Json = field(default_factory=dict)  # of the body, in its reply
    thread: Thread | None = None


class Tokenizer(Protocol):
    """What the server asks of a tokenizer."""

    def encode(self, text: str) -> Sequence[int]: ...
    def decode(self, ids: Iterable[int], special: bool = False) -> str: ...  # noqa: FBT001, FBT002
    def prompt_ids(self, text: str) -> Sequence[int]: ...
    def token_bytes(self, token_id: int, *, special: bool = False) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What framing an answer takes beyond its events."""

    call: Call
    id: str
    created: int  # seconds since the epoch
    fingerprint: str
    prompt_ids: tuple[tuple[int, ...], ...]
    tokenizer: Tokenizer
    reading: Reading | None = None  # how its answers are told apart
    grammar: Grammar | None = None  # what they are held to, calls and thoughts included

    @property
    def num_choices(self) -> int:
        return self.call.n * len(self.prompt_ids)

    def seeded(self, seed: int) -> Self:
        """With `seed`, unless the caller has given one: it says the same whenever it is run."""
        params = self.call.params
        if params.seed is not None:
            return self
        return replace(self, call=replace(self.call, params=replace(params, seed=seed)))


@dataclass(frozen=True, slots=True)
class Answer:
    """All events of one choice, folded."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprob, ...]
    prompt_logprobs: tuple[TokenLogprob, ...]
    end: Finished
    deltas: tuple[Delta, ...]  # as they came: in which order it was said


def fold(events: Iterable[Event]) -> Answer:
    """Raises what `completed` raises."""
    *before, end = events
    assert isinstance(end, Finished)
    deltas = [event for event in before if isinstance(event, Delta)]
    scored = [event for event in before if isinstance(event, PromptScored)]
    return Answer(
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        calls=calls_of(deltas),
        logprobs=tuple(token for delta in deltas for token in delta.logprobs),
        prompt_logprobs=tuple(token for part in scored for token in part.logprobs),
        end=completed(end),
        deltas=tuple(deltas),
    )


def says(delta: Delta) -> bool:
    """There is something in it for a reader."""
    return bool(delta.text or delta.reasoning or delta.calls)


def completed(end: Finished) -> Finished:
    """`end`, if it ended as the caller asked; else raises StepFailed, TimedOut or Stopping."""
    if end.reason == "error":
        raise StepFailed(end.error or "the step this request was in failed")
    if end.reason == "timeout":
        raise TimedOut(end.error or "its timeout has passed")
    if end.reason == "cancelled":
        raise Stopping
    return end
