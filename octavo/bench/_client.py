"""HTTP/1.1 to one server, for as little CPU as can be: clients share the machine's cores with the
server they measure.

Owns one connection per request, so that none is sent over one that the server has just closed. A
piece of a body is handed on in the very call of the event loop that reads it, which takes a third
of the CPU time that general clients do. Knows no API.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ssl import create_default_context
from typing import Self, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from octavo.errors import BadConfig


class Broken(Exception):
    """There is no reply, or only part of one."""


@dataclass(slots=True)
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # by their names in lower case
    body: bytearray = field(default_factory=bytearray)  # without what `hear` was told


@dataclass(frozen=True, slots=True)
class Client:
    host: str
    port: int
    is_secure: bool
    path: str  # before that of every request
    key: str | None  # an API key

    @classmethod
    def of(cls, url: str, key: str | None) -> Self:
        """Raises BadConfig."""
        try:
            parts = urlsplit(url)
            given = parts.port
        except ValueError:
            parts, given = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadConfig(
                "url", f"{url!r} is no URL of a server: give one such as http://127.0.0.1:8000"
            )
        is_secure = parts.scheme == "https"
        port = given or (443 if is_secure else 80)
        return cls(parts.hostname, port, is_secure, parts.path.rstrip("/"), key)

    async def get(self, path: str) -> Reply:
        """Raises Broken."""
        return await self._ask(self._head("GET", path) + b"\r\n", None)

    async def post(self, path: str, body: object, hear: Callable[[bytes], None]) -> Reply:
        """The end of a reply whose body `hear` is told in pieces, if its status is 200. Raises
        Broken, also for what `hear` raises."""
        raw = msgspec.json.encode(body)
        head = f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
        return await self._ask(self._head("POST", path) + head.encode() + raw, hear)

    def _head(self, method: str, path: str) -> bytes:
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"host: {self.host}:{self.port}"]
        lines += ["connection: close", "accept: */*"]
        if self.key:
            lines.append(f"authorization: Bearer {self.key}")
        return "".join(f"{line}\r\n" for line in lines).encode()

    async def _ask(self, request: bytes, hear: Callable[[bytes], None] | None) -> Reply:
        loop = asyncio.get_running_loop()
        exchange = _Exchange(request, hear, loop.create_future())
        ssl = create_default_context() if self.is_secure else None
        try:
            transport, _ = await loop.create_connection(
                lambda: exchange, self.host, self.port, ssl=ssl
            )
        except OSError as error:
            raise Broken(f"{self.host}:{self.port} does not answer: {error}") from error
        try:
            return await exchange.end
        finally:
            transport.abort()


class _Exchange(asyncio.Protocol):
    def __init__(
        self,
        request: bytes,
        hear: Callable[[bytes], None] | None,
        end: asyncio.Future[Reply],
    ) -> None:
        self.end = end
        self._request, self._hear = request, hear
        self._reply = Reply()
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"the reply cannot be read: {error.__context__ or error}")

    def connection_lost(self, error: Exception | None) -> None:
        has_no_length = not {"content-length", "transfer-encoding"} & self._reply.headers.keys()
        if self._reply.status and has_no_length and error is None:
            self.on_message_complete()  # such a body goes on to the connection's end
        else:
            self._break(f"the server left in the middle of it{f': {error}' if error else ''}")

    def _break(self, problem: str) -> None:
        if not self.end.done():
            self.end.set_exception(Broken(problem))

    # ---- what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        if self._hear and self._reply.status == 200:
            self._hear(piece)
        else:
            self._reply.body += piece

    def on_message_complete(self) -> None:
        if not self.end.done():
            self.end.set_result(self._reply)
