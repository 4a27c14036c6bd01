"""GET /v1/responses/{id}: a response that was made earlier, or its events once more."""

from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import BadRequest
from octavo.server.endpoint import numbered
from octavo.server.exchange import asked
from octavo.server.protocols._openai import problem
from octavo.server.protocols.openai_responses import Includable
from octavo.server.replays import LAST_EVENT, event_number
from octavo.server.running import Engine
from octavo.server.stream import Stream

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/responses/{id}",)
NEEDS_KEY = True


class Query(Struct):
    stream: bool | None = None
    starting_after: Annotated[int, Meta(ge=0, lt=2**53)] | None = None  # an event's number
    include: list[Includable] | None = None  # logprobs are there where it was made with them
    include_obfuscation: bool | None = None


async def answer(engine: Engine, http: HttpRequest) -> Response:
    query, headers = asked(http, Query)
    responses, id, key = http.app.state.responses, http.path_params["id"], http.state.key
    if query.include_obfuscation:
        raise BadRequest("not served, leave it out or give false", "include_obfuscation")
    if query.stream:
        start = _start(query, http)
        log = await responses.log(id, key)
        return Stream(numbered(log.follow(start), start), _nothing, headers)
    if query.starting_after is not None:
        raise BadRequest("it needs stream=true", "starting_after")
    body = await responses.response(id, key)
    return Response(body, headers=headers, media_type="application/json")


def _start(query: Query, http: HttpRequest) -> int:
    """The number of the first event that is wanted. Raises BadRequest."""
    if query.starting_after is not None:
        return query.starting_after + 1
    if (last := http.headers.get(LAST_EVENT)) is None:
        return 0
    if (number := event_number(last)) is None:
        raise BadRequest(f"{last[:40]!r} is the number of no event", LAST_EVENT)
    return number + 1


async def _nothing() -> None:
    """A reader that leaves ends nothing."""
