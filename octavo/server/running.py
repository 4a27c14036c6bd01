"""The engine's requests behind one call: begun together, heard together, ended together.

Knows the engine, but neither HTTP nor a protocol.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from time import monotonic
from typing import Protocol

from octavo.engine.chat_format import ChatFormat
from octavo.errors import OctavoError, StepFailed, UnknownModel
from octavo.server.calls import Tokenizer
from octavo.server.limits import Grant
from octavo.types import Event, Finished, Load, Request, SamplingParams

logger = logging.getLogger(__name__)


class Submitted(Protocol):
    """The events of one request."""

    @property
    def num_spent(self) -> int: ...  # tokens computed for it so far, heard of or not
    def __aiter__(self) -> AsyncIterator[Event]: ...
    async def aclose(self) -> None: ...


class Engine(Protocol):
    """What the server asks of an engine: octavo.AsyncEngine, or a small one in tests."""

    @property
    def is_alive(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...  # started, and not about to stop
    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def max_context(self) -> int: ...  # tokens of a prompt and its answer together
    @property
    def max_running(self) -> int: ...  # sequences of one step
    @property
    def max_requests(self) -> int: ...  # that run and wait; as many again in the background
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def chat_format(self) -> ChatFormat: ...

    @property
    def load(self) -> Load: ...
    @property
    def num_requests(self) -> int: ...  # taken and not finished

    # Compiles the grammar of `params`, which stays compiled as long as the object is referenced.
    async def prepare(self, params: SamplingParams, tenant: str) -> object: ...
    async def start(self) -> None: ...
    def close(self, reopens_in: float) -> None: ...  # takes no more, says when to ask again
    async def stop(self) -> None: ...
    def submit_all(self, requests: list[Request]) -> Sequence[Submitted]: ...  # all or none


def check_model(engine: Engine, name: str) -> None:
    """Raises UnknownModel."""
    if name != engine.name:
        raise UnknownModel(name, served=engine.name)


class Listener(Protocol):
    """Hears what the requests are told, as journal.Entry does."""

    def hear(self, index: int, event: Event) -> None: ...
    def close(self) -> None: ...


class Running:
    """Whoever begins must `close`, whatever happens between: it is what frees the sequences, and
    settles what was granted for them."""

    def __init__(self, streams: Sequence[Submitted], grant: Grant | None) -> None:
        self.listener: Listener | None = None
        self.has_failed = False  # one of the requests did not end as it was to
        self._grant = grant
        self._streams = streams
        self._pumps: list[asyncio.Task[None]] = []

    @classmethod
    def begin(cls, engine: Engine, requests: list[Request], grant: Grant | None) -> "Running":
        """All or none; then nothing was spent. Raises what `submit_all` raises."""
        try:
            return cls(engine.submit_all(requests), grant)
        except Exception:
            if grant:
                grant.settle(0, monotonic())
            raise

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """(request, event) as they come. Raises nothing but OctavoErrors."""
        try:
            async for numbered in self._merged():
                if self.listener:
                    self.listener.hear(*numbered)
                match numbered:
                    case _, Finished(reason="error" | "cancelled" | "timeout"):
                        self.has_failed = True
                yield numbered
        except OctavoError:
            self.has_failed = True
            raise
        except Exception as error:
            self.has_failed = True
            logger.exception("a request failed")
            raise StepFailed("the engine failed, the server's log has the cause") from error

    async def _merged(self) -> AsyncGenerator[tuple[int, Event], None]:
        if len(self._streams) == 1:  # nearly always: spare the queue
            async for event in self._streams[0]:
                yield 0, event
            return
        heard: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue()
        for index, stream in enumerate(self._streams):
            self._pumps.append(asyncio.create_task(_pump(index, stream, heard)))
        unfinished = len(self._streams)
        while unfinished:
            index, said = await heard.get()
            if isinstance(said, Exception):
                raise said
            unfinished -= isinstance(said, Finished)
            yield index, said

    async def close(self) -> None:
        listener, self.listener = self.listener, None
        if self._grant:
            self._grant.settle(sum(stream.num_spent for stream in self._streams), monotonic())
        try:
            if listener:
                listener.close()
        finally:
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            for stream in self._streams:
                await stream.aclose()


async def _pump(
    index: int,
    stream: Submitted,
    heard: asyncio.Queue[tuple[int, Event | Exception]],
) -> None:
    try:
        async for event in stream:
            heard.put_nowait((index, event))
    except Exception as error:
        heard.put_nowait((index, error))
