"""Replies asked for under an Idempotency-Key: made once, told as often as they are asked for.

Owns the runs of such requests, which go on without a client for LINGER_SECONDS, and what is kept of
those that ended well. Knows no protocol: what it keeps are bytes.

    POST, key ─┬─ new ────────▶ a run of its own ─▶ Log of body pieces ─▶ whoever asked
               ├─ runs ───────▶ the same log, from the piece after Last-Event-ID
               ├─ finished ───▶ what was kept of it
               ├─ elsewhere ──▶ 409: another process that shares the state runs it
               └─ other body ─▶ 409

A piece is one event of a stream. What was refused or failed is not kept: to ask again is to try
again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from sqlite3 import Row
from typing import TypeAlias

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Message

from octavo.errors import BadRequest, Conflict, RunsElsewhere, Stopping
from octavo.server.claim import Exclusive
from octavo.server.keys import tenant_of
from octavo.server.log import Log
from octavo.server.spool import Spool
from octavo.server.state import State
from octavo.server.stream import Stream, unless_gone

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[HttpRequest], Awaitable[Response]]
Place: TypeAlias = tuple[str, str, str]  # tenant, path, Idempotency-Key

LINGER_SECONDS = 30.0  # a run whose clients have all left waits for one to come back
KEPT_SECONDS = 24 * 3600
MAX_KEPT = 10_000  # replies of one tenant; the oldest go first
MAX_KEPT_BYTES = 256 << 20  # likewise
MAX_KEY = 255  # characters, as Stripe has it
MAX_DIGITS = 15  # of an event's number
STREAM = "text/event-stream"
HEADER, LAST_EVENT = "Idempotency-Key", "Last-Event-ID"


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before a body."""

    status: int
    headers: dict[str, str]
    is_kept: bool = False  # from an earlier run


class Run:
    """One request, carried out for whoever attaches to it."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self.pieces = Log[bytes]()
        self._num_attached = 0
        self._lingering: asyncio.TimerHandle | None = None
        self._is_abandoned = asyncio.Event()
        self._is_whole = False  # the last piece has been said
        self._body: Spool | None = None

    async def carry_out(self, http: HttpRequest, body: Spool, handler: Handler) -> bool:
        """True: it ended well."""
        self._body = body
        request = HttpRequest(dict(http.scope), self._receive)
        response = await handler(request)
        await response(request.scope, self._receive, self._send)
        ok = self._is_whole and self.head.result().status < 300
        return ok and not getattr(response, "has_failed", False)

    def repeat(self, kept: Row) -> None:
        """Raises Conflict."""
        if kept["digest"] != self.digest:
            raise _conflict()
        for piece in msgspec.msgpack.decode(kept["pieces"], type=list[bytes]):
            self.pieces.write(piece)
        headers = msgspec.msgpack.decode(kept["headers"], type=dict[str, str])
        self.head.set_result(Head(kept["status"], headers, is_kept=True))

    def fail(self, error: BaseException) -> None:
        """For those who wait for the head; a body that has begun just ends."""
        if not self.head.done():
            self.head.set_exception(error)
            self.head.exception()  # heard, also where all have left

    @property
    def is_abandoned(self) -> bool:
        """It is about to end, as if its client had left: nobody can attach to it any more."""
        return self._is_abandoned.is_set()

    def attach(self) -> None:
        self._num_attached += 1
        if self._lingering:
            self._lingering.cancel()

    async def detach(self) -> None:
        self._num_attached -= 1
        if not self._num_attached:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(LINGER_SECONDS, self._is_abandoned.set)

    async def _receive(self) -> Message:
        """The body, then that the client has left, once all of them have for long enough."""
        if self._body and (piece := await self._body.receive()):
            return piece
        await self._is_abandoned.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in message["headers"]}
            headers.pop("content-length", None)
            self.head.set_result(Head(message["status"], headers))
            return
        if (piece := message.get("body")) and not piece.startswith(b":"):  # not a ping
            self.pieces.write(piece)
        self._is_whole = not message.get("more_body", False)


class Replays:
    def __init__(self, state: State) -> None:
        self._state = state
        self._exclusive = Exclusive(state.folder / "replays.lock")
        self._runs: dict[Place, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        with state.change() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS replays (tenant TEXT, path TEXT, key TEXT, "
                "digest BLOB NOT NULL, created REAL NOT NULL, status INTEGER NOT NULL, "
                "size INTEGER NOT NULL, headers BLOB NOT NULL, pieces BLOB NOT NULL, "
                "PRIMARY KEY (tenant, path, key))"
            )
            connection.execute("CREATE INDEX IF NOT EXISTS replays_by_age ON replays (created)")

    async def answer(self, http: HttpRequest, max_body: int, handler: Handler) -> Response:
        """The reply to this body under this key, made now or earlier. Raises Conflict,
        RunsElsewhere, BadRequest, BodyTooLarge, ClientDisconnect, and what `handler` raises."""
        place = (tenant_of(http.state.key), http.url.path, _key(http))
        body = await Spool.of(http, max_body)
        run = self._runs.get(place)
        if is_first := run is None or run.is_abandoned:
            run = self._runs[place] = Run(body.digest)
            task = asyncio.create_task(self._carry_out(place, run, http, body, handler))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            body.close()
        if run.digest != body.digest:
            raise _conflict()
        return await _told(run, http, is_first=is_first)

    async def close(self) -> None:
        """Ends what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._exclusive.close()

    async def _carry_out(
        self, place: Place, run: Run, http: HttpRequest, body: Spool, handler: Handler
    ) -> None:
        try:
            if not self._exclusive.take(_name(place)):
                raise RunsElsewhere(HEADER)
            if kept := await asyncio.to_thread(self._kept, place):
                run.repeat(kept)
            elif LAST_EVENT in http.headers:
                problem = (
                    f"nothing is known under this {HEADER}: ask without it, from the beginning"
                )
                raise BadRequest(problem, LAST_EVENT)
            elif await run.carry_out(http, body, handler):
                await asyncio.to_thread(self._keep, place, run)
        except Exception as error:
            if run.head.done():  # nobody else is told
                logger.exception("a reply under an %s failed, or could not be kept", HEADER)
            run.fail(error)
        finally:
            run.fail(Stopping())
            run.pieces.end()
            body.close()
            if self._runs.get(place) is run:  # else another has begun since it was abandoned
                del self._runs[place]
                self._exclusive.give_back(_name(place))

    def _kept(self, place: Place) -> Row | None:
        sql = "SELECT * FROM replays WHERE tenant = ? AND path = ? AND key = ? AND created >= ?"
        rows = self._state.rows(sql, *place, time.time() - KEPT_SECONDS)
        return rows[0] if rows else None

    def _keep(self, place: Place, run: Run) -> None:
        tenant, _, _ = place
        head, now = run.head.result(), time.time()
        headers, pieces = map(msgspec.msgpack.encode, (head.headers, run.pieces.items))
        row = (*place, run.digest, now, head.status, len(headers) + len(pieces), headers, pieces)
        with self._state.change() as connection:
            connection.execute("INSERT OR REPLACE INTO replays VALUES (?,?,?,?,?,?,?,?,?)", row)
            connection.execute("DELETE FROM replays WHERE created < ?", [now - KEPT_SECONDS])
            connection.execute(
                "DELETE FROM replays WHERE rowid IN (SELECT id FROM (SELECT rowid AS id, "
                "ROW_NUMBER() OVER newest AS place, SUM(size) OVER newest AS bytes FROM replays "
                "WHERE tenant = ? WINDOW newest AS (ORDER BY created DESC, rowid DESC)) "
                "WHERE place > ? OR bytes > ?)",
                [tenant, MAX_KEPT, MAX_KEPT_BYTES],
            )


async def _told(run: Run, http: HttpRequest, *, is_first: bool) -> Response:
    run.attach()
    try:
        head = await unless_gone(http, _wait(run.head))
        headers = dict(head.headers)
        if head.is_kept or not is_first:
            headers["idempotent-replayed"] = "true"
        if headers["content-type"].startswith(STREAM):
            start = _start(http, len(run.pieces.items))
            response: Response = Stream(run.pieces.follow(start), run.detach, headers)
        else:
            _start(http, 0)
            body = b"".join(await unless_gone(http, _all(run.pieces)))
            response = Response(body, head.status, headers)
            await run.detach()
    except BaseException:
        await run.detach()
        raise
    return response


async def _wait(head: asyncio.Future[Head]) -> Head:
    return await asyncio.shield(head)


async def _all(pieces: Log[bytes]) -> list[bytes]:
    return [piece async for piece in pieces.follow()]


def _start(http: HttpRequest, num_events: int) -> int:
    """The event after the last one that the client has heard. Raises BadRequest."""
    last = http.headers.get(LAST_EVENT)
    if last is None:
        return 0
    number = event_number(last)
    if number is None or number >= num_events:
        known = f"the stream has events 0 to {num_events - 1} so far" if num_events else "no stream"
        raise BadRequest(f"{last[:40]!r} is none of its events: {known}", LAST_EVENT)
    return number + 1


def event_number(text: str) -> int | None:
    """None: no event has such a one."""
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    return int(text) if is_number else None


def _key(http: HttpRequest) -> str:
    key = http.headers[HEADER]
    if not 1 <= len(key) <= MAX_KEY:
        problem = f"{len(key)} characters are not in [1, {MAX_KEY}]: choose another"
        raise BadRequest(problem, HEADER)
    return key


def _name(place: Place) -> bytes:
    return msgspec.json.encode(place)


def _conflict() -> Conflict:
    problem = "another body came under it before: give every request a key of its own"
    return Conflict(f"{HEADER}: {problem}")
