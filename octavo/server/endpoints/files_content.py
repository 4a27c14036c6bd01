"""GET /v1/files/{id}/content: what is in a file."""

import asyncio
import os
from typing import BinaryIO

from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from octavo.server.exchange import tenant
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/files/{id}/content",)
NEEDS_KEY = True


class Contents(FileResponse):
    """Of an open file, which it closes: all of it, also where the file is deleted meanwhile."""

    def __init__(self, contents: BinaryIO, name: str) -> None:
        number = contents.fileno()
        super().__init__(
            f"/dev/fd/{number}",  # the same file, whether or not it still has a name
            filename=name,
            media_type="application/octet-stream",
            stat_result=os.fstat(number),
        )
        self._contents = contents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._contents:
            await super().__call__(scope, receive, send)


async def answer(engine: Engine, http: HttpRequest) -> Response:
    files, id = http.app.state.files, http.path_params["id"]
    file, contents = await asyncio.to_thread(files.open, tenant(http), id)
    return Contents(contents, file.name)
