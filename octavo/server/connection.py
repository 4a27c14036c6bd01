"""One client's connection: how long it may keep the server waiting, and how many there may be.

Owns the clocks of what a client owes, over uvicorn's HTTP/1.1. Knows no endpoint.

    connected ──▶ headers whole ──▶ body whole ──▶ answered ──▶ read by the client ──▶ (again)
        └─ arrival ──┘└ arrival, for each ┘           └ reading, for any ┘
                        MIN_ARRIVED of it               part of it

A client that is late is told so where that is still possible, and cut off. What its request held is
given back as for any client that leaves.
"""

import asyncio
import resource
from asyncio.events import TimerHandle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

MAX_HEADERS = 64 << 10  # bytes
TOO_LARGE = f"the headers are larger than {MAX_HEADERS} bytes: send less"
MIN_ARRIVED = 16 << 10  # bytes of a body
SPARE_FILES = 64  # file descriptors for refusing connections, and as many for all else
FILES_EACH = 2  # that a connection may have open: an upload's copy (spool.py) and what it becomes


@dataclass(frozen=True, slots=True)
class Patience:
    """With clients, in seconds; and how many at a time."""

    arrival: float = 20.0  # for headers, for a small body, for MIN_ARRIVED bytes of a large one
    reading: float = 30.0  # until some of what was sent is taken
    max_connections: int = 4096  # or what the limit of open files leaves, if that is less

    @property
    def room(self) -> int:
        """Connections that are served; those beyond it are told to come back."""
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed == resource.RLIM_INFINITY:
            return self.max_connections
        return max(1, min(self.max_connections, (allowed - 2 * SPARE_FILES) // (1 + FILES_EACH)))


class Connection(HttpToolsProtocol):
    def __init__(self, *args: Any, patience: Patience, **options: Any) -> None:
        super().__init__(*args, **options)
        self._patience, self._room = patience, patience.room
        self._owes: Literal["headers", "body"] | None = None
        self._arrived = 0  # bytes of what is owed, since its clock was set
        self._arrival = _Clock(self.loop, patience.arrival, self._judge_arrival)
        self._reading = _Clock(self.loop, patience.reading, self._judge_reading)
        self._unread = 0  # bytes, when that clock was set
        self._exchanges: list[RequestResponseCycle] = []  # not complete, as far as was looked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        if len(self.connections) > self._room + SPARE_FILES:
            self.transport.abort()
            return
        # Nothing is sent ahead of what the kernel takes: who does not read is seen at once.
        self.transport.set_write_buffer_limits(high=0)
        self._expect("headers")

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrival.stop()
        self._reading.stop()
        for exchange in self._unanswered():  # uvicorn tells the newest only
            exchange.disconnected = True
            exchange.message_event.set()
        super().connection_lost(exc)

    # ---- what the client sends

    def data_received(self, data: bytes) -> None:
        self._arrived += len(data)
        super().data_received(data)
        if self._owes is None and not self._is_answering:
            self._expect("headers")  # blank lines, which stopped uvicorn's clock of idle clients
        if self._owes == "headers" and self._arrived > MAX_HEADERS:
            self._refuse(431, TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._owes is None:
            self._expect("headers")

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.connections) > self._room:
            self.app = _CROWDED
        elif size > MAX_HEADERS:  # they came in one piece, whole
            self.app = _OVERLONG
        else:
            self.app = self.config.loaded_app
        super().on_headers_complete()
        self._exchanges = [*self._unanswered(), self.cycle]
        self._expect("body")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._owes = None
        self._arrival.stop()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _unanswered(self) -> list[RequestResponseCycle]:
        """More than one where a client asks again before it is answered."""
        return [exchange for exchange in self._exchanges if not exchange.response_complete]

    def _expect(self, what: Literal["headers", "body"]) -> None:
        self._owes, self._arrived = what, 0
        self._arrival.start()

    def _judge_arrival(self) -> None:
        assert self._owes
        is_ours = self._is_answering if self._owes == "headers" else self.flow.read_paused
        if is_ours or (self._owes == "body" and self._arrived >= MIN_ARRIVED):
            self._expect(self._owes)
        else:
            self._refuse(408, "the request did not arrive in time: send it faster")

    def send_400_response(self, msg: str) -> None:
        """Instead of uvicorn's, which is plain text."""
        self._refuse(400, "it is no request of HTTP/1.1: send one")

    def _refuse(self, status: int, problem: str) -> None:
        """The last words, unless others were begun."""
        was_answered = self._owes == "body" and not self._is_answering
        has_begun = self._is_answering and self.cycle.response_started
        if not (was_answered or has_begun or self.transport.is_closing()):
            body = _envelope(status, problem)
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d"
            self.transport.write(STATUS_LINE[status] + head % len(body) + b"\r\n\r\n" + body)
        self.transport.close()

    # ---- what it is sent

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._reading.stop()
        super().resume_writing()

    def _expect_reading(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reading.start()

    def _judge_reading(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread:
            self._expect_reading()
        else:
            self.transport.abort()  # `close` would wait until all is read


class _Clock:
    """Calls once, so many seconds after it was started last."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[], None]
    ) -> None:
        self._loop, self._seconds, self._call = loop, seconds, call
        self._handle: TimerHandle | None = None

    def start(self) -> None:
        self.stop()
        self._handle = self._loop.call_later(self._seconds, self._call)

    def stop(self) -> None:
        if self._handle:
            self._handle.cancel()
            self._handle = None


def _envelope(status: int, problem: str) -> bytes:
    """Which most clients can read."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    said = {"message": problem, "type": kind, "param": None, "code": None}
    return msgspec.json.encode({"error": said})


_CROWDED = Response(  # to whatever is asked
    _envelope(503, "the server has all the connections it can hold: try again later"),
    503,
    {"connection": "close", "retry-after": "1", "retry-after-ms": "1000"},
    media_type="application/json",
)
_OVERLONG = Response(
    _envelope(431, TOO_LARGE), 431, {"connection": "close"}, media_type="application/json"
)
