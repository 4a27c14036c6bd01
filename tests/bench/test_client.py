"""The benchmark's HTTP client against servers that say what they like, cut where they like."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench._client import Broken, Client
from octavo.bench._load import Load, closed

EVENTS = (
    b'data: {"choices": [{"text": "a"}]}\n\n: ping\ndata: {"choices": [{"text": "b"}]}\r\n\r\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n'
    b"data: [DONE]\n\n"
)
PLAIN = b"HTTP/1.1 200 OK\r\nx-request-id: r1\r\n\r\n" + EVENTS  # ends with the connection
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(EVENTS), EVENTS)


def chunked(*parts):
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def asked_of(*pieces):
    """(what came of one request of a server that says `pieces`, what it was sent)."""
    heard = []

    async def say(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        heard.append(head + await reader.readexactly(length))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def ask():
        server = await asyncio.start_server(say, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/base/"
            (seen,) = await closed(Load(url, "m", 1, 9, 5, 0, 0, key="k"), 1)
        return seen

    return asyncio.run(ask()), heard[0]


@given(st.lists(st.integers(0, len(EVENTS)), max_size=4), st.booleans())
def test_wherever_a_reply_is_cut_the_same_is_heard(cuts, is_chunked):
    places = [0, *sorted(cuts), len(EVENTS)]
    parts = [EVENTS[a:b] for a, b in pairwise(places)]
    whole = chunked(*parts) if is_chunked else PLAIN
    cut = len(whole) * (cuts[0] if cuts else 0) // len(EVENTS)
    seen, _ = asked_of(whole[:cut], whole[cut:])
    assert (seen.error, seen.prompt_tokens, seen.new_tokens) == (None, 7, 2)
    assert len(seen.gaps) == 1


def test_a_request_is_whole_and_a_reply_gives_its_id():
    seen, sent = asked_of(PLAIN)
    assert sent.startswith(b"POST /base/v1/completions HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nauthorization: Bearer k\r\n" in sent
    assert b'"max_tokens":5' in sent
    assert seen.id == "r1"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (SIZED[:-1], "left in the middle"),
        (chunked(EVENTS)[:-5], "left in the middle"),
        (b"", "left in the middle"),
        (b"SSH-2.0-OpenSSH\r\n", "cannot be read"),
        (PLAIN.replace(b"[DONE]", b""), "cannot be read"),
        (PLAIN.replace(b"data: [DONE]", b""), "without [DONE]"),
        (PLAIN.replace(b'"choices": []', b'"error": "full"'), "full"),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nfull", "503: full"),
    ],
)
def test_a_reply_that_is_none_is_said(said, error):
    seen, _ = asked_of(said)
    assert error in seen.error


def test_what_listens_to_nobody_is_broken():
    with pytest.raises(Broken, match="does not answer"):
        asyncio.run(Client.of("http://127.0.0.1:9", None).get("/"))
