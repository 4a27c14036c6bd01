"""DELETE /v1/responses/{id}: forgets a response; one that runs is ended first."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.exchange import json_response
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "DELETE", ("/v1/responses/{id}",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    id = http.path_params["id"]
    await http.app.state.responses.remove(id, http.state.key)
    return json_response({"id": id, "object": "response", "deleted": True})
