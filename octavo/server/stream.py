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
# A comment without the empty line that ends an event: after one, OpenAI's client would take the
# comment for an event of its own, with the last id and no data.
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
        # sse-starlette shall never cut a stream off when the server stops: the engine ends it, and
        # the stream's last event says so.
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
        """Without sse-starlette's time limit, which takes a tenth of what an event costs: a client
        that does not read is cut off by connection.py."""
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
    """Bytes: sse-starlette's types want an event, but it sends bytes as they are."""
    return PING
