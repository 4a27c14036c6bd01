"""Where a body becomes running requests, whoever brings it: a connection, a batch, the background.

Owns the way from a call to requests, and that what a key was granted is settled. Knows no HTTP.

    Call ─prepare─▶ Reply ─begin─▶ Running ─answers─▶ Answers, whole
"""

import secrets
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol, cast
from uuid import uuid4

from sse_starlette import ServerSentEvent

from octavo.engine.chat_format import Prompt as Written
from octavo.errors import BadRequest, OctavoError, PromptTooLong
from octavo.registry import entry, names
from octavo.server.calls import Answer, Call, Events, Prompt, Reply, fold
from octavo.server.gate import ANSWER, Gate, priority
from octavo.server.journal import Journal
from octavo.server.keys import Key, tenant_of
from octavo.server.running import Engine, Running, check_model
from octavo.types import Chat, Event, Json, Request, SamplingParams, Tool

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

    def prepare(self, dialect: Dialect, call: Call) -> Reply:
        """Rendering and tokenizing prompts takes long where they are long: call it beside the
        event loop then. Raises BadRequest, UnknownModel."""
        check_model(self.engine, call.model)
        assert call.prompts, "a call that goes on from others is resolved first"
        self._check_choices(call)
        written = [self._written(prompt, call.params) for prompt in call.prompts]
        first = written[0]  # a chat is alone
        return Reply(
            call=call,
            id=dialect.PREFIX + uuid4().hex,
            created=int(time.time()),
            fingerprint=self.engine.fingerprint,
            prompt_ids=tuple(one.ids for one in written),
            tokenizer=self.engine.tokenizer,
            reading=first.reading,
            grammar=first.grammar,
        )

    async def begin(self, reply: Reply, key: Key | None, *, in_background: bool = False) -> Running:
        """Whoever is given it closes it. Raises RateLimited, QueueFull, CapacityError, BadRequest:
        then nothing runs. In the background it runs only while nothing else does."""
        tenant = tenant_of(key)
        kept = await self._compile(reply, tenant)
        requests = _requests(reply, key, in_background=in_background)
        try:
            grant = self.gate.admit(key, reply, in_background=in_background)
            running = Running.begin(self.engine, requests, grant)
        except BadRequest as error:
            raise _worded(reply.call, error) from None
        del kept  # the engine has it now
        try:
            running.listener = self.journal.open(reply, tenant, in_background=in_background)
        except BaseException:
            await running.close()
            raise
        return running

    def _check_choices(self, call: Call) -> None:
        """Those that never find room at once are refused, so that nobody waits for it."""
        wanted, limit = call.n * len(call.prompts), self.engine.max_requests
        if wanted > limit:
            problem = f"{wanted} answers are wanted, no more than {limit} run and wait here at once"
            raise BadRequest(
                f"{problem}: ask for fewer", "prompt" if len(call.prompts) > call.n else "n"
            )

    async def _compile(self, reply: Reply, tenant: str) -> object:
        """What the engine makes of grammars before it takes the call; to be kept until then. What
        the text must be comes first, by itself: so what is wrong with it is told of it, also where
        the answer will be calls and no text."""
        asked = reply.call.params
        held = asked.held_to(reply.grammar)
        each = (asked,) if held is asked else (asked, held)
        try:
            return [await self.engine.prepare(params, tenant) for params in each]
        except BadRequest as error:
            raise await self._blamed(reply.call, error, tenant) from None

    async def _blamed(self, call: Call, error: BadRequest, tenant: str) -> BadRequest:
        """In the caller's words, and of one tool where its schema is at fault by itself."""
        for tool in _tools(call) if error.field == "tools" else ():
            try:
                await self.engine.prepare(SamplingParams(schema=tool.parameters), tenant)
            except BadRequest as its_own:
                return BadRequest(its_own.problem, tool.field)
        return _worded(call, error)

    def _written(self, prompt: Prompt, params: SamplingParams) -> Written:
        field, answer = "prompt", params.constraint
        match prompt:
            case Chat():
                field, chat = prompt.field, self._shortened(prompt, params)
                written = self.engine.chat_format.prompt(chat, answer)
            case str():
                written = Written(tuple(self.engine.tokenizer.prompt_ids(prompt)), None, answer)
            case _:
                written = Written(prompt, None, answer)
        num_tokens = len(written.ids)
        if num_tokens >= self.engine.max_context:
            num_of_tools = num_tokens - self._num_without_tools(prompt, num_tokens)
            raise PromptTooLong(num_tokens, self.engine.max_context, field, num_of_tools)
        return written

    def _num_without_tools(self, prompt: Prompt, num_tokens: int) -> int:
        if not isinstance(prompt, Chat) or prompt.tools is None:
            return num_tokens
        return len(self.engine.chat_format.ids(replace(prompt, tools=None)))

    def _shortened(self, chat: Chat, params: SamplingParams) -> Chat:
        """All messages, or where that may be the newest that fit, from one of the user's on. Those
        of the system at the beginning stay."""
        if not chat.may_shorten:
            return chat
        ids = self.engine.chat_format.ids
        context = self.engine.max_context
        room = context - min(params.max_tokens or ANSWER, context // 4)
        if len(ids(chat)) <= room:
            return chat
        roles = [message.role for message in chat.messages]
        num_kept = next((k for k, role in enumerate(roles) if role != "system"), len(roles))
        starts = [k for k in range(num_kept + 1, len(roles)) if roles[k] == "user"]

        def since(start: int) -> Chat:
            return replace(chat, messages=chat.messages[:num_kept] + chat.messages[start:])

        # The later it starts, the shorter it is.
        first = bisect_left(starts, -room, key=lambda start: -len(ids(since(start))))
        return since(starts[first]) if first < len(starts) else chat


def _worded(call: Call, error: BadRequest) -> BadRequest:
    """With the name that the caller knows the parameter by."""
    return BadRequest(error.problem, error.field and call.names.get(error.field, error.field))


def _tools(call: Call) -> Iterator[Tool]:
    for prompt in call.prompts:
        if isinstance(prompt, Chat) and prompt.tools:
            yield from prompt.tools.all


async def answers(reply: Reply, running: Running) -> list[Answer]:
    """One for each choice. Raises StepFailed, CapacityError; closes nothing."""
    return [fold(events) for events in await heard(reply, running)]


async def heard(reply: Reply, running: Running) -> list[list[Event]]:
    """All that is said, of each choice by itself. Raises StepFailed; closes nothing."""
    each: list[list[Event]] = [[] for _ in range(reply.num_choices)]
    async with aclosing(running.events()) as events:
        async for index, event in events:
            each[index].append(event)
    return each


def _requests(reply: Reply, key: Key | None, *, in_background: bool) -> list[Request]:
    """Choice k of a prompt takes the prompt's seed + k, so that one seed tells all of them."""
    call, tenant = reply.call, tenant_of(key)
    held = call.params.held_to(reply.grammar)
    requests: list[Request] = []
    for ids in reply.prompt_ids:
        seed = secrets.randbits(32) if held.seed is None else held.seed
        for k in range(call.n):
            params = replace(held, seed=(seed + k) % 2**64)
            name = f"{reply.id}-{len(requests)}"
            requests.append(
                Request(
                    id=name,
                    prompt_ids=ids,
                    params=params,
                    priority=priority(key, call),
                    tenant=tenant,
                    cache_salt=call.cache_salt,
                    timeout=call.timeout,
                    reading=reply.reading,
                    is_background=in_background,
                )
            )
    return requests
