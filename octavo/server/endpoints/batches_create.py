"""POST /v1/batches: the lines of a file, answered in the background."""

import asyncio
from typing import Literal

import msgspec
from msgspec import Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import BadRequest, UnknownName
from octavo.server.batches import Batch
from octavo.server.desk import dialects
from octavo.server.endpoints._batches import shown
from octavo.server.exchange import json_response, read, tenant
from octavo.server.files import ExpiresAfter
from octavo.server.protocols._openai import Metadata, problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/v1/batches",)
NEEDS_KEY = True


class Body(Struct):
    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None  # of the files that it ends in


async def answer(engine: Engine, http: HttpRequest) -> Response:
    body, headers = await read(http, Body)
    served = [dialect.PATH for dialect in dialects()]
    if body.endpoint not in served:
        raise BadRequest(f"{body.endpoint[:100]!r} is none of {', '.join(served)}", "endpoint")
    batch = await asyncio.to_thread(_create, http, engine.name, body)
    http.app.state.batch_worker.wake()
    return json_response(shown(batch), headers=headers)


def _create(http: HttpRequest, model: str, body: Body) -> Batch:
    try:
        file = http.app.state.files.find(tenant(http), body.input_file_id)
    except UnknownName as error:
        error.field = "input_file_id"
        raise
    if file.purpose != "batch":
        raise BadRequest(
            f"its purpose is {file.purpose!r}, not 'batch': give another", "input_file_id"
        )
    metadata = None if body.metadata is None else msgspec.json.encode(body.metadata).decode()
    keep = body.output_expires_after.seconds if body.output_expires_after else None
    batch: Batch = http.app.state.batches.create(file, model, body.endpoint, metadata, keep)
    return batch
