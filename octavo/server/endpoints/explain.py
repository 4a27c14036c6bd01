"""GET /v1/requests/{id}/explain: where one request's time, tokens and pages went."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.exchange import json_response, tenant
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/requests/{id}/explain",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    return json_response(http.app.state.journal.explain(http.path_params["id"], tenant(http)))
