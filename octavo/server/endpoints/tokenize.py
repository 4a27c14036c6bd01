"""POST /tokenize: the ids of a prompt or a chat, as vLLM words it."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import BadRequest
from octavo.server.bodies import MAX_MESSAGES
from octavo.server.exchange import json_response, read
from octavo.server.protocols._openai_tools import FunctionTool, read_tools
from octavo.server.protocols.openai_chat import BodyMessage, problem, read_messages
from octavo.server.running import Engine, check_model
from octavo.types import Chat

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/tokenize",)
NEEDS_KEY = True


class Body(Struct):
    prompt: str | None = None
    # Rendered as for an answer; instead of a prompt.
    messages: Annotated[list[BodyMessage], Meta(max_length=MAX_MESSAGES)] | None = None
    tools: list[FunctionTool] | None = None  # that the messages may call
    model: str | None = None
    add_special_tokens: bool | None = None  # of a prompt: BOS and the like; true if not given
    return_token_strs: bool | None = None


async def answer(engine: Engine, http: HttpRequest) -> Response:
    body, headers = await read(http, Body)
    if body.model is not None:
        check_model(engine, body.model)
    ids, shown = await asyncio.to_thread(_tokens, engine, body)
    said = {
        "count": len(ids),
        "max_model_len": engine.max_context,
        "tokens": list(ids),
        "token_strs": shown,
    }
    return json_response(said, headers=headers)


def _tokens(engine: Engine, body: Body) -> tuple[Sequence[int], list[str] | None]:
    """Ids and, where they are asked for, the text of each."""
    ids = _ids(engine, body)
    if not body.return_token_strs:
        return ids, None
    return ids, [engine.tokenizer.decode([i], special=True) for i in ids]


def _ids(engine: Engine, body: Body) -> Sequence[int]:
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("give either prompt or messages", "prompt")
    if body.messages is not None:
        if body.add_special_tokens is not None:
            raise BadRequest("the chat template says which, leave it out", "add_special_tokens")
        tools = read_tools(body.tools)
        return engine.chat_format.ids(Chat(read_messages(body.messages), tools))
    if body.tools:
        raise BadRequest("they need messages, leave them out", "tools")
    if body.add_special_tokens is False:
        return engine.tokenizer.encode(body.prompt or "")
    return engine.tokenizer.prompt_ids(body.prompt or "")
