"""A line of a batch becomes its result: it is read, asked in the background, and answered.

Owns what a line holds while it runs. A line without a seed is given one that depends on the batch
and its number, so that it is answered alike whenever it is asked again. Knows no table.

    Line ─read─▶ Reply ─asked, as often as it finds no room─▶ body ─▶ Result
"""

import asyncio
import logging
from contextlib import suppress
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec

from octavo.errors import BadRequest, CapacityError, OctavoError, StepFailed, Unauthorized
from octavo.server.batch_lines import Line, answered
from octavo.server.batch_results import Result
from octavo.server.batches import Batch
from octavo.server.calls import FAILED, Answer, Reply
from octavo.server.desk import Desk, Dialect, answers, dialects
from octavo.server.exchange import UnknownFields
from octavo.server.keys import Key
from octavo.server.responses import Responses
from octavo.server.threads import Threads

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds until a line that found no room asks again


class LineRunner:
    def __init__(
        self, desk: Desk, responses: Responses, unknown_fields: UnknownFields, threads: Threads
    ) -> None:
        self._desk, self._responses = desk, responses
        self._unknown_fields, self._threads = unknown_fields, threads
        self._dialects = {dialect.PATH: dialect for dialect in dialects()}
        self._preparing = asyncio.Lock()  # one at a time: what takes long leaves threads to others
        self._end = asyncio.Event()  # a line has ended, which leaves room

    async def result(self, batch: Batch, line: Line) -> Result:
        """An error is one too. Waits for room as long as it takes."""
        dialect, request_id = self._dialects[batch.endpoint], f"req_{uuid4().hex}"
        try:
            reply, named = await self._read(dialect, batch, line)
            request_id = reply.id
            body, tokens = await self._answer(dialect, batch, reply)
        except OctavoError as error:
            problem = error
        except Exception:
            logger.exception("a line of batch %s failed", batch.id)
            problem = StepFailed(FAILED)
        else:
            entry = answered(line, 200, request_id, body, **named)
            return Result(line.number, is_success=True, entry=entry, **tokens)
        finally:
            self._end.set()
            self._end = asyncio.Event()
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
        headers = self._unknown_fields.headers({**line.ignored, **reply.call.ignored})
        return reply.seeded(_seed(batch, line)), {"headers": headers} if headers else {}

    async def _answer(
        self, dialect: Dialect, batch: Batch, reply: Reply
    ) -> tuple[bytes, dict[str, int]]:
        """The body, and the tokens it took."""
        pause = PAUSE
        while True:
            try:
                return await self._ask(dialect, batch, reply)
            except CapacityError as error:
                await self._wait(min(max(error.retry_after or pause, PAUSE), LONGEST_PAUSE))
                pause = min(2 * pause, LONGEST_PAUSE)
            except StepFailed:
                if self._desk.engine.is_alive:
                    raise
                await asyncio.sleep(LONGEST_PAUSE)  # a restart helps, and the line is asked again

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
        return await self._threads.run(dialect.whole, reply, said), _tokens(reply, said)

    async def _wait(self, seconds: float) -> None:
        """Until another line has ended, at most."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._end.wait(), seconds)

    async def _key(self, batch: Batch) -> Key | None:
        """As it is now. Waits where it was revoked: the batch is halted soon."""
        while True:
            with suppress(Unauthorized):
                return await self._threads.run(self._desk.gate.key, batch.tenant)
            await asyncio.sleep(LONGEST_PAUSE)


def _seed(batch: Batch, line: Line) -> int:
    return int.from_bytes(sha256(f"{batch.id}:{line.number}".encode()).digest()[:4])


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
