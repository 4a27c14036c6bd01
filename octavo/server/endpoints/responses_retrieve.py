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
from octavo.server.running import Engine
from octavo.server.stream import Stream

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/v1/responses/{id}",)
NEEDS_KEY = True


class Query(Struct):
    stream: bool | None = None
    starting_after: Annotated[int, Meta(ge=0, lt=2**63)] | None = None  # an event's number
    include: list[Includable] | None = None  # logprobs are there where it was made with them
    include_obfuscation: bool | None = None


async def answer(engine: Engine, http: HttpRequest) -> Response:
    query, headers = asked(http, Query)
    responses, id, key = http.app.state.responses, http.path_params["id"], http.state.key
    if query.include_obfuscation:
        raise BadRequest("not served, leave it out or give false", "include_obfuscation")
    if query.stream:
        start = 0 if query.starting_after is None else query.starting_after + 1
        log = await responses.log(id, key)
        return Stream(numbered(log.follow(start), start), _nothing, headers)
    if query.starting_after is not None:
        raise BadRequest("it needs stream=true", "starting_after")
    body = await responses.response(id, key)
    return Response(body, headers=headers, media_type="application/json")


async def _nothing() -> None:
    """A reader that leaves ends nothing."""
