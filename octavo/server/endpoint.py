"""One protocol over HTTP: body in, one answer or a stream out.

Owns what a call holds while it runs, and that none of it stays behind when its client goes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from sse_starlette import ServerSentEvent
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.desk import Dialect, answers
from octavo.server.exchange import body_of
from octavo.server.running import Running
from octavo.server.stream import Stream, unless_gone

INLINE_BODY = 16 << 10  # bytes; a larger one is read beside the event loop, not on it


class Endpoint:
    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    async def answer(self, http: HttpRequest) -> Response:
        """Raises OctavoErrors until the first byte is sent; what streams tells its own."""
        desk, raw = http.app.state.desk, await body_of(http)
        if len(raw) > INLINE_BODY:
            reply = await asyncio.to_thread(desk.read, self.dialect, raw)
        else:
            reply = desk.read(self.dialect, raw)
        named = http.app.state.unknown_fields.headers(reply.call.ignored)
        headers = {self.dialect.ID_HEADER: reply.id, **named}
        running = await desk.begin(reply, http.state.key)
        if reply.call.stream:
            return Told(self.dialect.chunks(reply, running.events()), running, headers)
        try:
            whole = await unless_gone(http, answers(reply, running))
        finally:
            await running.close()
        body = self.dialect.whole(reply, whole)
        return Response(body, headers=headers, media_type="application/json")


class Told(Stream):
    """The events of an answer, each under its number, which is what Last-Event-ID names."""

    def __init__(
        self, frames: AsyncIterator[ServerSentEvent], running: Running, headers: dict[str, str]
    ) -> None:
        super().__init__(_numbered(frames), running.close, headers)
        self._running = running

    @property
    def has_failed(self) -> bool:
        return self._running.has_failed


async def _numbered(
    frames: AsyncIterator[ServerSentEvent],
) -> AsyncGenerator[ServerSentEvent, None]:
    number = 0
    async for one in frames:
        yield ServerSentEvent(one.data, event=one.event, id=str(number), sep="\n")
        number += 1
