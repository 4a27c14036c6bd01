"""Responses that are kept: begun, found again, cancelled, removed, and taken up where others left.

Owns the runs that are not over; what is over is the archive's. Knows OpenAI's Responses but no
HTTP: a connection, a batch and a restart bring them alike.

    Call ─resolved─▶ Call with all that it goes on from ─desk─▶ Reply ─begin─▶ Run ─▶ archive

One that runs in the background belongs to no connection. Should the process end before it does,
another begins it anew, the next or one that shares the state: its seed is kept, so it says the same
again, under the same numbers.
"""

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

import msgspec
from sse_starlette import ServerSentEvent

from octavo.errors import BadRequest, CapacityError, OctavoError, StepFailed
from octavo.server.archive import Archive, Orphan, Record
from octavo.server.bodies import INLINE_BODY
from octavo.server.calls import FAILED, Call, Events, Reply, Thread
from octavo.server.desk import Desk, Dialect
from octavo.server.keys import Key, tenant_of
from octavo.server.log import Log
from octavo.server.protocols import openai_responses as wire
from octavo.server.protocols._openai_items import REFERENCE, chat, response_of
from octavo.server.protocols._openai_response import Said, failed, frame
from octavo.server.response_run import Run
from octavo.server.state import State
from octavo.types import Chat, Json

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0  # what is begun anew asks for room again after so long
LOOK_SECONDS = 5.0  # from one look for what other processes left to the next


class Responses:
    def __init__(self, desk: Desk, state: State) -> None:
        self._desk, self._archive = desk, Archive(state)
        self._runs: dict[str, Run] = {}  # those that are not over
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes up what ran in the background when another process ended, before now or later."""
        await self._take_up()
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Call it when the engine has stopped."""
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        tasks = [run.task for run in self._runs.values() if run.task]
        for run in self._runs.values():
            if run.task and not run.running:
                run.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._archive.release()

    async def read(self, dialect: Dialect, raw: bytes, key: Key | None) -> Reply:
        """The way of every body, in whatever dialect: what takes long is done beside the event
        loop. Raises BadRequest, UnknownModel."""
        is_large = len(raw) > INLINE_BODY
        call = await asyncio.to_thread(dialect.parse, raw) if is_large else dialect.parse(raw)
        resolved = await self.resolved(call, key)
        has_tools = any(isinstance(one, Chat) and one.tools for one in call.prompts)
        if is_large or has_tools or resolved is not call:
            return await asyncio.to_thread(self._desk.prepare, dialect, resolved)
        return self._desk.prepare(dialect, call)

    async def resolved(self, call: Call, key: Key | None) -> Call:
        """`call` with its prompt, once what it goes on from has been looked up; a call that goes on
        from nothing as it is. Raises BadRequest."""
        if call.prompts or call.thread is None:
            return call
        return await asyncio.to_thread(self._resolved, call, call.thread, tenant_of(key))

    async def begin(self, reply: Reply, key: Key | None, *, in_background: bool = False) -> Run:
        """Of a call that is to be kept; `in_background` as for the desk. Raises RateLimited,
        QueueFull, CapacityError, BadRequest, StepFailed: then nothing runs."""
        reply = reply.seeded(secrets.randbits(32))  # it may have to be begun anew
        running = await self._desk.begin(reply, key, in_background=in_background)
        run = Run(reply, tenant_of(key), running)
        self._carry_out(run, run.heard())
        try:
            async with aclosing(run.log.follow()) as events:
                if await anext(events, None) is None:  # else there is an object from now on
                    assert run.error
                    raise run.error
        except BaseException:
            await run.cancel()
            raise
        return run

    async def response(self, id: str, key: Key | None) -> bytes:
        """The object as it is now. Raises UnknownName, as all that follow do."""
        if run := self._run(id, tenant_of(key)):
            return run.response
        return await asyncio.to_thread(self._archive.response, id, tenant_of(key))

    async def items(self, id: str, key: Key | None) -> Sequence[Json]:
        """Its input, oldest first."""
        if run := self._run(id, tenant_of(key)):
            return run.items
        return await asyncio.to_thread(self._archive.items, id, tenant_of(key))

    async def log(self, id: str, key: Key | None) -> Log[ServerSentEvent]:
        """All its events, each at the place of its number, and those to come."""
        if run := self._run(id, tenant_of(key)):
            return run.log
        events = await asyncio.to_thread(self._archive.events, id, tenant_of(key))
        if not events:
            raise _elsewhere(id)
        return Log(map(frame, events), is_over=True)

    async def cancel(self, id: str, key: Key | None) -> bytes:
        """Ends one that runs in the background; the object at its end. Raises BadRequest."""
        run = self._run(id, tenant_of(key))
        response = msgspec.json.decode(await self.response(id, key))
        if not response["background"]:
            raise BadRequest("it does not run in the background: leave its connection", "id")
        if run:
            await run.cancel()
        elif response["status"] in ("queued", "in_progress"):
            raise _elsewhere(id)
        return await self.response(id, key)

    async def remove(self, id: str, key: Key | None) -> None:
        """What runs is cancelled first."""
        if run := self._run(id, tenant_of(key)):
            await run.cancel()
        await asyncio.to_thread(self._archive.remove, id, tenant_of(key))

    def _run(self, id: str, tenant: str) -> Run | None:
        run = self._runs.get(id)
        return run if run and run.tenant == tenant else None

    def _carry_out(self, run: Run, events: Events) -> None:
        self._runs[run.reply.id] = run
        run.task = asyncio.create_task(self._write(run, events))

    async def _write(self, run: Run, events: Events) -> None:
        """A stream that an `error` ends (the server stops) is not the end of its response: one in
        the background stays open in the archive, and the next process begins it anew; any other is
        not kept at all."""
        try:
            async for one in wire.chunks(run.reply, events):
                said = msgspec.json.decode(str(one.data), type=Said)
                if said.is_last:  # before anybody hears of it, it is there for whoever asks then
                    await self._close(run, one, bytes(said.response))
                begins = run.thread.is_background and not run.response
                if said.response:
                    run.response = bytes(said.response)
                if begins:
                    await asyncio.to_thread(self._archive.open, run.record)
                run.log.write(one)
        except Exception:
            logger.exception("a response failed")
            await self._fail(run, StepFailed(FAILED))
        finally:
            await run.free()
            self._runs.pop(run.reply.id, None)
            run.log.end()

    async def _fail(self, run: Run, error: OctavoError) -> None:
        """One that nobody foresaw: who waits is told, who comes back finds it failed."""
        run.error = error
        if not run.log.items:  # nobody knows of it
            return
        run.response, event = _last_words(run.response, len(run.log.items), error)
        if run.thread.is_background:
            await self._keep(self._archive.close, replace(run.record, events=[*run.events, event]))
        run.log.write(frame(event))

    async def _close(self, run: Run, last: ServerSentEvent, response: bytes) -> None:
        await run.free()
        events = [*run.events, str(last.data).encode()]
        write = self._archive.close if run.thread.is_background else self._archive.add
        await self._keep(write, replace(run.record, response=response, events=events))
        del self._runs[run.reply.id]

    async def _keep(self, write: Callable[[Record], None], record: Record) -> None:
        try:
            await asyncio.to_thread(write, record)
        except sqlite3.Error:
            logger.exception("a response could not be kept")

    async def _look(self) -> None:
        """Others that share the state may end at any time."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self._desk.engine.is_ready:  # it can begin what it takes up
                    await self._take_up()
            except Exception:
                logger.exception("what others left could not be looked for")

    async def _take_up(self) -> None:
        model = self._desk.engine.name
        for orphan in await asyncio.to_thread(self._archive.orphans, model):
            try:
                key = self._desk.gate.key(orphan.tenant)
                run = Run(await self._again(orphan, key), orphan.tenant)
            except OctavoError as error:
                await asyncio.to_thread(self._give_up, orphan, error)
            except Exception:  # the others are ours by now
                logger.exception("a response could not be begun anew")
                await asyncio.to_thread(self._give_up, orphan, StepFailed(FAILED))
            else:
                run.response = orphan.response  # until its first event
                self._carry_out(run, self._heard_late(run, key))

    async def _again(self, orphan: Orphan, key: Key | None) -> Reply:
        """As it was asked for. Raises OctavoErrors where it no longer can be."""
        before = msgspec.json.decode(orphan.response)
        call = await self.resolved(wire.parse(orphan.body), key)
        call = replace(call, params=replace(call.params, seed=before["seed"]))
        reply = await asyncio.to_thread(self._desk.prepare, wire, call)
        if reply.fingerprint != before["system_fingerprint"]:
            raise StepFailed("the server came back with another version or other weights: ask anew")
        return replace(reply, id=orphan.id, created=orphan.created)

    async def _heard_late(self, run: Run, key: Key | None) -> Events:
        """As `run.heard`, once there is room for it."""
        while not (run.running or run.is_cancelled):
            try:
                run.running = await self._desk.begin(run.reply, key)
            except CapacityError as error:
                await run.pause(error.retry_after or RETRY_SECONDS)
        if run.running:
            async for numbered in run.heard():
                yield numbered

    def _give_up(self, orphan: Orphan, error: OctavoError) -> None:
        said, event = _last_words(orphan.response, 0, error)
        head = orphan.id, orphan.tenant, orphan.created, self._desk.engine.name
        self._archive.close(Record(*head, None, (), said, [event]))

    def _resolved(self, call: Call, thread: Thread, tenant: str) -> Call:
        before: list[Json] = []
        if thread.previous is not None:
            if self._run(thread.previous, tenant):
                problem = f"{thread.previous} has not ended yet: wait for it"
                raise BadRequest(problem, "previous_response_id")
            before = self._archive.conversation(thread.previous, tenant)
        own = [self._whole(item, place, tenant) for place, item in enumerate(thread.items)]
        prompt = chat(thread.opening, before, own)
        return replace(call, prompts=(prompt,), thread=replace(thread, items=tuple(own)))

    def _whole(self, item: Json, place: int, tenant: str) -> Json:
        """The item that a reference means. Raises BadRequest."""
        if item["type"] != REFERENCE:
            return item
        with suppress(OctavoError):
            id = response_of(item["id"])
            output = msgspec.json.decode(self._archive.response(id, tenant))["output"]
            for known in (*self._archive.items(id, tenant), *output):
                if known["id"] == item["id"]:
                    return known
        problem = f"no item {item['id'][:100]!r} is kept here: send it whole"
        raise BadRequest(problem, f"input[{place}].id")


def _last_words(response: bytes, number: int, error: OctavoError) -> tuple[bytes, bytes]:
    """`response` as one that has failed, and the event that says so, under that number."""
    said = failed(msgspec.json.decode(response), error)
    event = {"type": "response.failed", "sequence_number": number, "response": said}
    return msgspec.json.encode(said), msgspec.json.encode(event)


def _elsewhere(id: str) -> BadRequest:
    problem = f"{id} runs in another process that shares this one's state: ask there"
    return BadRequest(problem, "id")
