"""GET /v1/files/{id}: what a file is, not what is in it."""

import asyncio

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.endpoints._files import shown
from octavo.server.exchange import json_response, tenant
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/files/{id}",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    id = http.path_params["id"]
    file = await asyncio.to_thread(http.app.state.files.find, tenant(http), id)
    return json_response(shown(file))
