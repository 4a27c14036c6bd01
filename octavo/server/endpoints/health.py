"""GET /health: is the engine alive? 503 once only a restart helps."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.exchange import json_response
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/health",)
NEEDS_KEY = False


async def answer(engine: Engine, http: HttpRequest) -> Response:
    if engine.is_alive:
        return json_response({"status": "ok"})
    return json_response({"status": "failed"}, 503)
