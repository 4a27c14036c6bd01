"""The process around the app: its socket, its signals and its end.

    signal ─▶ new requests are told to come back ─▶ at most drain_seconds for what runs ─▶
              the engine stops: what still runs is told so in its own envelope ─▶
              connections close ─▶ exit 0

A second signal spares the wait for what runs.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from octavo.errors import BadConfig
from octavo.server.app import create_app
from octavo.server.connection import Connection, Patience
from octavo.server.running import Engine

logger = logging.getLogger("uvicorn.error")  # the one that is shown

DRAIN_SECONDS = 5.0  # what runs at SIGTERM may go on for so long
CLOSING_SECONDS = 5.0  # for replies that are being sent when the engine has stopped
LAST_WORDS_SECONDS = 1.0  # for the error that ends a stream, after a second signal
TICK_SECONDS = 1.0  # between two dates of the replies
BACKLOG = 2048  # connections that wait to be taken
DRAINING = "Waiting %g s at most for what runs (requests: %d); a second Ctrl-C ends it at once"


class Server(uvicorn.Server):
    def __init__(
        self,
        engine: Engine,
        drain_seconds: float = DRAIN_SECONDS,
        patience: Patience | None = None,
        **options: Any,
    ) -> None:
        """`options` are those of create_app."""
        protocol: Any = partial(Connection, patience=patience or Patience())
        self.engine = engine
        self.drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                create_app(engine, **options),
                loop="uvloop",
                http=protocol,
                lifespan="on",
                server_header=False,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not uvicorn's, which raises a signal again at the end, and so never exits with 0, and
        gives the signals back before the process has ended: one that came then would kill it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self.handle_exit)
        try:
            yield
        finally:
            for one in (signal.SIGINT, signal.SIGTERM):
                signal.signal(one, _leave)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.end()

    def end(self) -> None:
        """As a first signal does; from any thread, at any time, more than once."""
        self.should_exit = True
        if self._loop:
            with suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._ending.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), TICK_SECONDS)
        self.engine.close(reopens_in=self.drain_seconds)
        if num_running := self.engine.num_requests:
            logger.info(DRAINING, self.drain_seconds, num_running)
        await self._wait(lambda: not self.engine.num_requests, self.drain_seconds)
        await self.engine.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Not uvicorn's, which sleeps for 0.1 s at a time, once where nothing is left to wait for,
        and leaves connections and the app to the end of the loop after a second signal."""
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        connections, answering = self.server_state.connections, self.server_state.tasks
        for connection in list(connections):
            connection.shutdown()
        await self._wait(lambda: not (connections or answering), CLOSING_SECONDS)
        if answering and not self.force_exit:
            logger.error("replies that took too long are cut off: %d", len(answering))
            for task in answering:
                task.cancel()
        if answering:
            await asyncio.wait(set(answering), timeout=LAST_WORDS_SECONDS)
        for connection in list(connections):
            connection.transport.abort()
        await self.lifespan.shutdown()

    async def _wait(self, is_over: Callable[[], bool], seconds: float) -> None:
        """Until it is, so many seconds have passed, or a second signal comes."""
        end = time.monotonic() + seconds
        while not (is_over() or self.force_exit) and time.monotonic() < end:
            await asyncio.sleep(0.01)


def _leave(sig: int, frame: FrameType | None) -> None:
    """A signal once all is answered: what may still take time, as the last traces' delivery does,
    is not waited for."""
    os._exit(0)


def raise_file_limit() -> None:
    """To what the system allows this process: most begin with 1,024 open files, too few for as many
    clients as Patience has room for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems name a limit that they do not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients may connect to from now on; port 0 takes a free one. Raises
    BadConfig."""
    if not 0 <= port < 2**16:
        raise BadConfig("port", f"{port} is not in [0, {2**16})")
    listener = None
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = places[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener:
            listener.close()
        problem = f"{host}:{port} cannot be opened ({error}), give another --host or --port"
        raise BadConfig("port", problem) from None
    return listener
