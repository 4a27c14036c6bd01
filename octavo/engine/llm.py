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
from octavo.engine.chat_format import Prompt
from octavo.engine.conversation import Messages, read_messages, read_tools
from octavo.engine.engine import Engine
from octavo.engine.tools import calls_of
from octavo.errors import BadRequest, QueueFull, StepFailed
from octavo.loader.tokenizer import Tokenizer
from octavo.types import (
    Chat,
    Delta,
    Event,
    Finished,
    FinishReason,
    Grammar,
    Message,
    PromptScored,
    Request,
    SamplingParams,
    Timing,
    TokenLogprob,
    ToolCall,
    Tools,
    Usage,
)

Text: TypeAlias = str | Sequence[int]  # or its token ids
Params: TypeAlias = SamplingParams | Sequence[SamplingParams] | None

FEW = 4  # prompts that need no progress bar


@dataclass(frozen=True, slots=True)
class Completion:
    """One prompt's answer, whole."""

    prompt_ids: tuple[int, ...]
    text: str  # without thoughts and calls, where the prompt was a conversation
    reasoning: str  # what a model that reasons thought before
    tool_calls: tuple[ToolCall, ...]  # of the tools it was given
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]  # one a token, if params.logprobs asked for them
    prompt_logprobs: tuple[TokenLogprob, ...]  # of every prompt token but the first, if asked for
    # The text as JSON, if a schema asked for it and the answer is whole; else None. None as well
    # where it has an integer of more digits than Python reads (4,300), or is nested too deeply.
    parsed: Any
    finish_reason: FinishReason
    stop: str | int | None  # the stop string or stop token that ended it
    usage: Usage
    seed: int  # with it the same request gives the same tokens again
    timing: Timing


@dataclass(frozen=True, slots=True)
class _Asked:
    request: Request
    is_json: bool  # the text of a whole answer


class Stream(Iterator[Delta]):
    """One answer as it comes. Closed or dropped before its end, it is cancelled."""

    def __init__(self, llm: "LLM", asked: _Asked) -> None:
        self.request = asked.request
        self._llm, self._is_json = llm, asked.is_json
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
            reasoning="".join(delta.reasoning for delta in self._deltas),
            tool_calls=calls_of(self._deltas),
            parsed=_parsed(text) if is_whole and self._is_json else None,
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
            return self._complete([prompts], params, progress=progress)[0]
        each: Any = prompts
        return self._complete(list(each), params, progress=progress)

    @overload
    def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str = "auto",
        progress: bool | None = None,
        **template: Any,
    ) -> Completion: ...
    @overload
    def chat(
        self,
        messages: Sequence[Messages],
        params: Params = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str = "auto",
        progress: bool | None = None,
        **template: Any,
    ) -> list[Completion]: ...
    def chat(
        self,
        messages: Messages | Sequence[Messages],
        params: Params = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str = "auto",
        progress: bool | None = None,
        **template: Any,
    ) -> Completion | list[Completion]:
        """Answers a conversation of {"role": ..., "content": ...}, or several. `tools`: functions
        as OpenAI has them, `tool_choice` is "auto", "none", "required" or the name of one.
        `template` goes to the model's chat template: add_generation_prompt, and what it knows."""
        if isinstance(messages, str):
            raise BadRequest('it is a text, give [{"role": "user", "content": ...}]', "messages")
        chats: Any = [messages] if _is_chat(messages) else messages
        offered = read_tools(tools, tool_choice)
        completions = self._complete(
            list(chats), params, progress=progress, tools=offered, **template
        )
        return completions[0] if _is_chat(messages) else completions

    def stream(
        self,
        prompt: Text | Messages,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str = "auto",
        **template: Any,
    ) -> Stream:
        """The answer to one prompt (a text, token ids or a conversation, see `chat`) as it comes;
        several streams may be read in turn. Raises BadRequest or QueueFull."""
        offered = read_tools(tools, tool_choice)
        return self._begin(self._asked(prompt, params, tools=offered, **template))

    def score(self, text: Text) -> tuple[TokenLogprob, ...]:
        """The logprob of every token but the first, given those before it."""
        params = SamplingParams(max_tokens=1, prompt_logprobs=0)
        (scored,) = self._complete([text], params, progress=False)
        return scored.prompt_logprobs

    def close(self) -> None:
        """Frees the memory; streams that are under way end here."""
        self._engine = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, prompt: Text | Messages, params: SamplingParams | None, **chat: Any) -> _Asked:
        params = params or SamplingParams()
        self.engine.compile(params)  # before tools join it: so that its errors name its own field
        written = self._written(prompt, params.constraint, **chat)
        held = params.held_to(written.grammar)
        request = Request(next(self._ids), written.ids, held, reading=written.reading)
        try:
            self.engine.check(request)
        except BadRequest as error:
            raise self._blamed(error, chat.get("tools")) from None
        return _Asked(request, is_json=params.schema is not None)

    def _blamed(self, error: BadRequest, tools: Tools | None) -> BadRequest:
        """Names the tool instead of all, where one's schema is refused by itself, too."""
        for tool in tools.all if tools and error.field == "tools" else ():
            try:
                self.engine.compile(SamplingParams(schema=tool.parameters))
            except BadRequest as its_own:
                return BadRequest(its_own.problem, tool.field)
        return error

    def _written(
        self,
        prompt: Text | Messages,
        answer: Grammar | None,
        tools: Tools | None = None,
        **template: Any,
    ) -> Prompt:
        if _is_chat(prompt):
            chat = Chat(read_messages(prompt), tools)
            return self.engine.chat_format.prompt(chat, answer, **template)
        if tools is not None or template:
            name = "tools" if tools is not None else min(template)
            raise BadRequest("only conversations have it, leave it out", name)
        if isinstance(prompt, str):
            return Prompt(tuple(self.tokenizer.prompt_ids(prompt)), None, answer)
        token_ids: Any = prompt
        return Prompt(tuple(map(index, token_ids)), None, answer)  # NumPy's integers too

    def _complete(
        self,
        prompts: Sequence[Text | Messages],
        params: Params,
        *,
        progress: bool | None,
        **chat: Any,
    ) -> list[Completion]:
        each = _one_each(params, len(prompts))
        asked = deque(self._asked(*pair, **chat) for pair in zip(prompts, each, strict=True))
        streams: list[Stream] = []
        is_shown = len(prompts) > FEW and sys.stderr.isatty() if progress is None else progress
        with _bar(len(prompts), is_shown=is_shown) as show:
            while asked or not all(stream.is_finished for stream in streams):
                self._begin_some(asked, streams)
                self._advance()
                show(streams)
        return [stream.completion for stream in streams]

    def _begin_some(self, asked: deque[_Asked], streams: list[Stream]) -> None:
        """As many as the engine's queue takes."""
        try:
            while asked:
                streams.append(self._begin(asked[0]))
                asked.popleft()
        except QueueFull:
            return

    def _begin(self, asked: _Asked) -> Stream:
        self.engine.add(asked.request)
        stream = self._streams[asked.request.id] = Stream(self, asked)
        return stream

    def _advance(self) -> None:
        """One step, for all streams."""
        while self._abandoned:
            self.engine.cancel(self._abandoned.popleft())
        for id, event in self.engine.step():
            if (stream := self._streams.get(id)) is not None:
                stream._hear(event)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_text(prompts: object) -> TypeGuard[Text]:
    return isinstance(prompts, str) or isinstance(_first(prompts), int)


def _is_chat(prompt: object) -> TypeGuard[Messages]:
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
