"""GET /metrics: counters, histograms and gauges in Prometheus' text format."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/metrics",)
NEEDS_KEY = True


async def answer(engine: Engine, http: HttpRequest) -> Response:
    return Response(http.app.state.journal.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
