"""POST /v1/responses/{id}/cancel: ends a response that runs in the background."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/v1/responses/{id}/cancel",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    body = await http.app.state.responses.cancel(http.path_params["id"], http.state.key)
    return Response(body, media_type="application/json")
