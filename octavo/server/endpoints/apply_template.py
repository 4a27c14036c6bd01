"""POST /apply-template: a chat as the model's template writes it, in llama.cpp's words."""

import asyncio
from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.bodies import MAX_MESSAGES
from octavo.server.exchange import json_response, read
from octavo.server.protocols._openai_tools import FunctionTool, read_tools
from octavo.server.protocols.openai_chat import BodyMessage, problem, read_messages
from octavo.server.running import Engine, check_model
from octavo.types import Chat

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/apply-template",)
NEEDS_KEY = True


class Body(Struct):
    messages: Annotated[list[BodyMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    tools: list[FunctionTool] | None = None
    model: str | None = None


async def answer(engine: Engine, http: HttpRequest) -> Response:
    body, headers = await read(http, Body)
    if body.model is not None:
        check_model(engine, body.model)
    chat = Chat(read_messages(body.messages), read_tools(body.tools))
    text = await asyncio.to_thread(engine.chat_format.render, chat)
    return json_response({"prompt": text}, headers=headers)
