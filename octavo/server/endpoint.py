"""One protocol over HTTP: body in, one answer or a stream out.

Owns what a call holds while it runs, and that none of it stays behind when its client goes.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.server.bodies import INLINE_BODY
from octavo.server.desk import Dialect, answers
from octavo.server.exchange import body_of
from octavo.server.running import Running

Result = TypeVar("Result")


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
            return Stream(self.dialect.chunks(reply, running.events()), running, headers)
        try:
            whole = await unless_gone(http, answers(reply, running))
        finally:
            await running.close()
        body = self.dialect.whole(reply, whole)
        return Response(body, headers=headers, media_type="application/json")


class Stream(EventSourceResponse):
    """Closes what it streams also when nobody has read, or will read, a frame of it."""

    def __init__(
        self, frames: AsyncIterator[ServerSentEvent], running: Running, headers: dict[str, str]
    ) -> None:
        # When the server stops, the engine ends the stream, which then says so. Not sse-starlette.
        super().__init__(frames, headers=headers, sep="\n", shutdown_grace_period=math.inf)
        self.running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.running.close()


async def unless_gone(http: HttpRequest, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns, or ClientDisconnect as soon as the client has left."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
