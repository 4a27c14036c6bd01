"""Where a body becomes running requests, whoever brings it: a connection, a batch, the background.

Owns the way from bytes to requests, and that what a key was granted is settled. Knows no HTTP.

    raw ─read─▶ Reply ─begin─▶ Running ─answers─▶ Answers, whole
"""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import Protocol, cast
from uuid import uuid4

from sse_starlette import ServerSentEvent

from octavo.errors import OctavoError, PromptTooLong
from octavo.registry import entry, names
from octavo.server.calls import Answer, Call, Chat, Events, Prompt, Reply, fold
from octavo.server.gate import Gate, priority
from octavo.server.journal import Journal
from octavo.server.keys import Key
from octavo.server.running import Engine, Running, check_model
from octavo.types import Event, Json, Request

PROTOCOLS = "octavo.server.protocols"  # what generates


class Dialect(Protocol):
    """What a file in protocols/ offers."""

    PATH: str
    PREFIX: str  # of the ids of its replies
    ID_HEADER: str  # which names the id before the body does

    def parse(self, raw: bytes) -> Call: ...
    def chunks(self, reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]: ...
    def whole(self, reply: Reply, answers: Sequence[Answer]) -> bytes: ...
    def problem(self, error: OctavoError) -> Json: ...


def dialects() -> list[Dialect]:
    return [cast(Dialect, entry(PROTOCOLS, name)) for name in names(PROTOCOLS)]


class Desk:
    def __init__(self, engine: Engine, gate: Gate, journal: Journal) -> None:
        self.engine, self.gate, self.journal = engine, gate, journal

    def read(self, dialect: Dialect, raw: bytes) -> Reply:
        """Rendering and tokenizing prompts takes long where they are long: call it beside the
        event loop then. Raises BadRequest, UnknownModel."""
        return self.prepare(dialect, dialect.parse(raw))

    def prepare(self, dialect: Dialect, call: Call) -> Reply:
        """Raises BadRequest, UnknownModel."""
        check_model(self.engine, call.model)
        return Reply(
            call=call,
            id=dialect.PREFIX + uuid4().hex,
            created=int(time.time()),
            fingerprint=self.engine.fingerprint,
            prompt_ids=tuple(self._ids(prompt) for prompt in call.prompts),
            tokenizer=self.engine.tokenizer,
        )

    async def begin(self, reply: Reply, key: Key | None, *, in_background: bool = False) -> Running:
        """Whoever is given it closes it. Raises RateLimited, QueueFull, CapacityError, BadRequest:
        then nothing runs. In the background it runs only while nothing else does."""
        grant = self.gate.admit(key, reply, in_background=in_background)
        try:
            requests = _requests(reply, key, in_background=in_background)
            running = await Running.begin(self.engine, requests)
        except BaseException:
            if grant:
                grant.settle(0, monotonic())
            raise
        running.listener = self.journal.open(reply, grant, in_background=in_background)
        return running

    def _ids(self, prompt: Prompt) -> tuple[int, ...]:
        match prompt:
            case Chat(messages):
                field, ids = "messages", self.engine.tokenizer.chat_ids(messages)
            case str():
                field, ids = "prompt", self.engine.tokenizer.prompt_ids(prompt)
            case _:
                field, ids = "prompt", prompt
        if len(ids) >= self.engine.max_context:
            raise PromptTooLong(len(ids), self.engine.max_context, field)
        return tuple(ids)


async def answers(reply: Reply, running: Running) -> list[Answer]:
    """One for each choice. Raises StepFailed, CapacityError; closes nothing."""
    heard: list[list[Event]] = [[] for _ in range(reply.num_choices)]
    async with aclosing(running.events()) as events:
        async for index, event in events:
            heard[index].append(event)
    return [fold(events) for events in heard]


def _requests(reply: Reply, key: Key | None, *, in_background: bool) -> list[Request]:
    """Choice k of a prompt takes the prompt's seed + k, so that one seed tells all of them."""
    call, tenant = reply.call, key.id if key else ""
    requests: list[Request] = []
    for ids in reply.prompt_ids:
        seed = secrets.randbits(32) if call.params.seed is None else call.params.seed
        for k in range(call.n):
            params = replace(call.params, seed=(seed + k) % 2**64)
            name = f"{reply.id}-{len(requests)}"
            order = priority(key, call)
            requests.append(Request(name, ids, params, order, tenant, call.timeout, in_background))
    return requests
