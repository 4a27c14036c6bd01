"""POST /v1/chat/completions, in OpenAI's words.

parse   their JSON  -> our Call, or a BadRequest that names the field
chunks  our Events  -> their server-sent chunks
whole   our Answers -> their single answer
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from sse_starlette import ServerSentEvent

from octavo.engine.tools import check_results
from octavo.errors import BadRequest
from octavo.server.bodies import MAX_MESSAGES, decode, refuse_unserved
from octavo.server.calls import Answer, Call, Events, Reply, completed, says
from octavo.server.protocols._logprobs import chat_logprobs, prompt_logprobs
from octavo.server.protocols._openai import (
    NEUTRAL_CACHE,
    CacheOptions,
    CacheRetention,
    Common,
    Limit,
    Metadata,
    closed_with_done,
    frame,
    head,
    problem,
    refuse_streamed_scores,
    sampling,
    usage,
    wants_usage,
)
from octavo.server.protocols._openai_tools import (
    CallBack,
    Choice,
    FunctionTool,
    Reasoning,
    ThinkingSwitch,
    deltas,
    message,
    read_calls,
    read_thinking,
    read_tools,
    switched,
)
from octavo.server.protocols._unserved import UNSERVED
from octavo.types import MAX_LOGPROBS, Chat, Delta, Finished, Json, Message, TokenLogprob

__all__ = ["ID_HEADER", "PATH", "PREFIX", "chunks", "parse", "problem", "whole"]

PATH = "/v1/chat/completions"
PREFIX = "chatcmpl-"
ID_HEADER = "x-request-id"


class Part(Struct):
    type: str
    text: str | None = None


class BodyMessage(Struct):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[CallBack] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None  # of an answer that is sent back
    function_call: Any = None
    refusal: str | None = None
    audio: Any = None
    annotations: list[Any] | None = None  # of an answer that is sent back: says nothing to a model


class Body(Common, kw_only=True):
    messages: Annotated[list[BodyMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None  # ours
    # Others' ways to turn thoughts on and off.
    enable_thinking: bool | None = None
    thinking: ThinkingSwitch | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Accepted because they change no token.
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_retention: CacheRetention | None = None
    safety_identifier: str | None = None
    # Not served: see NEUTRAL.
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    moderation: Any = None
    prediction: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
NEUTRAL_IN_MESSAGES: dict[str, tuple[Any, ...]] = {
    "name": (),
    "tool_calls": ([],),
    "tool_call_id": (),
    "reasoning_content": ("",),
    "function_call": (),
    "refusal": ("",),
    "audio": (),
}
SERVED_IN_MESSAGES = {  # by role
    "assistant": {"tool_calls", "reasoning_content"},
    "tool": {"tool_call_id", "name"},  # the call's id names the tool
}


def parse(raw: bytes) -> Call:
    body, ignored = decode(raw, Body, unserved=UNSERVED)
    refuse_unserved(body, NEUTRAL)
    if body.prompt_cache_options is not None:
        refuse_unserved(body.prompt_cache_options, NEUTRAL_CACHE, "prompt_cache_options.")
    refuse_streamed_scores(body)
    params = sampling(
        body,
        max_tokens=_max_tokens(body),
        logprobs=_logprobs(body),
        prompt_logprobs=body.prompt_logprobs,
        schema=body.schema,
    )
    return Call(
        model=body.model,
        prompts=(_chat(body),),
        params=params,
        n=body.n or 1,
        priority=body.priority or 0,
        timeout=body.timeout,
        cache_salt=body.cache_salt,
        stream=bool(body.stream),
        include_usage=wants_usage(body),
        names=_names(body),
        ignored=ignored,
    )


def _chat(body: Body) -> Chat:
    tools = read_tools(body.tools, body.tool_choice, is_parallel=body.parallel_tool_calls)
    thinking = read_thinking(body.reasoning, body.reasoning_effort)
    return Chat(read_messages(body.messages), tools, switched(thinking, _switches(body)))


def _switches(body: Body) -> Iterator[tuple[str, Any]]:
    """Where each stands, and what it says. Raises BadRequest."""
    for name, value in (body.chat_template_kwargs or {}).items():
        field = f"chat_template_kwargs.{name}"
        if name not in ("enable_thinking", "thinking"):
            raise BadRequest("not served, leave it out", field)
        yield field, value
    yield "enable_thinking", body.enable_thinking
    if body.thinking is not None:
        refuse_unserved(body.thinking, {"budget_tokens": ()}, "thinking.")
        yield "thinking.type", body.thinking.type == "enabled"


def _names(body: Body) -> dict[str, str]:
    is_new = body.max_completion_tokens is not None
    return body.names | ({"max_tokens": "max_completion_tokens"} if is_new else {})


def _max_tokens(body: Body) -> int | None:
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise BadRequest(f"{old} contradicts max_completion_tokens {new}, give one", "max_tokens")
    return old if new is None else new


def _logprobs(body: Body) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise BadRequest(f"{body.top_logprobs} needs logprobs: true", "top_logprobs")
    return None


def read_messages(messages: Sequence[BodyMessage]) -> tuple[Message, ...]:
    """Raises BadRequest for what no template is given yet."""
    read = [_message(place, message) for place, message in enumerate(messages)]
    check_results((f"messages[{i}].tool_call_id", message) for i, message in enumerate(read))
    return tuple(read)


def _message(place: int, message: BodyMessage) -> Message:
    where = f"messages[{place}]."
    if message.role == "function":
        raise BadRequest("'function' is not served, give 'tool'", where + "role")
    served = SERVED_IN_MESSAGES.get(message.role, set())
    neutral = {name: NEUTRAL_IN_MESSAGES[name] for name in NEUTRAL_IN_MESSAGES.keys() - served}
    refuse_unserved(message, neutral, where)
    if message.content is None and message.role != "assistant":
        raise BadRequest("null, give text", where + "content")
    if message.tool_call_id is None and message.role == "tool":
        raise BadRequest("it is required", where + "tool_call_id")
    return Message(
        "system" if message.role == "developer" else message.role,  # templates know no other
        _text(message.content, where),
        reasoning=message.reasoning_content or "",
        tool_calls=read_calls(message.tool_calls, where + "tool_calls"),
        tool_call_id=message.tool_call_id,
    )


def _text(content: str | list[Part] | None, where: str) -> str:
    """Parts are joined by line ends, as vLLM and llama.cpp do."""
    if not isinstance(content, list):
        return content or ""
    for place, part in enumerate(content):
        if part.type != "text":
            problem = f"a part of type {part.type[:40]!r} is not served, give text"
            raise BadRequest(problem, f"{where}content[{place}].type")
        if part.text is None:
            raise BadRequest("it is required", f"{where}content[{place}].text")
    return "\n".join(part.text or "" for part in content)


def chunks(reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]:
    return closed_with_done(_chunks(reply, events))


async def _chunks(reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]:
    common = head(reply, "chat.completion.chunk")
    if reply.call.include_usage:
        common["usage"] = None
    for index in range(reply.num_choices):
        yield frame(common | _delta(reply, index, {"role": "assistant", "content": ""}))
    ends: dict[int, Finished] = {}
    async for index, event in events:
        match event:
            case Delta(logprobs=logprobs) if says(event) or logprobs:
                for said in deltas(event):
                    yield frame(common | _delta(reply, index, said, logprobs))
                    logprobs = ()  # once
            case Finished():
                ends[index] = completed(event)
                yield frame(common | _last_delta(index, event))
    if reply.call.include_usage:
        last = {"choices": [], "usage": usage(reply, ends), "seed": ends[0].seed}
        yield frame(common | last)


def _delta(reply: Reply, index: int, said: Json, logprobs: Sequence[TokenLogprob] = ()) -> Json:
    spelled = chat_logprobs(logprobs, reply.tokenizer) if logprobs else None
    choice = {"index": index, "delta": said, "logprobs": spelled, "finish_reason": None}
    return {"choices": [choice]}


def _last_delta(index: int, end: Finished) -> Json:
    choice = {"index": index, "delta": {}, "logprobs": None, "finish_reason": end.reason}
    return {"choices": [choice], "seed": end.seed}


def whole(reply: Reply, answers: Sequence[Answer]) -> bytes:
    body = head(reply, "chat.completion") | {
        "choices": [_choice(reply, index, answer) for index, answer in enumerate(answers)],
        "usage": usage(reply, {k: answer.end for k, answer in enumerate(answers)}),
        "seed": answers[0].end.seed,
    }
    if reply.call.params.prompt_logprobs is not None:
        scored = answers[0].prompt_logprobs
        body["prompt_logprobs"] = prompt_logprobs(scored, reply.tokenizer)
    return msgspec.json.encode(body)


def _choice(reply: Reply, index: int, answer: Answer) -> Json:
    asked = reply.call.params.logprobs is not None
    return {
        "index": index,
        "message": message(answer),
        "logprobs": chat_logprobs(answer.logprobs, reply.tokenizer) if asked else None,
        "finish_reason": answer.end.reason,
        "seed": answer.end.seed,
    }
