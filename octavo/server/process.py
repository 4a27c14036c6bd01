"""The process around the app: its socket, its signals and its end.

    signal ─▶ new requests are told to come back ─▶ at most drain_seconds for what runs ─▶
              the engine stops: what still runs is told so in its own envelope ─▶
              connections close ─▶ exit 0

A second signal spares the wait for what runs.
"""

import asyncio
import logging
import resource
import socket
import time
from contextlib import suppress
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
CLOSING_SECONDS = 5  # for replies that are being sent when the engine has stopped
LAST_WORDS_SECONDS = 1.0  # for the error that ends a stream, after a second signal
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
        super().__init__(
            uvicorn.Config(
                create_app(engine, **options),
                loop="uvloop",
                http=protocol,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=CLOSING_SECONDS,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not uvicorn's, which raises the signal again at the end and so never exits with 0."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def main_loop(self) -> None:
        await super().main_loop()  # until a signal
        self.engine.close(reopens_in=self.drain_seconds)
        if num_running := self.engine.num_requests:
            logger.info(DRAINING, self.drain_seconds, num_running)
        end = time.monotonic() + self.drain_seconds
        while self.engine.num_requests and not self.force_exit and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await self.engine.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if answering := set(self.server_state.tasks):  # a second signal came
            await asyncio.wait(answering, timeout=LAST_WORDS_SECONDS)
        if self.force_exit:  # uvicorn would leave both to the end of the loop
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await self.lifespan.shutdown()


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
