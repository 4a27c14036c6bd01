"""POST /v1/messages, in Anthropic's words.

parse   their JSON  -> our Call, or a BadRequest that names the field
chunks  our Events  -> their named server-sent events
whole   our Answers -> their single message

    message_start (content_block_start content_block_delta... content_block_stop)? message_delta
    message_stop
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sse_starlette import ServerSentEvent

from octavo.errors import OctavoError
from octavo.server.bodies import Timeout, decode
from octavo.server.calls import Answer, Call, Events, Reply, completed
from octavo.server.protocols._anthropic import Conversation, chat, problem
from octavo.server.protocols._openai import stop_strings
from octavo.types import Delta, Finished, Json, SamplingParams

__all__ = ["ID_HEADER", "PATH", "PREFIX", "chunks", "parse", "problem", "whole"]

PATH = "/v1/messages"
PREFIX = "msg_"
ID_HEADER = "request-id"


class Body(Conversation, kw_only=True):
    max_tokens: Annotated[int, Meta(ge=1)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    # Ours, beyond Anthropic's.
    seed: int | None = None
    priority: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    timeout: Timeout | None = None
    # Accepted because they change no token.
    diagnostics: Any = None
    inference_geo: str | None = None
    metadata: Any = None
    service_tier: str | None = None


def parse(raw: bytes) -> Call:
    body, ignored = decode(raw, Body)
    return Call(
        model=body.model,
        prompts=(chat(body),),
        params=_params(body),
        priority=body.priority or 0,
        timeout=body.timeout,
        stream=bool(body.stream),
        ignored=ignored,
    )


def _params(body: Body) -> SamplingParams:
    given: dict[str, Any] = {
        "max_tokens": body.max_tokens,
        "stop": stop_strings(body.stop_sequences, "stop_sequences"),
        "temperature": body.temperature,
        "top_k": body.top_k or None,  # 0 keeps all
        # 0 means the likeliest token; so does any share it alone reaches.
        "top_p": 1e-9 if body.top_p == 0 else body.top_p,
        "seed": body.seed,
    }
    return SamplingParams(**{name: value for name, value in given.items() if value is not None})


async def chunks(reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]:
    try:
        async for one in _chunks(reply, events):
            yield one
    except OctavoError as error:
        yield _frame(problem(error))


async def _chunks(reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]:
    begun = _usage(len(reply.prompt_ids[0]))
    yield _frame({"type": "message_start", "message": _message(reply, [], None, begun)})
    is_open = False  # an answer without text has no block
    async for _, event in events:
        match event:
            case Delta(text=text) if text:
                if not is_open:
                    yield _frame(_of_block("start", content_block=_block("")))
                    is_open = True
                yield _frame(_of_block("delta", delta={"type": "text_delta", "text": text}))
            case Finished():
                end = completed(event)
    if is_open:
        yield _frame(_of_block("stop"))
    ending = _ending(reply, end) | {"container": None}
    yield _frame({"type": "message_delta", "delta": ending, "usage": _usage_at(end)})
    yield _frame({"type": "message_stop"})


def _frame(data: Json) -> ServerSentEvent:
    return ServerSentEvent(msgspec.json.encode(data).decode(), event=data["type"], sep="\n")


def _of_block(what: str, **fields: Any) -> Json:
    return {"type": f"content_block_{what}", "index": 0} | fields


def _block(text: str) -> Json:
    return {"type": "text", "text": text, "citations": []}


def whole(reply: Reply, answers: Sequence[Answer]) -> bytes:
    (answer,) = answers
    blocks = [_block(answer.text)] if answer.text else []
    return msgspec.json.encode(_message(reply, blocks, answer.end, _usage_at(answer.end)))


def _message(reply: Reply, blocks: list[Json], end: Finished | None, usage: Json) -> Json:
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.call.model,
        "content": blocks,
        **_ending(reply, end),
        "container": None,
        "usage": usage,
    }


def _ending(reply: Reply, end: Finished | None) -> Json:
    stopped_by = end.stop if end and isinstance(end.stop, str) else None
    return {
        "stop_reason": end and _reason(reply, end),
        "stop_sequence": stopped_by,
        "stop_details": None,
    }


def _reason(reply: Reply, end: Finished) -> str:
    if end.reason == "length":
        is_whole = end.usage.completion_tokens == reply.call.params.max_tokens
        return "max_tokens" if is_whole else "model_context_window_exceeded"
    return "stop_sequence" if isinstance(end.stop, str) else "end_turn"


def _usage_at(end: Finished) -> Json:
    return _usage(end.usage.prompt_tokens, end.usage.cached_tokens, end.usage.completion_tokens)


def _usage(prompt: int, cached: int = 0, said: int = 0) -> Json:
    """`input_tokens` are those that had to be computed."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": said,
        "cache_creation": None,
        "output_tokens_details": None,
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }
