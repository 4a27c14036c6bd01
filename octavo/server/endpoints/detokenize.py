"""POST /detokenize: the text of token ids, control tokens included, as vLLM words it."""

import asyncio

from msgspec import Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import BadRequest
from octavo.server.exchange import json_response, read
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine, check_model

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/detokenize",)
NEEDS_KEY = True


class Body(Struct):
    tokens: list[int]
    model: str | None = None


async def answer(engine: Engine, http: HttpRequest) -> Response:
    body, headers = await read(http, Body)
    if body.model is not None:
        check_model(engine, body.model)
    try:
        text = await asyncio.to_thread(engine.tokenizer.decode, body.tokens, special=True)
    except BadRequest as error:
        raise BadRequest(str(error), "tokens") from None
    return json_response({"prompt": text}, headers=headers)
