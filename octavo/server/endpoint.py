"""One protocol over HTTP: body in, one answer or a stream out.

Owns what a call holds while it runs, and that none of it stays behind when its client goes.
"""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.engine.chat_format import Prompt as Written
from octavo.errors import BadRequest, OctavoError, PromptTooLong
from octavo.server.calls import Answer, Call, Events, Prompt, Reply, fold
from octavo.server.exchange import body_of
from octavo.server.gate import priority
from octavo.server.running import Engine, Running, check_model
from octavo.types import Chat, Event, Json, Request, SamplingParams

INLINE_BODY = 16 << 10  # bytes; a larger one is read beside the event loop, not on it

Result = TypeVar("Result")


class Dialect(Protocol):
    """What a file in protocols/ offers."""

    PATH: str
    PREFIX: str  # of the ids of its replies
    ID_HEADER: str  # which names the id before the body does

    def parse(self, raw: bytes) -> Call: ...
    def chunks(self, reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]: ...
    def whole(self, reply: Reply, answers: Sequence[Answer]) -> bytes: ...
    def problem(self, error: OctavoError) -> Json: ...


class Endpoint:
    def __init__(self, dialect: Dialect, engine: Engine) -> None:
        self.dialect = dialect
        self.engine = engine

    async def answer(self, http: HttpRequest) -> Response:
        """Raises OctavoErrors until the first byte is sent; what streams tells its own."""
        raw = await body_of(http)
        if len(raw) > INLINE_BODY:
            reply = await asyncio.to_thread(self._read, raw)
        else:
            reply = self._read(raw)
        kept = await self._prepare(reply.call)
        named = http.app.state.unknown_fields.headers(reply.call.ignored)
        headers = {self.dialect.ID_HEADER: reply.id, **named}
        key, state = http.state.key, http.app.state
        grant = state.gate.admit(key, reply)
        try:
            tenant = key.id if key else ""
            requests = _requests(reply, priority(key, reply.call), tenant)
            running = await Running.begin(self.engine, requests)
            del kept  # the engine has it now
        except OctavoError:
            if grant:
                grant.settle(0, monotonic())
            raise
        running.listener = state.journal.open(reply, grant)
        if reply.call.stream:
            return Stream(self.dialect.chunks(reply, running.events()), running, headers)
        try:
            answers = await _unless_gone(http, _answers(reply, running))
        finally:
            await running.close()
        body = self.dialect.whole(reply, answers)
        return Response(body, headers=headers, media_type="application/json")

    async def _prepare(self, call: Call) -> object:
        """What the engine makes of a grammar before it takes the call; to be kept until then."""
        try:
            return await self.engine.prepare(call.params)
        except BadRequest as error:
            field = error.field and call.names.get(error.field, error.field)
            raise BadRequest(error.problem, field) from None

    def _read(self, raw: bytes) -> Reply:
        """The long part of reading a body is rendering and tokenizing its prompts."""
        call = self.dialect.parse(raw)
        check_model(self.engine, call.model)
        prompts = [self._prompt(prompt, call.params) for prompt in call.prompts]
        first = prompts[0]  # a chat is alone
        return Reply(
            call=replace(call, params=call.params.held_to(first.grammar)),
            id=self.dialect.PREFIX + uuid4().hex,
            created=int(time.time()),
            fingerprint=self.engine.fingerprint,
            prompt_ids=tuple(prompt.ids for prompt in prompts),
            tokenizer=self.engine.tokenizer,
            reading=first.reading,
        )

    def _prompt(self, prompt: Prompt, params: SamplingParams) -> Written:
        field, answer = "prompt", params.constraint
        match prompt:
            case Chat():
                field, written = "messages", self.engine.chat_format.prompt(prompt, answer)
            case str():
                written = Written(tuple(self.engine.tokenizer.prompt_ids(prompt)), None, answer)
            case _:
                written = Written(prompt, None, answer)
        if len(written.ids) >= self.engine.max_context:
            raise PromptTooLong(len(written.ids), self.engine.max_context, field)
        return written


class Stream(EventSourceResponse):
    """Closes what it streams also when nobody has read, or will read, a frame of it."""

    def __init__(
        self, frames: AsyncIterator[ServerSentEvent], running: Running, headers: dict[str, str]
    ) -> None:
        # When the server stops, the engine ends the stream, which then says so. Not sse-starlette.
        super().__init__(frames, headers=headers, sep="\n", shutdown_grace_period=math.inf)
        self.running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.running.close()


def _requests(reply: Reply, priority: int, tenant: str) -> list[Request]:
    """Choice k of a prompt takes the prompt's seed + k, so that one seed tells all of them."""
    call = reply.call
    requests: list[Request] = []
    for ids in reply.prompt_ids:
        seed = secrets.randbits(32) if call.params.seed is None else call.params.seed
        for k in range(call.n):
            params = replace(call.params, seed=(seed + k) % 2**64)
            name = f"{reply.id}-{len(requests)}"
            requests.append(Request(name, ids, params, priority, tenant, reply.reading))
    return requests


async def _answers(reply: Reply, running: Running) -> list[Answer]:
    heard: list[list[Event]] = [[] for _ in range(reply.num_choices)]
    async with aclosing(running.events()) as events:
        async for index, event in events:
            heard[index].append(event)
    return [fold(events) for events in heard]


async def _unless_gone(http: HttpRequest, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns, or ClientDisconnect as soon as the client has left."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
