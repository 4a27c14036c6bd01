"""GET /v1/files/{id}/content: what is in a file."""

import asyncio

from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response

from octavo.server.exchange import tenant
from octavo.server.protocols.openai_chat import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/files/{id}/content",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    files, id = http.app.state.files, http.path_params["id"]
    file = await asyncio.to_thread(files.find, tenant(http), id)
    return FileResponse(
        files.path(file.id), filename=file.name, media_type="application/octet-stream"
    )
