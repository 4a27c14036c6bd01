"""Clients that leave a server of the tiny model, wherever they are.

from leavers import leave              (tests/ is on the path)

What each does is drawn from a `random.Random` of its own.
"""

import asyncio
import json
import struct
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages")
RESET = struct.pack("ii", 1, 0)  # closing says nothing more than that it is over


def request(chance, path=None, **fields):
    """Bytes of one that asks for a short answer, a long one, several, or more than fits."""
    path = path or chance.choice(PATHS)
    text = f"{chance.randrange(500)} " + "the same words " * chance.randrange(1, 120)
    given = (
        {"prompt": text} if path == PATHS[1] else {"messages": [{"role": "user", "content": text}]}
    )
    asked = {"model": "tiny", "max_tokens": chance.choice([1, 20, 1500])}
    asked |= given | {"stream": chance.random() < 0.6} | fields
    if path != PATHS[2]:
        asked |= {"ignore_eos": True, "n": chance.choice([1, 1, 1, 2])}
    raw = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(raw)}\r\n\r\n".encode()
    return head, raw


async def in_the_headers(chance, reader, writer, head, body):
    writer.write(head[: chance.randrange(len(head))])


async def in_the_body(chance, reader, writer, head, body):
    writer.write(head + body[: chance.randrange(len(body))])


async def before_it_reads(chance, reader, writer, head, body):
    """In the queue, in prefill, who knows."""
    writer.write(head + body)
    await asyncio.sleep(chance.choice([0, 0.002, 0.02]))


async def with_the_first_bytes(chance, reader, writer, head, body):
    writer.write(head + body)
    async with asyncio.timeout(0.3):
        await reader.read(200)


async def while_it_listens(chance, reader, writer, head, body):
    writer.write(head + body)
    async with asyncio.timeout(chance.uniform(0, 0.2)):
        while await reader.read(4096):
            pass


async def in_its_second_request(chance, reader, writer, head, body):
    writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b'"ok"}')
    writer.write(head + body[: chance.randrange(len(body) + 1)])
    await asyncio.sleep(chance.choice([0, 0.01]))


async def with_two_requests_sent(chance, reader, writer, head, body):
    writer.write(head + body + b"".join(request(chance)))
    await asyncio.sleep(chance.choice([0, 0.01]))


WAYS = [
    in_the_headers,
    in_the_body,
    before_it_reads,
    with_the_first_bytes,
    while_it_listens,
    in_its_second_request,
    with_two_requests_sent,
]


async def leave(place, chance):
    """One client, which connects, goes on to some point, and is gone."""
    reader, writer = await asyncio.open_connection(*place)
    with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        await chance.choice(WAYS)(chance, reader, writer, *request(chance))
    if chance.random() < 0.5:
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, RESET)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
