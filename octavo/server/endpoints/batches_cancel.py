"""POST /v1/batches/{id}/cancel: what is answered already stays in the output file."""

import asyncio

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.endpoints._batches import shown
from octavo.server.exchange import json_response, tenant
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/v1/batches/{id}/cancel",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    id = http.path_params["id"]
    batch = await asyncio.to_thread(http.app.state.batches.cancel, tenant(http), id)
    http.app.state.batch_worker.wake()
    return json_response(shown(batch))
