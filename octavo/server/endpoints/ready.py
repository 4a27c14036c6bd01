"""GET /ready: will a request be taken now? 503 before the model is loaded and while what runs is
waited for."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.exchange import json_response
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/ready",)
NEEDS_KEY = False


async def answer(engine: Engine, http: HttpRequest) -> Response:
    if engine.is_ready:
        return json_response({"status": "ready"})
    return json_response({"status": "not ready"}, 503)
