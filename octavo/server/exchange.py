"""One HTTP exchange: a body within limits in, JSON out, every error in its protocol's envelope.

Knows no protocol and no engine.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import (
    BadRequest,
    BodyTooLarge,
    CapacityError,
    Conflict,
    OctavoError,
    StepFailed,
    TimedOut,
)
from octavo.server import replays
from octavo.server.bodies import INLINE_BODY, TWICE, Body, Unknown, decode, holds_list
from octavo.server.calls import FAILED
from octavo.server.keys import tenant_of
from octavo.types import Json

logger = logging.getLogger(__name__)

MAX_BODY = 16 << 20  # bytes
MAX_NAMED = 20  # unknown fields that a reply's header spells out
MAX_LOGGED = 1000  # of them that the log names
GONE = 499  # nobody reads it


def guarded(
    handler: replays.Handler,
    problem: Callable[[OctavoError], Json],
    *,
    needs_key: bool = True,
    max_body: int = MAX_BODY,
) -> replays.Handler:
    """`handler`, for those who may ask: whose key it is stands in `http.state.key`. What it raises,
    foreseen or not, is answered in the words of `problem`.

    max_body  bytes of a body that comes under an Idempotency-Key, which is read before `handler`
              is called; any other body is `handler`'s to read, and to bound
    """

    async def answer(http: HttpRequest) -> Response:
        gate, key = http.app.state.gate, None
        try:
            http.state.key = key = gate.recognise(http) if needs_key else gate.known(http)
            response = await _once(http, max_body, handler)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except OctavoError as error:
            response = _refusal(http, error, problem)
        except Exception:
            logger.exception("a request failed")
            response = _refusal(http, StepFailed(FAILED), problem)
        response.headers.update(gate.headers(key))
        return response

    return answer


async def _once(http: HttpRequest, max_body: int, handler: replays.Handler) -> Response:
    """What is posted under an Idempotency-Key is done once."""
    encoding = ", ".join(http.headers.getlist("content-encoding")) or "identity"
    if encoding.lower() != "identity":
        problem = f"{encoding[:40]!r} is not served, send the body as it is"
        raise BadRequest(problem, "content-encoding")
    if http.method == "POST" and replays.HEADER in http.headers:
        kept: replays.Replays = http.app.state.replays
        return await kept.answer(http, max_body, handler)
    if http.method == "POST" and replays.LAST_EVENT in http.headers:
        problem = f"send the {replays.HEADER} too under which the stream began, or neither"
        raise BadRequest(problem, replays.LAST_EVENT)
    return await handler(http)


def _refusal(
    http: HttpRequest, error: OctavoError, problem: Callable[[OctavoError], Json]
) -> Response:
    http.app.state.journal.metrics.refused(error.status)
    return json_response(problem(error), error.status, _retry_headers(error))


def _retry_headers(error: OctavoError) -> dict[str, str]:
    if isinstance(error, TimedOut | Conflict):
        return {"x-should-retry": "false"}  # clients do otherwise, and it would end as this did
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
                logger.warning("ignored what nobody here knows or runs: %r", name[:100])
        # Names come from outside: whatever is not plain in a header is percent-encoded.
        shown = [quote(name[:100], safe="[]") for name in list(unknown)[:MAX_NAMED]]
        more = [f"and {len(unknown) - MAX_NAMED} more"] if len(unknown) > MAX_NAMED else []
        return {"x-octavo-ignored": ", ".join(shown + more)}


def tenant(http: HttpRequest) -> str:
    """Whose things the caller may see; "": those of nobody in particular."""
    return tenant_of(http.state.key)


def asked(http: HttpRequest, shape: type[Body]) -> tuple[Body, dict[str, str]]:
    """What stands behind the "?", and headers as `read` has them. A list is written "a=1&a=2", or
    "a[]=1&a[]=2" as OpenAI's clients do; nothing else may stand twice. Raises BadRequest."""
    given: dict[str, list[str]] = {}
    for name, value in http.query_params.multi_items():
        given.setdefault(name.removesuffix("[]"), []).append(value)
    lists = {field.name for field in msgspec.structs.fields(shape) if holds_list(field.type)}
    for name, all in given.items():
        if len(all) > 1 and name not in lists:
            raise BadRequest(TWICE, name[:100])
    plain = {name: all if name in lists else all[0] for name, all in given.items()}
    query, unknown = decode(msgspec.json.encode(plain), shape, strict=False)
    return query, http.app.state.unknown_fields.headers(unknown)


async def read(http: HttpRequest, shape: type[Body]) -> tuple[Body, dict[str, str]]:
    """The body, and headers for the reply that name what in it nobody knows. Raises BadRequest,
    BodyTooLarge."""
    raw = await body_of(http)
    if len(raw) > INLINE_BODY:
        body, unknown = await asyncio.to_thread(decode, raw, shape)
    else:
        body, unknown = decode(raw, shape)
    return body, http.app.state.unknown_fields.headers(unknown)
