"""Where a body becomes running requests, whoever brings it: a connection, a batch, the background.

Owns the way from a call to requests, and that what a key was granted is settled. Knows no HTTP.

    Call ─prepare─▶ Reply ─begin─▶ Running ─answers─▶ Answers, whole
"""

import secrets
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import Protocol
from uuid import uuid4

from sse_starlette import ServerSentEvent

from octavo.errors import OctavoError, PromptTooLong
from octavo.server.calls import Answer, Call, Chat, Events, Prompt, Reply, fold
from octavo.server.gate import ANSWER, Gate, priority
from octavo.server.journal import Journal
from octavo.server.keys import Key
from octavo.server.running import Engine, Running, check_model
from octavo.types import Event, Json, Request, SamplingParams


class Dialect(Protocol):
    """What a file in protocols/ offers."""

    PATH: str
    PREFIX: str  # of the ids of its replies
    ID_HEADER: str  # which names the id before the body does

    def parse(self, raw: bytes) -> Call: ...
    def chunks(self, reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]: ...
    def whole(self, reply: Reply, answers: Sequence[Answer]) -> bytes: ...
    def problem(self, error: OctavoError) -> Json: ...


class Desk:
    def __init__(self, engine: Engine, gate: Gate, journal: Journal) -> None:
        self.engine, self.gate, self.journal = engine, gate, journal

    def prepare(self, dialect: Dialect, call: Call) -> Reply:
        """Rendering and tokenizing prompts takes long where they are long: call it beside the
        event loop then. Raises BadRequest, UnknownModel."""
        check_model(self.engine, call.model)
        assert call.prompts, "a call that goes on from others is resolved first"
        return Reply(
            call=call,
            id=dialect.PREFIX + uuid4().hex,
            created=int(time.time()),
            fingerprint=self.engine.fingerprint,
            prompt_ids=tuple(self._ids(prompt, call.params) for prompt in call.prompts),
            tokenizer=self.engine.tokenizer,
        )

    async def begin(self, reply: Reply, key: Key | None) -> Running:
        """Whoever is given it closes it. Raises RateLimited, QueueFull, CapacityError, BadRequest:
        then nothing runs."""
        grant = self.gate.admit(key, reply)
        try:
            running = await Running.begin(self.engine, _requests(reply, key))
        except BaseException:
            if grant:
                grant.settle(0, monotonic())
            raise
        running.listener = self.journal.open(reply, grant)
        return running

    def _ids(self, prompt: Prompt, params: SamplingParams) -> tuple[int, ...]:
        match prompt:
            case Chat(field=field):
                ids = self._chat_ids(prompt, params)
            case str():
                field, ids = "prompt", self.engine.tokenizer.prompt_ids(prompt)
            case _:
                field, ids = "prompt", prompt
        if len(ids) >= self.engine.max_context:
            raise PromptTooLong(len(ids), self.engine.max_context, field)
        return tuple(ids)

    def _chat_ids(self, chat: Chat, params: SamplingParams) -> Sequence[int]:
        """Of all messages, or where that may be of the newest that fit, from one of the user's on.
        Those of the system at the beginning stay."""
        ids = self.engine.tokenizer.chat_ids(chat.messages)
        context = self.engine.max_context
        room = context - min(params.max_tokens or ANSWER, context // 4)
        if not chat.may_shorten or len(ids) <= room:
            return ids
        roles = [message.role for message in chat.messages]
        num_kept = next((k for k, role in enumerate(roles) if role != "system"), len(roles))
        starts = [k for k in range(num_kept + 1, len(roles)) if roles[k] == "user"]

        def since(start: int) -> Sequence[int]:
            said = chat.messages[:num_kept] + chat.messages[start:]
            return self.engine.tokenizer.chat_ids(said)

        # The later it starts, the shorter it is.
        first = bisect_left(starts, -room, key=lambda start: -len(since(start)))
        return since(starts[first]) if first < len(starts) else ids


async def answers(reply: Reply, running: Running) -> list[Answer]:
    """One for each choice. Raises StepFailed, CapacityError; closes nothing."""
    heard: list[list[Event]] = [[] for _ in range(reply.num_choices)]
    async with aclosing(running.events()) as events:
        async for index, event in events:
            heard[index].append(event)
    return [fold(events) for events in heard]


def _requests(reply: Reply, key: Key | None) -> list[Request]:
    """Choice k of a prompt takes the prompt's seed + k, so that one seed tells all of them."""
    call, tenant = reply.call, key.id if key else ""
    requests: list[Request] = []
    for ids in reply.prompt_ids:
        seed = secrets.randbits(32) if call.params.seed is None else call.params.seed
        for k in range(call.n):
            params = replace(call.params, seed=(seed + k) % 2**64)
            name = f"{reply.id}-{len(requests)}"
            requests.append(Request(name, ids, params, priority(key, call), tenant, call.timeout))
    return requests
