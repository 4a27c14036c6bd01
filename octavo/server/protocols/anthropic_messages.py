"""POST /v1/messages, in Anthropic's words.

parse   their JSON  -> our Call, or a BadRequest that names the field
chunks  our Events  -> their named server-sent events
whole   our Answers -> their single message

    message_start (content_block_start content_block_delta... content_block_stop)* message_delta
    message_stop
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw
from sse_starlette import ServerSentEvent

from octavo.engine.tools import is_object
from octavo.errors import OctavoError
from octavo.server.bodies import CacheSalt, Timeout, Unserved, decode, refuse_unserved
from octavo.server.calls import Answer, Call, Events, Reply, completed
from octavo.server.protocols._anthropic import Conversation, chat, problem, schema_of
from octavo.server.protocols._anthropic_tools import PREFIX as PREFIX_OF_CALLS
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
    cache_salt: CacheSalt | None = None
    # Accepted because it changes no token.
    metadata: Any = None
    # Not served: see NEUTRAL.
    diagnostics: Any = None
    inference_geo: str | None = None
    service_tier: str | None = None


# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "diagnostics": ({}, {"previous_message_id": None}),
    "inference_geo": ("global",),  # wherever it may be
    "service_tier": ("auto", "standard_only"),
}
ELSEWHERE = {  # by the names of OpenAI's endpoints and others'
    "input": Unserved(instead="messages"),
    "instructions": Unserved(instead="system"),
    "max_completion_tokens": Unserved(instead="max_tokens"),
    "max_output_tokens": Unserved(instead="max_tokens"),
    "stop": Unserved(instead="stop_sequences"),
    "n": Unserved((1,)),
    "logit_bias": Unserved(({},)),
    "presence_penalty": Unserved((0,)),
    "frequency_penalty": Unserved((0,)),
    "repetition_penalty": Unserved((1,)),
    "min_p": Unserved((0,)),
    "ignore_eos": Unserved((False,)),
    "stop_token_ids": Unserved(([],)),
    "logprobs": Unserved((False,)),
    "top_logprobs": Unserved((0,)),
    "functions": Unserved(([],), "tools"),
    "function_call": Unserved(instead="tool_choice"),
    "parallel_tool_calls": Unserved((True,), "tool_choice.disable_parallel_tool_use"),
    "reasoning": Unserved(instead="thinking"),
    "reasoning_effort": Unserved(instead="thinking"),
    "previous_response_id": Unserved(instead="messages"),
    "text": Unserved(instead="output_config.format"),
    "response_format": Unserved(({"type": "text"},), "output_config.format"),
    "json_schema": Unserved(instead="output_config.format"),
    "guided_json": Unserved(instead="output_config.format"),
    "structured_outputs": Unserved(instead="output_config.format"),
    "regex": Unserved(),
    "grammar": Unserved(),
    "choice": Unserved(),
}


def parse(raw: bytes) -> Call:
    body, ignored = decode(raw, Body, unserved=ELSEWHERE)
    refuse_unserved(body, NEUTRAL)
    schema, field = schema_of(body)
    return Call(
        model=body.model,
        prompts=(chat(body, body.max_tokens),),
        params=_params(body, schema),
        priority=body.priority or 0,
        timeout=body.timeout,
        cache_salt=body.cache_salt,
        stream=bool(body.stream),
        # Who did not ask for thoughts looks for the answer in the first block.
        shows_thoughts=body.thinking is not None and body.thinking.is_shown,
        names={"schema": field},
        ignored=ignored,
    )


def _params(body: Body, schema: Json | None) -> SamplingParams:
    given: dict[str, Any] = {
        "max_tokens": body.max_tokens,
        "stop": stop_strings(body.stop_sequences, "stop_sequences"),
        "temperature": body.temperature,
        "top_k": body.top_k or None,  # 0 keeps all
        # 0 means the likeliest token; so does any share it alone reaches.
        "top_p": 1e-9 if body.top_p == 0 else body.top_p,
        "seed": body.seed,
        "schema": schema,
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
    blocks = _Blocks(reply)
    async for _, event in events:
        match event:
            case Delta():
                for one in blocks.hear(event):
                    yield _frame(one)
            case Finished():
                end = completed(event)
    for one in blocks.close():
        yield _frame(one)
    ending = _ending(reply, end) | {"container": None}
    yield _frame({"type": "message_delta", "delta": ending, "usage": _usage_at(end)})
    yield _frame({"type": "message_stop"})


def _frame(data: Json) -> ServerSentEvent:
    return ServerSentEvent(msgspec.json.encode(data).decode(), event=data["type"], sep="\n")


class _Blocks:
    """Deltas in, events of the content's blocks out: each has one kind of content, and an answer
    that says nothing has none."""

    def __init__(self, reply: Reply) -> None:
        self._shows_thoughts = reply.call.shows_thoughts
        self._open: str | None = None  # the type of the block under way
        self._index = -1

    def hear(self, delta: Delta) -> Iterator[Json]:
        if delta.reasoning and self._shows_thoughts:
            yield from self._enter(_thought(""))
            yield self._add("thinking_delta", thinking=delta.reasoning)
        if delta.text:
            yield from self._enter(_block(""))
            yield self._add("text_delta", text=delta.text)
        for call in delta.calls:
            if call.id is not None and call.name is not None:
                yield from self.close()
                yield from self._enter(_use(call.id, call.name, {}))
            if call.arguments:
                yield self._add("input_json_delta", partial_json=call.arguments)

    def close(self) -> Iterator[Json]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._index}

    def _enter(self, block: Json) -> Iterator[Json]:
        if self._open != block["type"]:
            yield from self.close()
            self._open = block["type"]
            self._index += 1
            yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _add(self, kind: str, **what: str) -> Json:
        delta = {"type": kind, **what}
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _block(text: str) -> Json:
    return {"type": "text", "text": text, "citations": []}


def _thought(text: str) -> Json:
    """Nothing is signed: a thought that comes back is taken as it is."""
    return {"type": "thinking", "thinking": text, "signature": ""}


def _use(id: str, name: str, input: Any) -> Json:
    return {"type": "tool_use", "id": PREFIX_OF_CALLS + id, "name": name, "input": input}


def whole(reply: Reply, answers: Sequence[Answer]) -> bytes:
    (answer,) = answers
    is_shown = answer.reasoning and reply.call.shows_thoughts
    blocks = [_thought(answer.reasoning)] if is_shown else []
    blocks += [_block(answer.text)] if answer.text else []
    # max_tokens may have cut the last one short, and half an input may look like a whole one.
    calls = [call for call in answer.calls if is_object(call.arguments)]
    blocks += [_use(call.id, call.name, Raw(call.arguments)) for call in calls]
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
    if end.reason == "tool_calls":
        return "tool_use"
    return "stop_sequence" if isinstance(end.stop, str) else "end_turn"


def _usage_at(end: Finished) -> Json:
    usage = end.usage
    thought = {"thinking_tokens": usage.reasoning_tokens} if usage.reasoning_tokens else None
    told = _usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return told | {"output_tokens_details": thought}


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
