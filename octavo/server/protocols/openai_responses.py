"""POST /v1/responses, in OpenAI's words.

parse   their JSON  -> our Call, or a BadRequest that names the field
chunks  our Events  -> their numbered server-sent events
whole   our Answers -> their single response
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from sse_starlette import ServerSentEvent

from octavo.errors import BadRequest, OctavoError
from octavo.server.bodies import MAX_MESSAGES, Unserved, decode, refuse_unserved
from octavo.server.calls import Answer, Call, Events, Reply, Thread
from octavo.server.protocols._formats import FlatFormat, schema_of
from octavo.server.protocols._openai import (
    NEUTRAL_CACHE,
    NEUTRAL_STREAM,
    CacheOptions,
    CacheRetention,
    Limit,
    Metadata,
    Sampled,
    problem,
    sampling,
)
from octavo.server.protocols._openai_flat_tools import (
    FlatChoice,
    FlatReasoning,
    FlatTool,
    read_tools,
    repeated_choice,
    repeated_reasoning,
    repeated_tools,
    thinking_of,
    without_hosted,
)
from octavo.server.protocols._openai_items import REFERENCE, RESPONSE, Item, chat, read
from octavo.server.protocols._openai_output import output_of
from octavo.server.protocols._openai_response import Script, ended, status_at
from octavo.server.protocols._unserved import UNSERVED
from octavo.types import MAX_LOGPROBS, Chat, Json, Message

__all__ = ["ID_HEADER", "PATH", "PREFIX", "chunks", "parse", "problem", "whole"]

PATH = "/v1/responses"
PREFIX = RESPONSE
ID_HEADER = "x-request-id"

LOGPROBS = "message.output_text.logprobs"
# Others ask for nothing: no such tool is run here, and a thought is in its item as it is.
Includable = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "web_search_call.action.sources",
    "web_search_call.results",
]


class Text(Struct):
    format: FlatFormat | None = None
    verbosity: Any = None


class StreamOptions(Struct):
    include_obfuscation: bool | None = None


class Body(Sampled, kw_only=True):
    input: str | Annotated[list[Item], Meta(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    previous_response_id: Annotated[str, Meta(min_length=1)] | None = None
    store: bool | None = None
    background: bool | None = None
    include: list[Includable] | None = None
    max_output_tokens: Limit | None = None
    text: Text | None = None
    tools: list[FlatTool] | None = None
    tool_choice: str | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: FlatReasoning | None = None
    stream_options: StreamOptions | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    max_tool_calls: Limit | None = None  # of tools that the server runs: it runs none
    # Accepted because they change no token.
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_retention: CacheRetention | None = None
    safety_identifier: str | None = None
    # Not served: see NEUTRAL.
    access_programs: Any = None
    background_options: Any = None
    context_management: Any = None
    conversation: Any = None
    image: Any = None
    moderation: Any = None
    prompt: Any = None
    service_tier: Any = None


# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background_options": ({}, {"completion_window": "soonest"}),
    "context_management": ([],),
    "conversation": (),
    "image": ({},),
    "moderation": (),
    "prompt": (),
    "service_tier": ("auto", "default"),
}
ELSEWHERE = {  # by the names of chat completions and of messages
    "messages": Unserved(instead="input"),
    "system": Unserved(instead="instructions"),
    "max_tokens": Unserved(instead="max_output_tokens"),
    "max_completion_tokens": Unserved(instead="max_output_tokens"),
    "stop_sequences": Unserved(instead="stop"),
    "n": Unserved((1,)),
    "logprobs": Unserved((False,), "top_logprobs"),
    "prompt_logprobs": Unserved(),
    "functions": Unserved(([],), "tools"),
    "function_call": Unserved(instead="tool_choice"),
    "modalities": Unserved((["text"],)),
    "prediction": Unserved(),
    "verbosity": Unserved(("medium",)),
    "response_format": Unserved(({"type": "text"},), "text.format"),
    "reasoning_effort": Unserved(instead="reasoning.effort"),
    "enable_thinking": Unserved(instead="reasoning.effort"),
    "thinking": Unserved(instead="reasoning.effort"),
    "chat_template_kwargs": Unserved(({},), "reasoning.effort"),
}
NEUTRAL_TEXT: dict[str, tuple[Any, ...]] = {"verbosity": ("medium",)}


def parse(raw: bytes) -> Call:
    """What goes on from others has no prompt yet: server/responses.py knows them."""
    body, ignored = decode(raw, Body, unserved=UNSERVED | ELSEWHERE)
    _check(body)
    items, opening = read(body.input), _opening(body)
    looks_back = body.previous_response_id or any(item["type"] == REFERENCE for item in items)
    is_background = bool(body.background)
    return Call(
        model=body.model,
        prompts=() if looks_back else (chat(opening, (), items),),
        params=sampling(
            body,
            max_tokens=body.max_output_tokens,
            logprobs=_logprobs(body),
            schema=schema_of(_format(body), "text.format"),
        ),
        priority=body.priority or 0,
        timeout=body.timeout,
        cache_salt=body.cache_salt,
        stream=bool(body.stream),
        names={
            "schema": "text.format.schema",
            "max_tokens": "max_output_tokens",
            "logprobs": "top_logprobs",
        },
        ignored=without_hosted(ignored, body.tools),
        repeated=_repeated(body),
        thread=Thread(
            items,
            opening,
            previous=body.previous_response_id,
            is_kept=body.store is not False,
            is_background=is_background,
            body=raw if is_background else b"",
        ),
    )


def _opening(body: Body) -> Chat:
    """Instructions are the request's own: those of the responses before it are not among them."""
    return Chat(
        (Message("system", body.instructions),) if body.instructions else (),
        read_tools(body.tools, body.tool_choice, is_parallel=body.parallel_tool_calls),
        thinking_of(body.reasoning),
        field="input",
        may_shorten=body.truncation == "auto",
    )


def _format(body: Body) -> FlatFormat | None:
    """Raises BadRequest."""
    given = body.text.format if body.text else None
    if given and given.type == "json_schema" and given.name is None:
        raise BadRequest("it is required", "text.format.name")
    return given


def _check(body: Body) -> None:
    """Raises BadRequest for what is not served, and for what contradicts itself."""
    refuse_unserved(body, NEUTRAL)
    for name, neutral in (
        ("text", NEUTRAL_TEXT),
        ("stream_options", NEUTRAL_STREAM),
        ("prompt_cache_options", NEUTRAL_CACHE),
    ):
        if (part := getattr(body, name)) is not None:
            refuse_unserved(part, neutral, f"{name}.")
    if body.stream_options is not None and not body.stream:
        raise BadRequest("it needs stream: true", "stream_options")
    if body.background and body.store is False:
        raise BadRequest("what runs in the background is kept: leave out store", "background")


def _logprobs(body: Body) -> int | None:
    asked = body.top_logprobs or LOGPROBS in (body.include or ())
    return body.top_logprobs or 0 if asked else None


def _repeated(body: Body) -> Json:
    """What a response says again of its request; null or the default where that said nothing."""
    alike = (
        *("instructions", "previous_response_id", "max_output_tokens", "max_tool_calls"),
        *("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user"),
    )
    return {name: getattr(body, name) for name in alike} | {
        "background": bool(body.background),
        "conversation": None,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "metadata": body.metadata or {},
        "moderation": None,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "presence_penalty": body.presence_penalty or 0.0,
        "prompt": None,
        "prompt_cache_options": None,
        "reasoning": repeated_reasoning(body.reasoning),
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": _repeated_format(_format(body)), "verbosity": "medium"},
        "tool_choice": repeated_choice(body.tool_choice),
        "tools": repeated_tools(body.tools),
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
    }


def _repeated_format(given: FlatFormat | None) -> Json:
    if given is None:
        return {"type": "text"}
    if given.type != "json_schema":
        return {"type": given.type}
    said = {name: getattr(given, name) for name in ("type", "name", "description", "schema")}
    return said | {"strict": True}


async def chunks(reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]:
    """Events that end before a Finished were cancelled by whoever listened."""
    async for some in _told(Script(reply), events):
        for one in some:
            yield one


async def _told(script: Script, events: Events) -> AsyncIterator[Iterable[ServerSentEvent]]:
    yield script.opening()
    try:
        async for _, event in events:
            yield list(script.hear(event))  # here, where it may raise
    except OctavoError as error:
        yield script.fail(error)
    if not script.is_over:
        yield script.cancel()


def whole(reply: Reply, answers: Sequence[Answer]) -> bytes:
    (answer,) = answers
    output = output_of(reply, answer, status_at(answer.end))
    return msgspec.json.encode(ended(reply, output, answer.end))
