"""The HTTP server: an app made of whatever protocols/ holds, and the process around it."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from octavo.errors import UnknownName
from octavo.registry import entry, names
from octavo.server.endpoint import Dialect, Endpoint, refusal
from octavo.server.protocols.openai_chat import problem
from octavo.server.running import Engine
from octavo.types import Json

PROTOCOLS = "octavo.server.protocols"


def create_app(engine: Engine) -> Starlette:
    """The engine starts and stops with the app."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await engine.start()
        try:
            yield
        finally:
            await engine.stop()

    dialects = [cast(Dialect, entry(PROTOCOLS, name)) for name in names(PROTOCOLS)]
    posts = [Route(d.PATH, Endpoint(d, engine).answer, methods=["POST"]) for d in dialects]
    created = int(time.time())
    card = partial(_card, engine, created)  # an engine has a name only once it has started
    app = Starlette(
        routes=[
            *posts,
            Route("/v1/models", partial(_models, card)),
            Route("/v1/models/{id:path}", partial(_model, card)),
            Route("/health", partial(_health, engine)),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False  # a redirected POST loses its body
    return app


def _card(engine: Engine, created: int) -> Json:
    return {
        "id": engine.name,
        "object": "model",
        "created": created,
        "owned_by": "octavo",
        "max_model_len": engine.max_context,  # vLLM's word for it
    }


async def _models(card: Callable[[], Json], http: HttpRequest) -> Response:
    return _json({"object": "list", "data": [card()]})


async def _model(card: Callable[[], Json], http: HttpRequest) -> Response:
    served, asked = card(), http.path_params["id"]
    if asked != served["id"]:
        error = UnknownName("this server", asked, close=[served["id"]])
        return refusal(problem(error), error.status)
    return _json(served)


async def _health(engine: Engine, http: HttpRequest) -> Response:
    return _json({"status": "ok"}) if engine.is_alive else _json({"status": "failed"}, 503)


async def _no_route(http: HttpRequest, error: Exception) -> Response:
    """404 and 405, in the envelope most clients can read."""
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {http.method} {http.url.path}"
    said = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    response = refusal({"error": said}, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _json(body: Json, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
