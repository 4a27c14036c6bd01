"""POST /v1/messages/count_tokens: how long a conversation is, in Anthropic's words."""

import asyncio

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.exchange import json_response, read
from octavo.server.protocols._anthropic import Conversation, chat, problem
from octavo.server.running import Engine, check_model

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/v1/messages/count_tokens",)
NEEDS_KEY = True

Body = Conversation


async def answer(engine: Engine, http: HttpRequest) -> Response:
    body, headers = await read(http, Body)
    check_model(engine, body.model)
    ids = await asyncio.to_thread(engine.chat_format.ids, chat(body))
    return json_response({"input_tokens": len(ids)}, headers=headers)
