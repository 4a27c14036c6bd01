"""The engine as a library: prompts in, results out.

Owns which prompt is whose answer. Steps the engine in the caller's thread; only one thread may use
an LLM (AsyncEngine serves many callers).
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from operator import index
from os import PathLike
from typing import Any, Self, TypeAlias, TypeGuard, overload
from weakref import WeakValueDictionary

from octavo.config import Config
from octavo.engine.engine import Engine
from octavo.errors import BadRequest, QueueFull, StepFailed
from octavo.loader.tokenizer import Tokenizer
from octavo.types import (
    Delta,
    Event,
    Finished,
    FinishReason,
    Message,
    PromptScored,
    Request,
    SamplingParams,
    Timing,
    TokenLogprob,
    Usage,
)

Text: TypeAlias = str | Sequence[int]  # or its token ids
Chat: TypeAlias = Sequence[Message | Mapping[str, Any]]
Params: TypeAlias = SamplingParams | Sequence[SamplingParams] | None

FEW = 4  # prompts that need no progress bar


@dataclass(frozen=True, slots=True)
class Completion:
    """One prompt's answer, whole."""

    prompt_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]  # one a token, if params.logprobs asked for them
    prompt_logprobs: tuple[TokenLogprob, ...]  # of every prompt token but the first, if asked for
    parsed: Any  # what the text says in JSON, if a schema asked for it and it is whole; else None
    finish_reason: FinishReason
    stop: str | int | None  # the stop string or stop token that ended it
    usage: Usage
    seed: int  # with it the same request gives the same tokens again
    timing: Timing


class Stream(Iterator[Delta]):
    """One answer as it comes. Closed or dropped before its end, it is cancelled."""

    def __init__(self, llm: "LLM", request: Request) -> None:
        self.request = request
        self._llm = llm
        self._deltas: list[Delta] = []
        self._num_shown = 0
        self._scores: tuple[TokenLogprob, ...] = ()
        self._end: Finished | None = None

    def __next__(self) -> Delta:
        """Raises StepFailed where the engine could not go on."""
        while self._num_shown == len(self._deltas):
            if self.is_finished:
                raise StopIteration
            self._llm._advance()
        self._num_shown += 1
        return self._deltas[self._num_shown - 1]

    @property
    def is_finished(self) -> bool:
        """Raises StepFailed where the engine could not go on."""
        if self._end is not None and self._end.reason == "error":
            raise StepFailed(self._end.error or "the engine could not compute a step")
        return self._end is not None

    @property
    def completion(self) -> Completion:
        """The whole answer; of a stream that was closed, as far as it came. Waits for its end."""
        while not self.is_finished:
            self._llm._advance()
        assert self._end is not None
        text = "".join(delta.text for delta in self._deltas)
        is_whole = self._end.reason == "stop" and self._end.stop is None
        return Completion(
            prompt_ids=self.request.prompt_ids,
            text=text,
            parsed=json.loads(text) if is_whole and self.request.params.schema else None,
            token_ids=tuple(token for delta in self._deltas for token in delta.token_ids),
            logprobs=tuple(token for delta in self._deltas for token in delta.logprobs),
            prompt_logprobs=self._scores,
            finish_reason=self._end.reason,
            stop=self._end.stop,
            usage=self._end.usage,
            seed=self._end.seed,
            timing=self._end.timing,
        )

    def close(self) -> None:
        if self._end is None:
            self._llm._abandoned.append(self.request.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Only noted here: Python may collect in the middle of a step.
        self.close()

    def _hear(self, event: Event) -> None:
        match event:
            case Delta():
                self._deltas.append(event)
            case PromptScored(logprobs):
                self._scores = logprobs
            case Finished():
                self._end = event


class LLM:
    """
    >>> llm = octavo.LLM("smollm2")
    >>> llm.generate("The sky is", octavo.SamplingParams(max_tokens=20)).text
    """

    def __init__(self, model: str | PathLike[str], **options: Any) -> None:
        """`model` is a name or a path; `options` are the other fields of octavo.Config. Raises
        NotFetched, BadCheckpoint, BadConfig."""
        self._engine: Engine | None = Engine(Config(str(model), **options))
        self._streams = WeakValueDictionary[str, Stream]()  # dropped by its reader: see __del__
        self._abandoned = deque[str]()
        self._ids = map(str, count())

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise BadRequest("it is closed, open another", "LLM")
        return self._engine

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self, prompts: Text, params: SamplingParams | None = None, *, progress: bool | None = None
    ) -> Completion: ...
    @overload
    def generate(
        self, prompts: Sequence[Text], params: Params = None, *, progress: bool | None = None
    ) -> list[Completion]: ...
    def generate(
        self,
        prompts: Text | Sequence[Text],
        params: Params = None,
        *,
        progress: bool | None = None,
    ) -> Completion | list[Completion]:
        """Continues a text (or token ids), or several: then one answer each, in their order.
        `params` are for all, or one for each. `progress` shows a bar or none; None: for more than
        a few prompts, on a terminal. Raises BadRequest before anything is computed."""
        if _is_text(prompts):
            return self._complete([self._ids_of(prompts)], params, progress=progress)[0]
        each: Any = prompts
        return self._complete([self._ids_of(one) for one in each], params, progress=progress)

    @overload
    def chat(
        self,
        messages: Chat,
        params: SamplingParams | None = None,
        *,
        progress: bool | None = None,
        **template: Any,
    ) -> Completion: ...
    @overload
    def chat(
        self,
        messages: Sequence[Chat],
        params: Params = None,
        *,
        progress: bool | None = None,
        **template: Any,
    ) -> list[Completion]: ...
    def chat(
        self,
        messages: Chat | Sequence[Chat],
        params: Params = None,
        *,
        progress: bool | None = None,
        **template: Any,
    ) -> Completion | list[Completion]:
        """Answers a conversation of {"role": ..., "content": ...}, or several. `template` goes to
        the model's chat template: tools, add_generation_prompt, and what the template knows."""
        if isinstance(messages, str):
            raise BadRequest('it is a text, give [{"role": "user", "content": ...}]', "messages")
        chats: Any = [messages] if _is_chat(messages) else messages
        prompts = [self._ids_of(chat, **template) for chat in chats]
        completions = self._complete(prompts, params, progress=progress)
        return completions[0] if _is_chat(messages) else completions

    def stream(
        self, prompt: Text | Chat, params: SamplingParams | None = None, **template: Any
    ) -> Stream:
        """The answer to one prompt (a text, token ids or a conversation) as it comes; several
        streams may be read in turn. Raises BadRequest or QueueFull."""
        return self._begin(self._request(self._ids_of(prompt, **template), params))

    def score(self, text: Text) -> tuple[TokenLogprob, ...]:
        """The logprob of every token but the first, given those before it."""
        params = SamplingParams(max_tokens=1, prompt_logprobs=0)
        (scored,) = self._complete([self._ids_of(text)], params, progress=False)
        return scored.prompt_logprobs

    def close(self) -> None:
        """Frees the memory; streams that are under way end here."""
        self._engine = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ids_of(self, prompt: Text | Chat, **template: Any) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return tuple(self.tokenizer.prompt_ids(prompt))
        if _is_chat(prompt):
            return tuple(self.tokenizer.chat_ids(prompt, **template))
        token_ids: Any = prompt
        return tuple(index(token_id) for token_id in token_ids)  # NumPy's integers too

    def _request(self, prompt_ids: tuple[int, ...], params: SamplingParams | None) -> Request:
        request = Request(next(self._ids), prompt_ids, params or SamplingParams())
        self.engine.check(request)
        return request

    def _complete(
        self, prompts: Sequence[tuple[int, ...]], params: Params, *, progress: bool | None
    ) -> list[Completion]:
        each = _one_each(params, len(prompts))
        requests = deque(map(self._request, prompts, each))
        streams: list[Stream] = []
        is_shown = len(prompts) > FEW and sys.stderr.isatty() if progress is None else progress
        with _bar(len(prompts), is_shown=is_shown) as show:
            while requests or not all(stream.is_finished for stream in streams):
                self._begin_some(requests, streams)
                self._advance()
                show(streams)
        return [stream.completion for stream in streams]

    def _begin_some(self, requests: deque[Request], streams: list[Stream]) -> None:
        """As many as the engine's queue takes."""
        try:
            while requests:
                streams.append(self._begin(requests[0]))
                requests.popleft()
        except QueueFull:
            return

    def _begin(self, request: Request) -> Stream:
        self.engine.add(request)
        stream = self._streams[request.id] = Stream(self, request)
        return stream

    def _advance(self) -> None:
        """One step, for all streams."""
        while self._abandoned:
            self.engine.cancel(self._abandoned.popleft())
        for id, event in self.engine.step():
            if (stream := self._streams.get(id)) is not None:
                stream._hear(event)


def _is_text(prompts: object) -> TypeGuard[Text]:
    return isinstance(prompts, str) or isinstance(_first(prompts), int)


def _is_chat(prompt: object) -> TypeGuard[Chat]:
    return isinstance(_first(prompt), Message | Mapping)


def _first(items: object) -> object:
    return items[0] if isinstance(items, Sequence) and items else None


def _one_each(params: Params, count: int) -> Sequence[SamplingParams | None]:
    if params is None or isinstance(params, SamplingParams):
        return [params] * count
    if len(params) != count:
        raise BadRequest(f"{len(params)} for {count} prompts, give one for each", "params")
    return params


@contextmanager
def _bar(count: int, *, is_shown: bool) -> Iterator[Callable[[Sequence[Stream]], None]]:
    """Yields what is to be called after every step."""
    if not is_shown:
        yield lambda streams: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.completed}/{task.total} prompts"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[tokens]} tokens"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=count, tokens=0)

        def show(streams: Sequence[Stream]) -> None:
            done = sum(stream.is_finished for stream in streams)
            tokens = sum(len(stream._deltas) for stream in streams)
            bar.update(task, completed=done, tokens=tokens)

        yield show
