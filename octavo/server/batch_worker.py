"""Batches at work: each is brought to its end, step by step, from what the store says.

Owns the tasks, one a batch. A key's batches run one after the other, those of several keys beside
each other. Whatever is cut off, by a crash or by the end of the server, runs again. Knows not how a
line is answered.
"""

import asyncio
import fcntl
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Any

from octavo.errors import BadRequest, Unauthorized
from octavo.server.batch_lines import Line, check, input_lost
from octavo.server.batches import LIVE, Batch, Batches
from octavo.server.desk import Desk
from octavo.server.exchange import UnknownFields
from octavo.server.files import Files
from octavo.server.line_runner import LineRunner
from octavo.server.responses import Responses
from octavo.server.threads import Threads

logger = logging.getLogger(__name__)

GLANCE = 1.0  # seconds from one look at the batches to the next; other processes change them, too
AHEAD = 4  # lines beyond those of a step: they run on while a result is stored
AFTER_FAILURE = 30.0  # seconds until a batch that something went wrong with is taken up again
NUM_THREADS = 4  # for all batches


class BatchWorker:
    def __init__(
        self,
        batches: Batches,
        files: Files,
        desk: Desk,
        responses: Responses,
        unknown_fields: UnknownFields,
    ) -> None:
        self._batches, self._files, self._desk = batches, files, desk
        self._threads = Threads(NUM_THREADS, "batches")
        self._runner = LineRunner(desk, responses, unknown_fields, self._threads)
        self._news = asyncio.Event()
        self._halts: dict[str, asyncio.Event] = {}  # of the batches that have a task
        self._tasks: set[asyncio.Task[None]] = set()
        self._validating = asyncio.Lock()  # one at a time: it takes long
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by tenant

    def wake(self) -> None:
        """There is a new batch, or one to cancel."""
        self._news.set()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """At its end what runs is cut off."""
        with self._threads:
            task = asyncio.create_task(self._work())
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _work(self) -> None:
        """One process at a time does, for each model: the file's lock goes with the process."""
        name = sha256(self._desk.engine.name.encode()).hexdigest()[:16]
        with (self._batches.folder / f"{name}.lock").open("w") as lock:
            while not _got_lock(lock.fileno()):
                await asyncio.sleep(GLANCE)
            try:
                await self._threads.run(self._clear_up)
                while True:
                    self._news.clear()
                    await self._look()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), GLANCE)
            finally:
                await _ended(self._tasks)

    def _clear_up(self) -> None:
        try:
            self._files.clear_up()
            self._batches.clear_up()
        except Exception:
            logger.exception("what a crash left could not be cleared up")

    async def _look(self) -> None:
        try:
            live = await self._threads.run(self._live)
        except Exception:
            logger.exception("batches could not be looked at")
            return
        for batch in live:
            if batch.id not in self._halts:
                self._halts[batch.id] = asyncio.Event()
                task = asyncio.create_task(self._bring_to_its_end(batch))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if batch.status == "cancelling":
                self._halts[batch.id].set()

    def _live(self) -> list[Batch]:
        """A batch whose key was revoked is cancelled."""
        self._files.forget_expired()
        model, gate = self._desk.engine.name, self._desk.gate
        for batch in self._batches.live(model):
            try:
                gate.key(batch.tenant)
            except Unauthorized:
                with suppress(BadRequest):  # it is nearly over
                    self._batches.cancel(batch.tenant, batch.id)
        return self._batches.live(model)

    async def _bring_to_its_end(self, batch: Batch) -> None:
        """One step after the other, each from what the store says."""
        try:
            while (batch := await self._now(batch)).status in LIVE:
                match batch.status:
                    case "validating":
                        async with self._validating:
                            await self._threads.run(self._validate, batch)
                    case "in_progress":
                        is_late = await self._run(batch, self._halts[batch.id])
                        await self._threads.run(self._batches.conclude, batch.id, is_late=is_late)
                    case _:
                        await self._threads.run(self._batches.finish, batch.id)
        except Exception:
            logger.exception("batch %s is taken up again later", batch.id)
            await asyncio.sleep(AFTER_FAILURE)
        finally:
            del self._halts[batch.id]

    async def _now(self, batch: Batch) -> Batch:
        return await self._threads.run(self._batches.find, batch.tenant, batch.id)

    def _validate(self, batch: Batch) -> None:
        try:
            num_lines, problems = check(self._batches.input(batch.id), batch.endpoint)
        except FileNotFoundError:
            problems = [input_lost("send it again")]
        if problems:
            self._batches.refuse(batch.id, problems)
        else:
            self._batches.accept(batch.id, num_lines)

    async def _run(self, batch: Batch, halt: asyncio.Event) -> bool:
        """Until all lines have their results, or it is cancelled, or too late: then True."""
        work = asyncio.create_task(self._run_lines(batch))
        halted = asyncio.create_task(halt.wait())
        try:
            left = max(0.0, batch.expires_at - time.time())
            await asyncio.wait({work, halted}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            return not work.done() and not halted.done()
        finally:
            await _ended({work, halted})

    async def _run_lines(self, batch: Batch) -> None:
        async with self._turns[batch.tenant]:
            left, reading = self._batches.lines_left(batch), asyncio.Lock()
            async with asyncio.TaskGroup() as group:
                for _ in range(self._desk.engine.max_running + AHEAD):
                    group.create_task(self._run_some(batch, left, reading))

    async def _run_some(self, batch: Batch, left: Iterator[Line], reading: asyncio.Lock) -> None:
        while True:
            async with reading:
                line = await self._threads.run(next, left, None)
            if line is None:
                return
            result = await self._runner.result(batch, line)
            await self._threads.run(self._batches.record, batch.id, result)


def _got_lock(descriptor: int) -> bool:
    """Unless another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancels them and waits."""
    some = list(tasks)
    for task in some:
        task.cancel()
    await asyncio.gather(*some, return_exceptions=True)
