"""One response that runs by itself, for any number of readers, until it is over or cancelled.

Owns its events so far and what the engine holds for it. Knows neither who carries it out nor where
it is kept.
"""

import asyncio
from contextlib import suppress

from sse_starlette import ServerSentEvent

from octavo.errors import OctavoError
from octavo.server.archive import Record
from octavo.server.calls import Events, Reply, Thread, completed
from octavo.server.log import Log
from octavo.server.protocols._openai_items import numbered
from octavo.server.running import Running
from octavo.types import Finished, Json


class Run:
    """From when it was asked for to its end. Whoever it was begun for closes it."""

    def __init__(self, reply: Reply, tenant: str, running: Running | None = None) -> None:
        assert reply.call.thread
        self.reply, self.tenant = reply, tenant
        self.thread: Thread = reply.call.thread
        self.running = running  # None: there was no room for it yet
        self.log = Log[ServerSentEvent]()  # an event's place is its number
        self.response = b""  # the object, as of the last event that carried it
        self.task: asyncio.Task[None] | None = None
        self.error: OctavoError | None = None
        self._is_cancelled = asyncio.Event()

    @property
    def has_failed(self) -> bool:
        return self.error is not None or self.is_cancelled

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled.is_set()

    @property
    def items(self) -> list[Json]:
        """Its input, oldest first."""
        return numbered(self.reply.id, self.thread.items)

    @property
    def record(self) -> Record:
        """As it is now, without its events."""
        reply, thread = self.reply, self.thread
        return Record(
            id=reply.id,
            tenant=self.tenant,
            created=reply.created,
            model=reply.call.model,
            previous=thread.previous,
            items=self.items,
            response=self.response,
            body=thread.body,
        )

    @property
    def events(self) -> list[bytes]:
        """So far, each at the place of its number."""
        return [str(one.data).encode() for one in self.log.items]

    async def whole(self) -> bytes:
        """The object at the end. Raises StepFailed, TimedOut, CapacityError."""
        async for _ in self.log.follow(len(self.log.items)):
            pass
        if self.error:
            raise self.error
        return self.response

    async def close(self) -> None:
        """Whoever it was begun for has left: it is cancelled, unless it runs in the background."""
        if not self.thread.is_background:
            await self.cancel()

    async def cancel(self) -> None:
        """Returns when it is over, which it may be already."""
        if self.log.is_over:
            return
        self._is_cancelled.set()
        await self.free()
        assert self.task
        await asyncio.wait([self.task])

    async def free(self) -> None:
        """Gives back what the engine holds for it. Nothing more is heard from the engine then."""
        if self.running:
            await self.running.close()

    async def pause(self, seconds: float) -> None:
        """Until somebody cancels, at most."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_cancelled.wait(), seconds)

    async def heard(self) -> Events:
        """What the engine says, until somebody cancels."""
        assert self.running
        try:
            async for index, event in self.running.events():
                if self.is_cancelled:
                    return
                if isinstance(event, Finished):
                    completed(event)
                yield index, event
        except OctavoError as error:
            self.error = error
            raise
