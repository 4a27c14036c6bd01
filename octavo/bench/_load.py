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

import httpx
import msgspec

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
    """Every request alike, but for its words."""

    url: str
    model: str
    requests: int
    prompt_tokens: int
    new_tokens: int
    shared_prefix: int  # of the prompt's tokens, the same in all
    seed: int
    key: str | None = None
    explains: bool = False  # the server is ours, and is asked where the time went

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
    async with _client(load) as http:

        async def ask_on() -> list[Seen]:
            return [await _seen(http, load, number) for number in numbers]

        heard = await asyncio.gather(*(ask_on() for _ in range(concurrency)))
    return [seen for one in heard for seen in one]


async def open_(load: Load, rate: float, begin: int = 0) -> list[Seen]:
    """Requests that come whether others are answered or not: a Poisson process of `rate` a
    second."""
    chance = Random(load.seed)
    async with _client(load) as http, asyncio.TaskGroup() as group:
        asking = []
        for number in range(begin, begin + load.requests):
            asking.append(group.create_task(_seen(http, load, number)))
            await asyncio.sleep(chance.expovariate(rate))
    return [task.result() for task in asking]


@asynccontextmanager
async def flooded(load: Load, num_clients: int) -> AsyncIterator[list[str]]:
    """Meanwhile so many other clients ask again whenever they are answered. One that is refused
    asks no more; the list is of why."""
    errors: list[str] = []
    async with _client(load) as http:

        async def ask_on(client: int) -> None:
            for number in count(client, num_clients):
                if error := (await _ask(http, load.body(number))).error:
                    errors.append(error)
                    return

        asking = [asyncio.create_task(ask_on(client)) for client in range(num_clients)]
        try:
            yield errors
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


def _client(load: Load) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {load.key}"} if load.key else {}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=load.url, headers=headers, timeout=None, limits=limits)


async def _seen(http: httpx.AsyncClient, load: Load, number: int) -> Seen:
    seen = await _ask(http, load.body(number))
    if load.explains and seen.first is not None:
        told = (await http.get(f"/v1/requests/{seen.id}/explain")).json()
        seconds = told["choices"][0]["seconds"]
        seen.added = seen.first - seconds["queue"] - seconds["prefill"]
    return seen


async def _ask(http: httpx.AsyncClient, body: dict[str, object]) -> Seen:
    seen, begin = Seen(), perf_counter()
    try:
        async with http.stream("POST", "/v1/completions", json=body) as reply:
            if reply.status_code != 200:
                await reply.aread()
                seen.error = f"{reply.status_code}: {reply.text[:200]}"
            else:
                seen.id = reply.headers.get("x-request-id")
                await _listen(reply.aiter_lines(), seen, begin)
    except httpx.HTTPError as error:
        seen.error = f"{type(error).__name__}: {error}"
    seen.total = perf_counter() - begin
    return seen


async def _listen(lines: AsyncIterator[str], seen: Seen, begin: float) -> None:
    last = begin
    async for line in lines:
        if not line.startswith("data:"):
            continue
        now, data = perf_counter(), line[5:].strip()
        if data == "[DONE]":
            return
        chunk = msgspec.json.decode(data)
        if "error" in chunk:
            seen.error = str(chunk["error"])[:200]
            return
        if usage := chunk.get("usage"):
            seen.prompt_tokens = usage["prompt_tokens"]
            seen.new_tokens = usage["completion_tokens"]
        if any(choice.get("text") for choice in chunk.get("choices", ())):
            seen.hear(now - begin, now - last)
            last = now
    seen.error = "the stream ended without [DONE]"
