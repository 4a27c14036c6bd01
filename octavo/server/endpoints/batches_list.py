"""GET /v1/batches: the caller's, newest first."""

import asyncio
from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.endpoints._batches import shown
from octavo.server.exchange import asked, json_response, tenant
from octavo.server.lists import Page, listed
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/batches",)
NEEDS_KEY = True


class Query(Struct):
    after: str | None = None  # the last id of the page before
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


async def answer(engine: Engine, http: HttpRequest) -> Response:
    query, headers = asked(http, Query)
    page = Page(query.limit, query.after)
    batches, has_more = await asyncio.to_thread(http.app.state.batches.page, tenant(http), page)
    return json_response(listed([*map(shown, batches)], has_more=has_more), headers=headers)
