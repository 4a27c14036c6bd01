"""The HTTP server: an app made of whatever protocols/ and endpoints/ hold."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from functools import partial
from typing import Protocol, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from octavo.errors import OctavoError, StepFailed, UsageError
from octavo.registry import entry, names
from octavo.server.batch_worker import BatchWorker
from octavo.server.batches import Batches
from octavo.server.calls import FAILED, Reply
from octavo.server.desk import PROTOCOLS, Desk, dialects
from octavo.server.endpoint import Endpoint
from octavo.server.exchange import MAX_BODY, UnknownFields, guarded, json_response
from octavo.server.files import Files
from octavo.server.gate import Gate
from octavo.server.journal import Journal
from octavo.server.metrics import Metrics
from octavo.server.protocols._openai import problem
from octavo.server.replays import Replays
from octavo.server.responses import Responses
from octavo.server.running import Engine, Listener
from octavo.server.state import State
from octavo.types import Json

__all__ = ["ENDPOINTS", "PROTOCOLS", "create_app"]

ENDPOINTS = "octavo.server.endpoints"  # all that does not generate
MAX_SHOWN = 100  # characters of a path that leads nowhere


class Answering(Protocol):
    """What a file in endpoints/ offers."""

    METHOD: str
    PATHS: tuple[str, ...]
    NEEDS_KEY: bool

    def answer(self, engine: Engine, http: HttpRequest) -> Awaitable[Response]: ...
    def problem(self, error: OctavoError) -> Json: ...


def create_app(
    engine: Engine,
    *,
    gate: Gate | None = None,
    state: State | None = None,
    unknown_fields: UnknownFields | None = None,
    metric_names: str = "octavo",
    cors_origins: Sequence[str] = (),
    listeners: Sequence[Callable[[Reply], Listener]] = (),
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """The engine starts and stops with the app.

    state         what outlives the process; None: nothing does
    metric_names  one of metrics.NAMES
    cors_origins  of web pages that may call from a browser; "*" for all
    listeners     beside the journal: each makes one of a reply
    middleware    around all of it
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await engine.start()
        app.state.journal = Journal(Metrics(engine, metric_names), listeners)
        app.state.desk = Desk(engine, app.state.gate, app.state.journal)
        with nullcontext(state) if state else State.temporary() as app.state.kept:
            app.state.replays = Replays(app.state.kept)
            app.state.responses = Responses(app.state.desk, app.state.kept)
            try:
                await app.state.responses.start()
                async with _working(app):
                    yield
            finally:
                await app.state.replays.close()
                await engine.stop()
                await app.state.responses.stop()

    app = Starlette(
        routes=[*_generating(), *_answering(engine)],
        lifespan=lifespan,
        middleware=[*middleware, *_cors(cors_origins)],
        exception_handlers={HTTPException: _no_route, Exception: _failed},
    )
    app.state.started = int(time.time())
    app.state.gate = gate or Gate()
    app.state.unknown_fields = unknown_fields or UnknownFields()
    app.router.redirect_slashes = False  # a redirected POST loses its body
    return app


@asynccontextmanager
async def _working(app: Starlette) -> AsyncIterator[None]:
    """Files and batches have a connection of their own: whoever asks does not wait for a line's
    result to be safe on disk."""
    kept: State = app.state.kept
    with closing(State(kept.path)) as own:
        app.state.files = Files(own)
        app.state.batches = Batches(own, app.state.files)
        app.state.batch_worker = BatchWorker(
            app.state.batches,
            app.state.files,
            app.state.desk,
            app.state.responses,
            app.state.unknown_fields,
        )
        async with app.state.batch_worker.working():
            yield


def _cors(origins: Sequence[str]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    ]


def _generating() -> list[Route]:
    return [
        Route(d.PATH, guarded(Endpoint(d).answer, d.problem), methods=["POST"]) for d in dialects()
    ]


def _answering(engine: Engine) -> list[Route]:
    files = [cast(Answering, entry(ENDPOINTS, name)) for name in names(ENDPOINTS)]
    return [
        Route(
            path,
            guarded(
                partial(f.answer, engine),
                f.problem,
                needs_key=f.NEEDS_KEY,
                max_body=getattr(f, "MAX_BODY", MAX_BODY),
            ),
            methods=[f.METHOD],
        )
        for f in files
        for path in f.PATHS
    ]


async def _no_route(http: HttpRequest, error: Exception) -> Response:
    """404 and 405, to whoever asks."""
    assert isinstance(error, HTTPException)
    refusal = UsageError(f"{error.detail}: {http.method} {http.url.path[:MAX_SHOWN]}")
    refusal.status = error.status_code
    response = _refused(http, refusal)
    response.headers.update(error.headers or {})
    gate: Gate = http.app.state.gate
    response.headers.update(gate.headers(gate.known(http)))
    if error.status_code == 405:  # Starlette knows one route of the path, there may be more
        response.headers["allow"] = ", ".join(_methods(http))
    return response


async def _failed(http: HttpRequest, error: Exception) -> Response:
    """A bug of ours, beside all handlers; uvicorn logs it."""
    return _refused(http, StepFailed(FAILED))


def _refused(http: HttpRequest, error: OctavoError) -> Response:
    """Counted, and in the envelope of the protocol whose path it stands under, else in the one that
    most clients can read."""
    path = f"{http.url.path}/"
    near = [dialect.problem for dialect in dialects() if path.startswith(f"{dialect.PATH}/")]
    http.app.state.journal.metrics.refused(error.status)
    return json_response((near or [problem])[0](error), error.status)


def _methods(http: HttpRequest) -> list[str]:
    routes = [route for route in http.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.path_regex.match(http.scope["path"])]
    return sorted({method for route in matching for method in route.methods or ()})
