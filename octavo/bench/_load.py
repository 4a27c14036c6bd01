"""Clients of a server: requests that come by a plan, and what each of them saw.

Knows HTTP and OpenAI's /v1/completions, so that any server which speaks it can be measured, and no
engine. A prompt is made of common English words, each of which is a token to nearly every model;
the server's own count is what is told.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import perf_counter

import msgspec

from octavo.bench._client import Broken, Client, Reply
from octavo.errors import BadConfig

_TEXT = (
    "the of and to in is was for on that with as by at from it an are this be or had not but one "
    "all they we can out so up said what its about than into them time two may then do first any "
    "like now my such over our man me even most made after did many before must through back years "
    "where much your way well down should because each just those people how too little good very "
    "make world still own see men work long here get both life being under never day same another "
    "know while last might us great old year off come since against go came right used take three"
)
WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Load:
    """Every request alike, but for its words. Raises BadConfig for a shared prefix that is longer
    than the prompt."""

    url: str
    model: str
    requests: int
    prompt_tokens: int
    new_tokens: int
    shared_prefix: int  # of the prompt's tokens, the same in all
    seed: int
    key: str | None = None
    explains: bool = False  # the server is ours, and is asked where the time went

    def __post_init__(self) -> None:
        if self.shared_prefix > self.prompt_tokens:
            problem = (
                f"{self.shared_prefix} is more than the {self.prompt_tokens} of --prompt-tokens: "
                "give less"
            )
            raise BadConfig("shared_prefix", problem)

    @property
    def client(self) -> Client:
        """Raises BadConfig."""
        return Client.of(self.url, self.key)

    def prompt(self, number: int) -> str:
        shared = Random(self.seed).choices(WORDS, k=self.shared_prefix)
        own = Random(f"{self.seed} {number}").choices(
            WORDS, k=self.prompt_tokens - self.shared_prefix
        )
        return " ".join(shared + own)

    def body(self, number: int) -> dict[str, object]:
        return {
            "model": self.model,
            "prompt": self.prompt(number),
            "max_tokens": self.new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@dataclass(slots=True)
class Seen:
    """One request, in seconds from its start; `error` where it did not end well."""

    id: str | None = None
    first: float | None = None
    gaps: list[float] = field(default_factory=list)  # between two pieces of text
    total: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    added: float | None = None  # of the time to the first text: neither queue nor prefill
    error: str | None = None

    def hear(self, since_begin: float, since_last: float) -> None:
        """A piece of text."""
        if self.first is None:
            self.first = since_begin
        else:
            self.gaps.append(since_last)


async def closed(load: Load, concurrency: int, begin: int = 0) -> list[Seen]:
    """So many clients, each of which asks again when it is answered; numbers from `begin` on."""
    numbers = iter(range(begin, begin + load.requests))
    client = load.client

    async def ask_on() -> list[Seen]:
        return [await _seen(client, load, number) for number in numbers]

    heard = await asyncio.gather(*(ask_on() for _ in range(concurrency)))
    return [seen for one in heard for seen in one]


async def open_(load: Load, rate: float, begin: int = 0) -> list[Seen]:
    """Requests that come whether others are answered or not: a Poisson process of `rate` a
    second."""
    client, chance = load.client, Random(load.seed)
    async with asyncio.TaskGroup() as group:
        asking = []
        for number in range(begin, begin + load.requests):
            asking.append(group.create_task(_seen(client, load, number)))
            await asyncio.sleep(chance.expovariate(rate))
    return [task.result() for task in asking]


@asynccontextmanager
async def flooded(load: Load, num_clients: int) -> AsyncIterator[list[str]]:
    """Meanwhile so many other clients ask again whenever they are answered. One that is refused
    asks no more; the list is of why."""
    errors: list[str] = []
    client = load.client

    async def ask_on(first: int) -> None:
        for number in count(first, num_clients):
            if error := (await _ask(client, load.body(number))).error:
                errors.append(error)
                return

    asking = [asyncio.create_task(ask_on(first)) for first in range(num_clients)]
    try:
        yield errors
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _seen(client: Client, load: Load, number: int) -> Seen:
    seen = await _ask(client, load.body(number))
    if load.explains and seen.first is not None:
        try:
            seen.added = seen.first - await _until_computed(client, seen.id)
        except Broken as error:
            seen.error = str(error)
    return seen


async def _until_computed(client: Client, id: str | None) -> float:
    """Seconds in the queue and in prefill. Raises Broken."""
    told = await client.get(f"/v1/requests/{id}/explain")
    if refusal := _refusal(told):
        raise Broken(refusal)
    seconds: dict[str, float] = msgspec.json.decode(told.body)["choices"][0]["seconds"]
    return seconds["queue"] + seconds["prefill"]


async def _ask(client: Client, body: dict[str, object]) -> Seen:
    """Its time begins before there is a connection."""
    listener = _Listener(perf_counter())
    seen = listener.seen
    try:
        reply = await client.post("/v1/completions", body, listener.hear)
    except Broken as error:
        seen.error = str(error)
    else:
        seen.id = reply.headers.get("x-request-id")
        missing = None if listener.is_done else "the stream ended without [DONE]"
        seen.error = _refusal(reply) or seen.error or missing
    seen.total = perf_counter() - listener.begin
    return seen


def _refusal(reply: Reply) -> str | None:
    if reply.status == 200:
        return None
    return f"{reply.status}: {reply.body[:200].decode(errors='replace')}"


class _Listener:
    """Reads a stream of server-sent events, in whatever pieces it comes."""

    def __init__(self, begin: float) -> None:
        self.seen, self.begin, self.is_done = Seen(), begin, False
        self._last, self._rest = begin, b""

    def hear(self, piece: bytes) -> None:
        now = perf_counter()
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line[5:].strip(), now)

    def _take(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self.is_done = True
            return
        chunk = msgspec.json.decode(data)
        if "error" in chunk:
            self.seen.error = str(chunk["error"])[:200]
        if usage := chunk.get("usage"):
            self.seen.prompt_tokens = usage["prompt_tokens"]
            self.seen.new_tokens = usage["completion_tokens"]
        if any(choice.get("text") for choice in chunk.get("choices", ())):
            self.seen.hear(now - self.begin, now - self._last)
            self._last = now
