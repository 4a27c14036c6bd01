"""The engine for servers: a thread of its own steps it, any event loop may ask and listen.

Owns the thread and who listens to which request. The thread sleeps while there is no work, and is
the only one that touches the Engine, its pure `check` aside.

    submit ──▶ inbox ──▶ engine thread: add, cancel, step ──▶ one call to each loop ──▶ Listener
"""

import asyncio
import atexit
import logging
from asyncio import AbstractEventLoop
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Condition, Thread
from typing import Any, NoReturn, Self

from octavo.config import Config, Plan
from octavo.engine.chat_format import ChatFormat
from octavo.engine.engine import Engine, Told
from octavo.engine.turns import Turns
from octavo.errors import BadRequest, CapacityError, OctavoError, QueueFull
from octavo.grammar.compiled import Compiled
from octavo.loader.tokenizer import Tokenizer
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.sequence import Sequence
from octavo.types import Event, Finished, Load, Request, SamplingParams, Usage

logger = logging.getLogger(__name__)


class AsyncEngine:
    """
    async with octavo.AsyncEngine(octavo.Config("smollm2")) as engine:
        async for event in engine.submit(request): ...
    """

    def __init__(self, engine: Engine | Config) -> None:
        """A Config is loaded by `start`. Whoever gives an Engine leaves it alone from then on."""
        self._config = engine if isinstance(engine, Config) else engine.config
        self._engine = None if isinstance(engine, Config) else engine
        self._thread: Thread | None = None
        self._compiling = Turns("octavo-grammars")
        self._inbox = SimpleQueue[Callable[[], None] | None]()  # None: end
        self._lock = Condition()  # of what follows
        self._mailboxes: dict[str, _Mailbox] = {}  # of the requests that have not finished
        self._num_held = Counter[bool]()  # those, by whether in the background
        self._is_open = False
        self._reopens_in: float | None = None
        self._forecast = Forecast()  # of the foreground

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise CapacityError("the engine has not started yet")
        return self._engine

    @property
    def is_alive(self) -> bool:
        """False once the engine has failed as a whole: only a restart helps."""
        return self._thread is None or self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Requests are taken: the model is loaded, and nobody has asked for the end."""
        return self._is_open

    @property
    def load(self) -> Load:
        return self.engine.load

    @property
    def num_requests(self) -> int:
        """Taken and not finished."""
        return len(self._mailboxes)

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def chat_format(self) -> ChatFormat:
        return self.engine.chat_format

    @property
    def max_context(self) -> int:
        return self.engine.max_context

    @property
    def max_running(self) -> int:
        """Sequences of one step."""
        return self._config.max_running

    @property
    def max_requests(self) -> int:
        """That run and wait; as many again in the background."""
        return self._config.max_requests

    @property
    def plan(self) -> Plan:
        return self.engine.plan

    @property
    def fingerprint(self) -> str:
        return self.engine.fingerprint

    async def start(self) -> None:
        """Loads the model if that is still to do. Raises NotFetched, BadCheckpoint, BadConfig."""
        if self._engine is None:
            self._engine = await asyncio.to_thread(Engine, self._config)
        await asyncio.to_thread(getattr, self._engine, "fingerprint")  # reads the whole file, once
        if self._thread is None:
            self._inbox = SimpleQueue()  # a thread that failed may have left words in the last
            self._thread = Thread(target=self._serve, name="octavo-engine", daemon=True)
            self._is_open, self._reopens_in = True, None
            self._thread.start()
            # A thread that is in native code while Python takes itself down would abort it.
            atexit.register(self._end, self._thread)

    def close(self, reopens_in: float | None = None) -> None:
        """Takes no more requests; those under way go on. Who asks is told to come back in so many
        seconds."""
        with self._lock:
            self._is_open, self._reopens_in = False, reopens_in

    async def stop(self, drain: float = 0.0) -> None:
        """Takes no more requests, gives those under way `drain` seconds, cancels the others."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(self._wait_for_all, drain)
            atexit.unregister(self._end)
            await asyncio.to_thread(self._end, thread)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def submit(self, request: Request) -> "Events":
        """Called within the event loop that will listen, once its grammar is prepared: else it is
        compiled now. Raises BadRequest, QueueFull, and CapacityError while the engine does not
        run."""
        (events,) = self.submit_all([request])
        return events

    def submit_all(self, requests: list[Request]) -> "list[Events]":
        """All or none of them; raises as `submit`."""
        loop = asyncio.get_running_loop()
        for request in requests:
            self.engine.check(request)
        compiled = [self.engine.compile(request.params) for request in requests]
        with self._lock:
            self._check_room(requests)
            for request, held_to in zip(requests, compiled, strict=True):
                self._mailboxes[request.id] = _Mailbox(request, loop)
                self._num_held[request.is_background] += 1
                self._inbox.put(partial(self._add, request, held_to))  # before what `stop` puts
            return [Events(self._mailboxes[request.id], self._leave) for request in requests]

    async def prepare(self, params: SamplingParams, tenant: str = "") -> Compiled | None:
        """Compiles what an answer is to be held to, beside the event loop and the engine, in turn
        with other tenants'; `submit` finds it as long as the caller keeps it. Raises
        BadRequest."""
        if params.constraint is None:
            return None
        if (known := self.engine.grammars.known(params.constraint)) is not None:
            return known  # and waits for nobody else's
        return await self._compiling.do(tenant, partial(self.engine.compile, params))

    def _check_room(self, requests: list[Request]) -> None:
        if not self._is_open:
            if self._reopens_in is None:
                raise CapacityError("the engine is not running: ask again when it is back")
            problem = "the server ends what runs and takes no more: ask again when it is back"
            raise CapacityError(problem, self._reopens_in)
        ids = Counter(request.id for request in requests)
        for id, times in ids.items():
            if times > 1 or id in self._mailboxes:
                raise BadRequest(f"{id!r} has not finished yet, choose another", "id")
        limit = self._config.max_requests
        for is_background, wanted in Counter(one.is_background for one in requests).items():
            held = self._num_held[is_background]
            if (excess := held + wanted - limit) > 0:
                seconds = excess * self._forecast.next_end(self.engine.num_running)
                raise QueueFull(held, wanted, limit, seconds)

    def _leave(self, id: str) -> None:
        self._inbox.put(lambda: self.engine.cancel(id))

    def _wait_for_all(self, seconds: float) -> None:
        self.close(self._reopens_in)
        with self._lock:
            self._lock.wait_for(lambda: not self._mailboxes, seconds)

    def _end(self, thread: Thread) -> None:
        self._inbox.put(None)
        thread.join()

    # What follows runs in the engine's thread.

    def _serve(self) -> None:
        try:
            while self._obey():
                self._deliver(self.engine.step())
            for id in list(self._mailboxes):
                self.engine.cancel(id)
            self._deliver(self.engine.step())
        except BaseException:  # also a panic of Rust
            logger.exception("the engine failed")
            self._give_up()

    def _obey(self) -> bool:
        """Does what the inbox asks, waiting for work; False: end."""
        while True:
            try:
                command = self._inbox.get(block=not self.engine.has_work)
            except Empty:
                return True
            if command is None:
                return False
            command()

    def _add(self, request: Request, compiled: Compiled | None) -> None:
        """`compiled` is here so that it need not be compiled again."""
        try:
            self._mailboxes[request.id].sequence = self.engine.add(request)
        except OctavoError as error:  # whatever is wrong with one, the others go on
            self._deliver([(request.id, _failure(request, str(error)))])

    def _deliver(self, told: Iterable[Told]) -> None:
        """One call into each loop, however many events."""
        letters: dict[AbstractEventLoop, list[tuple[_Mailbox, Event]]] = defaultdict(list)
        for id, event in told:
            mailbox = self._mailboxes[id]
            letters[mailbox.loop].append((mailbox, event))
            if isinstance(event, Finished):
                self._forget(id, event)
        for loop, some in letters.items():
            try:
                loop.call_soon_threadsafe(_put, some)
            except RuntimeError:  # the loop is closed: nobody listens any more
                for mailbox, _ in some:
                    self.engine.cancel(mailbox.request.id)

    def _forget(self, id: str, end: Finished) -> None:
        ran = end.timing.prefill + end.timing.decode
        with self._lock:
            is_background = self._mailboxes.pop(id).request.is_background
            self._num_held[is_background] -= 1
            if ran and not is_background:
                self._forecast.ended(ran)
            self._lock.notify_all()

    def _give_up(self) -> None:
        """A bug of ours must leave nobody waiting."""
        with self._lock:
            self._is_open = False
            left = [mailbox.request for mailbox in self._mailboxes.values()]
        problem = "the engine failed: restart it, its log has the cause"
        self._deliver([(request.id, _failure(request, problem)) for request in left])


@dataclass(slots=True, eq=False)
class _Mailbox:
    request: Request
    loop: AbstractEventLoop
    sequence: Sequence | None = None  # None: the engine has not heard of it, or refused it
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)


def _put(letters: Iterable[tuple[_Mailbox, Event]]) -> None:
    for mailbox, event in letters:
        mailbox.events.put_nowait(event)


def _failure(request: Request, problem: str) -> Finished:
    usage = Usage(len(request.prompt_ids), completion_tokens=0, cached_tokens=0)
    return Finished("error", usage, seed=request.params.seed or 0, error=problem)


class Events(AsyncGenerator[Event, None]):
    """A request's events; closed, cancelled or dropped before the last, the request is cancelled.
    Unlike a generator's own, this `aclose` works before the first event, too."""

    def __init__(self, mailbox: _Mailbox, leave: Callable[[str], None]) -> None:
        self._mailbox, self._leave = mailbox, leave
        self._is_over = False

    @property
    def num_spent(self) -> int:
        """Tokens of prompt and answer that were computed for it so far, heard of or not."""
        return self._mailbox.sequence.num_spent if self._mailbox.sequence else 0

    async def asend(self, value: None) -> Event:
        if self._is_over:
            raise StopAsyncIteration
        try:
            event = await self._mailbox.events.get()
        except asyncio.CancelledError:
            self._end()
            raise
        self._is_over = isinstance(event, Finished)
        return event

    async def athrow(self, *error: Any) -> NoReturn:
        self._end()
        raise error[0]

    async def aclose(self) -> None:
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._leave(self._mailbox.request.id)

    def __del__(self) -> None:
        self._end()
