"""One HTTP exchange: a body within limits in, JSON out, every error in its protocol's envelope.

Knows no protocol and no engine.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import BadRequest, BodyTooLarge, CapacityError, OctavoError, StepFailed, TimedOut
from octavo.server.bodies import Body, Unknown, decode
from octavo.types import Json

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[HttpRequest], Awaitable[Response]]

MAX_BODY = 16 << 20  # bytes
MAX_NAMED = 20  # unknown fields that a reply's header spells out
MAX_LOGGED = 1000  # of them that the log names
GONE = 499  # nobody reads it


def guarded(
    handler: Handler, problem: Callable[[OctavoError], Json], *, needs_key: bool = True
) -> Handler:
    """`handler` for those who may ask, who are in `http.state.key`; what it raises, foreseen or
    not, is answered as `problem` words it."""

    async def answer(http: HttpRequest) -> Response:
        gate, key = http.app.state.gate, None
        try:
            http.state.key = key = gate.recognise(http) if needs_key else None
            response = await handler(http)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except OctavoError as error:
            response = _refusal(http, error, problem)
        except Exception:
            logger.exception("a request failed")
            failure = StepFailed("the server failed, its log has the cause")
            response = _refusal(http, failure, problem)
        response.headers.update(gate.headers(key))
        return response

    return answer


def _refusal(
    http: HttpRequest, error: OctavoError, problem: Callable[[OctavoError], Json]
) -> Response:
    http.app.state.journal.metrics.refused(error.status)
    return json_response(problem(error), error.status, _retry_headers(error))


def _retry_headers(error: OctavoError) -> dict[str, str]:
    if isinstance(error, TimedOut):
        return {"x-should-retry": "false"}  # it would take as long again
    seconds = error.retry_after if isinstance(error, CapacityError) else None
    if seconds is None:
        return {}
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1e3))}


async def body_of(http: HttpRequest) -> bytes:
    """Raises BodyTooLarge before more than MAX_BODY is held."""
    raw = bytearray()
    if int(http.headers.get("content-length", "0")) > MAX_BODY:  # uvicorn saw to it that it is one
        raise BodyTooLarge(MAX_BODY)
    async for part in http.stream():
        raw += part
        if len(raw) > MAX_BODY:
            raise BodyTooLarge(MAX_BODY)
    return bytes(raw)


def json_response(
    body: Json, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


class UnknownFields:
    """What happens to fields nobody knows: the reply names them and the log does once, or they are
    refused."""

    def __init__(self, *, are_refused: bool = False) -> None:
        self._are_refused = are_refused
        self._logged: set[str] = set()

    def headers(self, unknown: Unknown) -> dict[str, str]:
        """For the reply. Raises BadRequest where they are refused."""
        if not unknown:
            return {}
        if self._are_refused:
            name, close = next(iter(unknown.items()))
            hint = f"did you mean {close}?" if close else "leave it out"
            raise BadRequest(f"this server knows no such field, {hint}", name)
        for name in unknown.keys() - self._logged:
            if len(self._logged) < MAX_LOGGED:
                self._logged.add(name)
                logger.warning("ignored a field nobody here knows: %r", name[:100])
        # Names come from outside: whatever is not plain in a header is percent-encoded.
        shown = [quote(name[:100], safe="[]") for name in list(unknown)[:MAX_NAMED]]
        more = [f"and {len(unknown) - MAX_NAMED} more"] if len(unknown) > MAX_NAMED else []
        return {"x-octavo-ignored": ", ".join(shown + more)}


def owner(http: HttpRequest) -> str:
    """Whose things the caller may see; "": those of nobody in particular."""
    return http.state.key.id if http.state.key else ""


def read_query(http: HttpRequest, shape: type[Body]) -> tuple[Body, dict[str, str]]:
    """What stands after the path's question mark, likewise. Raises BadRequest."""
    raw = msgspec.json.encode(dict(http.query_params))
    query, unknown = decode(raw, shape, strict=False)
    return query, http.app.state.unknown_fields.headers(unknown)


async def read(http: HttpRequest, shape: type[Body]) -> tuple[Body, dict[str, str]]:
    """The body, and headers for the reply that name what in it nobody knows. Raises BadRequest,
    BodyTooLarge."""
    body, unknown = decode(await body_of(http), shape)
    return body, http.app.state.unknown_fields.headers(unknown)
