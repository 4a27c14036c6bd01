"""GET /v1/responses/{id}/input_items: what a response was asked, page by page."""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import BadRequest
from octavo.server.exchange import asked, json_response
from octavo.server.lists import listed
from octavo.server.protocols._openai import problem
from octavo.server.protocols.openai_responses import Includable
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/responses/{id}/input_items",)
NEEDS_KEY = True


class Query(Struct):
    after: str | None = None  # an item's id
    limit: Annotated[int, Meta(ge=1, le=100)] | None = None  # 20 if not given
    order: Literal["asc", "desc"] | None = None  # desc, newest first, if not given
    include: list[Includable] | None = None  # input of text has nothing more to it


async def answer(engine: Engine, http: HttpRequest) -> Response:
    query, headers = asked(http, Query)
    items = list(await http.app.state.responses.items(http.path_params["id"], http.state.key))
    if query.order != "asc":
        items.reverse()
    ids, limit = [item["id"] for item in items], query.limit or 20
    if query.after is not None and query.after not in ids:
        raise BadRequest(f"{query.after[:100]!r} is none of its items, give the id of one", "after")
    start = 0 if query.after is None else ids.index(query.after) + 1
    said = listed(items[start : start + limit], has_more=start + limit < len(items))
    return json_response(said, headers=headers)
