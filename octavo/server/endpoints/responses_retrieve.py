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
        log = await responses.log(id, key)
        start = _start(query, http, len(log.items) if log.is_over else None)
        return Stream(numbered(log.follow(start), start), _nothing, headers)
    if query.starting_after is not None:
        raise BadRequest("it needs stream=true", "starting_after")
    body = await responses.response(id, key)
    return Response(body, headers=headers, media_type="application/json")


def _start(query: Query, http: HttpRequest, num_events: int | None) -> int:
    """The number of the first event that is wanted; `num_events`: None while there may be more.
    Raises BadRequest."""
    if (last := query.starting_after) is not None:
        field, said = "starting_after", str(last)
    elif (said := http.headers.get(LAST_EVENT, "")) or LAST_EVENT in http.headers:
        field, last = LAST_EVENT, event_number(said)
    else:
        return 0
    if last is None:
        raise BadRequest(
            f"{said[:40]!r} is the number of no event, give that of the last one heard", field
        )
    if num_events is not None and last >= num_events:
        raise BadRequest(f"{last} is none of its events: there are 0 to {num_events - 1}", field)
    return last + 1


async def _nothing() -> None:
    """A reader that leaves ends nothing."""
