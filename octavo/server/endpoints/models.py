"""GET /v1/models and /v1/models/{id}: what is served here."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.exchange import json_response
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine, check_model

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/models", "/v1/models/{id:path}")
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    card = {
        "id": engine.name,
        "object": "model",
        "created": http.app.state.started,
        "owned_by": "octavo",
        "max_model_len": engine.max_context,  # vLLM's word for it
    }
    if (asked := http.path_params.get("id")) is None:
        return json_response({"object": "list", "data": [card]})
    check_model(engine, asked)
    return json_response(card)
