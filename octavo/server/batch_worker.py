"""Batches at work: lines become requests in the background, answers become results.

Owns the tasks, one a batch. A key's batches run one after the other, those of several keys beside
each other. Whatever is cut off, by a crash or by the end of the server, runs again. A line without
a seed is given one that depends on the batch and its number, so that it is answered alike.
"""

import asyncio
import fcntl
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from octavo.errors import BadRequest, CapacityError, OctavoError, StepFailed, Unauthorized
from octavo.server.batch_lines import Line, answered, check, input_lost
from octavo.server.batches import LIVE, Batch, Batches, Result
from octavo.server.calls import Answer, Reply
from octavo.server.desk import Desk, Dialect, answers, dialects
from octavo.server.exchange import UnknownFields
from octavo.server.files import Files
from octavo.server.keys import Key
from octavo.server.responses import Responses

logger = logging.getLogger(__name__)

GLANCE = 1.0  # seconds from one look at the batches to the next; other processes change them, too
AHEAD = 4  # lines beyond what runs in a step, so that none is missing while a result is stored
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds until a line that found no room asks again
AFTER_FAILURE = 30.0  # seconds until a batch that something went wrong with is taken up again
NUM_THREADS = 4  # of its own, for all batches: the other threads are for whoever asks now

T = TypeVar("T")


class BatchWorker:
    def __init__(
        self,
        batches: Batches,
        files: Files,
        desk: Desk,
        responses: Responses,
        unknown_fields: UnknownFields,
    ) -> None:
        self._batches, self._files = batches, files
        self._desk, self._responses = desk, responses
        self._unknown_fields = unknown_fields
        self._dialects = {dialect.PATH: dialect for dialect in dialects()}
        self._news = asyncio.Event()
        self._halts: dict[str, asyncio.Event] = {}  # of the batches that have a task
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(NUM_THREADS, "batches")
        # One at a time: what takes long leaves threads to others.
        self._validating, self._preparing = asyncio.Lock(), asyncio.Lock()
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
            while not _is_locked(lock.fileno()):
                await asyncio.sleep(GLANCE)
            try:
                await self._in_thread(self._clear_up)
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
            live = await self._in_thread(self._live)
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
                            await self._in_thread(self._validate, batch)
                    case "in_progress":
                        is_late = await self._run(batch, self._halts[batch.id])
                        await self._in_thread(self._batches.conclude, batch.id, is_late=is_late)
                    case _:
                        await self._in_thread(self._batches.finish, batch.id)
        except Exception:
            logger.exception("batch %s is taken up again later", batch.id)
            await asyncio.sleep(AFTER_FAILURE)
        finally:
            del self._halts[batch.id]

    async def _now(self, batch: Batch) -> Batch:
        return await self._in_thread(self._batches.find, batch.tenant, batch.id)

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
                line = await self._in_thread(next, left, None)
            if line is None:
                return
            result = await self._result(batch, line)
            await self._in_thread(self._batches.record, batch.id, result)

    async def _result(self, batch: Batch, line: Line) -> Result:
        dialect, request_id = self._dialects[batch.endpoint], f"req_{uuid4().hex}"
        try:
            reply, named = await self._read(dialect, batch, line)
            request_id = reply.id
            body, tokens = await self._answer(dialect, batch, reply)
        except OctavoError as error:
            problem = error
        except Exception:
            logger.exception("a line of batch %s failed", batch.id)
            problem = StepFailed("the server failed, its log has the cause")
        else:
            entry = answered(line, 200, request_id, body, **named)
            return Result(line.number, is_success=True, entry=entry, **tokens)
        raw = msgspec.json.encode(dialect.problem(problem))
        entry = answered(line, problem.status, request_id, raw)
        return Result(line.number, is_success=False, entry=entry)

    async def _read(
        self, dialect: Dialect, batch: Batch, line: Line
    ) -> tuple[Reply, dict[str, Any]]:
        """And what to name in the line of the output."""
        key = await self._key(batch)
        async with self._preparing:
            reply = await self._responses.read(dialect, line.body, key)
        thread = reply.call.thread
        for field, is_asked in (
            ("stream", reply.call.stream),
            ("background", thread is not None and thread.is_background),
        ):
            if is_asked:
                raise BadRequest("a line of a batch is answered as a whole, leave it out", field)
        headers = self._unknown_fields.headers(reply.call.ignored)
        return _seeded(reply, batch, line), {"headers": headers} if headers else {}

    async def _answer(
        self, dialect: Dialect, batch: Batch, reply: Reply
    ) -> tuple[bytes, dict[str, int]]:
        """The body, and the tokens it took. Waits for room as long as it takes."""
        pause = PAUSE
        while True:
            try:
                return await self._ask(dialect, batch, reply)
            except CapacityError as error:
                await asyncio.sleep(min(error.retry_after or pause, LONGEST_PAUSE))
                pause = min(2 * pause, LONGEST_PAUSE)
            except StepFailed:
                if self._desk.engine.is_alive:
                    raise
                await asyncio.sleep(LONGEST_PAUSE)  # a restart helps, and the line is asked again

    async def _key(self, batch: Batch) -> Key | None:
        """As it is now. Waits where it was revoked: the batch is halted soon."""
        while True:
            with suppress(Unauthorized):
                return await self._in_thread(self._desk.gate.key, batch.tenant)
            await asyncio.sleep(LONGEST_PAUSE)

    async def _ask(
        self, dialect: Dialect, batch: Batch, reply: Reply
    ) -> tuple[bytes, dict[str, int]]:
        key = await self._key(batch)
        if reply.call.thread and reply.call.thread.is_kept:
            run = await self._responses.begin(reply, key, in_background=True)
            try:
                body = await run.whole()
            finally:
                await run.close()
            return body, _tokens_told(body)
        running = await self._desk.begin(reply, key, in_background=True)
        try:
            said = await answers(reply, running)
        finally:
            await running.close()
        return await self._in_thread(dialect.whole, reply, said), _tokens(reply, said)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Beside the event loop; also who is cancelled waits for its end, so that nothing goes on
        behind the caller's back."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, partial(function, *arguments, **named))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise


def _seeded(reply: Reply, batch: Batch, line: Line) -> Reply:
    call = reply.call
    if call.params.seed is not None:
        return reply
    digest = sha256(f"{batch.id}:{line.number}".encode()).digest()
    params = replace(call.params, seed=int.from_bytes(digest[:4]))
    return replace(reply, call=replace(call, params=params))


def _tokens(reply: Reply, said: list[Answer]) -> dict[str, int]:
    """A prompt counts once, however many answer it."""
    ends = [answer.end.usage for answer in said]
    firsts = ends[:: reply.call.n]
    heard = [] if reply.call.silent else ends
    return {
        "input_tokens": sum(usage.prompt_tokens for usage in firsts),
        "cached_tokens": sum(usage.cached_tokens for usage in firsts),
        "output_tokens": sum(usage.completion_tokens for usage in heard),
        "reasoning_tokens": sum(usage.reasoning_tokens for usage in heard),
    }


def _tokens_told(body: bytes) -> dict[str, int]:
    """As a response tells them."""
    usage = msgspec.json.decode(body)["usage"]
    return {
        "input_tokens": usage["input_tokens"],
        "cached_tokens": usage["input_tokens_details"]["cached_tokens"],
        "output_tokens": usage["output_tokens"],
        "reasoning_tokens": usage["output_tokens_details"]["reasoning_tokens"],
    }


def _is_locked(descriptor: int) -> bool:
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
