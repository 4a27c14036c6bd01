"""What a reply that takes its time has to do with its client: events as they come, or a wait.

Knows neither what is said nor who says it.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Message, Receive, Scope, Send

PING_SECONDS = 15  # between signs of life, for whatever is on the way and would give up
# A comment and no empty line after it: one ends an event, and to OpenAI's client an event under the
# last id is one also where nothing is in it.
PING = b": ping\n"

Result = TypeVar("Result")


class Stream(EventSourceResponse):
    """Server-sent events. Calls `close` at the end, also when nobody has read one or ever will."""

    def __init__(
        self,
        frames: AsyncGenerator[ServerSentEvent | bytes, None],
        close: Callable[[], Awaitable[None]],
        headers: dict[str, str],
    ) -> None:
        # When the server stops, the engine ends the stream, which then says so. Not sse-starlette.
        super().__init__(
            frames,
            headers=headers,
            sep="\n",
            ping=PING_SECONDS,
            ping_message_factory=_ping,
            shutdown_grace_period=math.inf,
        )
        del self.headers["connection"]  # sse-starlette's; whether it stays open is uvicorn's to say
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """sse-starlette's own opens a scope for a time limit, a tenth of what an event costs; who
        does not read is the connection's to judge."""
        await send(message)


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


def _ping() -> Any:
    """As sse-starlette sends it, which it asks for an event, but takes bytes."""
    return PING
