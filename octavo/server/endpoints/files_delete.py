"""DELETE /v1/files/{id}: what is in it is gone at once; batches keep their input."""

import asyncio

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.exchange import json_response, tenant
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "DELETE", ("/v1/files/{id}",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    id = http.path_params["id"]
    await asyncio.to_thread(http.app.state.files.delete, tenant(http), id)
    return json_response({"id": id, "object": "file", "deleted": True})
