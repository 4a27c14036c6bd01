"""One protocol over HTTP: body in, one answer or a stream out.

Owns what a call holds while it runs, and that none of it stays behind when its client goes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from sse_starlette import ServerSentEvent
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.server.calls import Reply, fold
from octavo.server.desk import Dialect, heard
from octavo.server.exchange import body_of
from octavo.server.stream import Stream, unless_gone
from octavo.types import Event

INLINE_PARTS = 1000  # of a reply, about 2 ms; more are framed beside the event loop


class Endpoint:
    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    async def answer(self, http: HttpRequest) -> Response:
        """Raises OctavoErrors until the first byte is sent; a stream tells of later ones itself."""
        responses, raw = http.app.state.responses, await body_of(http)
        reply = await responses.read(self.dialect, raw, http.state.key)
        named = http.app.state.unknown_fields.headers(reply.call.ignored)
        headers = {self.dialect.ID_HEADER: reply.id, **named}
        if reply.call.thread and reply.call.thread.is_kept:
            return await _kept(http, reply, headers)
        running = await unless_gone(http, http.app.state.desk.begin(reply, http.state.key))
        if reply.call.stream:
            return Told(self.dialect.chunks(reply, running.events()), running, headers)
        try:
            said = await unless_gone(http, heard(reply, running))
        finally:
            await running.close()
        body = await self._framed(reply, said)
        return Response(body, headers=headers, media_type="application/json")

    async def _framed(self, reply: Reply, said: Sequence[Sequence[Event]]) -> bytes:
        if _num_parts(reply, said) > INLINE_PARTS:
            return await asyncio.to_thread(self._whole, reply, said)
        return self._whole(reply, said)

    def _whole(self, reply: Reply, said: Sequence[Sequence[Event]]) -> bytes:
        return self.dialect.whole(reply, [fold(events) for events in said])


def _num_parts(reply: Reply, said: Sequence[Sequence[Event]]) -> int:
    """Of a reply: what its choices are told, and the logprobs that are spelled out."""
    params, prompts = reply.call.params, sum(map(len, reply.prompt_ids)) * reply.call.n
    told = sum(map(len, said))
    return told * (1 + _width(params.logprobs)) + prompts * _width(params.prompt_logprobs)


def _width(asked: int | None) -> int:
    """Logprobs a token."""
    return 0 if asked is None else 1 + asked


async def _kept(http: HttpRequest, reply: Reply, headers: dict[str, str]) -> Response:
    """Of what runs by itself, for whoever asks for it later too: this client is the first."""
    run = await unless_gone(http, http.app.state.responses.begin(reply, http.state.key))
    if reply.call.stream:
        return Told(run.log.follow(), run, headers)
    try:
        in_background = run.thread.is_background
        body = run.response if in_background else await unless_gone(http, run.whole())
    finally:
        await run.close()
    return Response(body, headers=headers, media_type="application/json")


class Source(Protocol):
    """What events come from."""

    @property
    def has_failed(self) -> bool: ...
    async def close(self) -> None: ...


class Told(Stream):
    """The events of an answer, each under its number, which is what Last-Event-ID names."""

    def __init__(
        self, frames: AsyncIterator[ServerSentEvent], running: Source, headers: dict[str, str]
    ) -> None:
        super().__init__(numbered(frames), running.close, headers)
        self._running = running

    @property
    def has_failed(self) -> bool:
        return self._running.has_failed


async def numbered(
    frames: AsyncIterator[ServerSentEvent], start: int = 0
) -> AsyncGenerator[bytes, None]:
    """Each with its number for an id, as it is sent."""
    number = start
    async for one in frames:
        yield b"id: %d\n" % number + one.encode()
        number += 1
