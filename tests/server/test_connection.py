"""Clients that keep a server waiting, as bytes on a socket."""

import asyncio
import json
import os
import resource
import socket
import time
from contextlib import ExitStack, closing, contextmanager, suppress

import httpx
import pytest
from checkpoints import write_tiny
from echoes import EchoEngine
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.engine import Engine
from octavo.server.connection import MAX_HEADERS, SPARE_FILES, Patience
from octavo.server.state import State
from octavo.types import Finished

CHAT = "/v1/chat/completions"
HASTY = Patience(arrival=0.3, reading=0.3)


@pytest.fixture(scope="module")
def hasty():
    """(engine, server, base URL) of a server with little patience and small buffers."""
    engine = EchoEngine()
    with serving(engine, patience=HASTY, send_buffer=4096) as (server, url):
        yield engine, server, url


@contextmanager
def connected(url, receive_buffer=None):
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect((host, int(port)))
        client.settimeout(20)
        yield client


def post(text, **fields):
    """(headers, body)"""
    asked = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
    raw = json.dumps(asked).encode()
    return (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(raw)}\r\n\r\n".encode(),
        raw,
    )


def rest(client):
    """All it is sent until it is cut off."""
    heard = b""
    with suppress(ConnectionError):
        while part := client.recv(1 << 16):
            heard += part
    return heard


def trickle(client, data, pause=0.03):
    """A byte at a time, until the other side has enough."""
    with suppress(ConnectionError):
        for k in range(len(data)):
            client.sendall(data[k : k + 1])
            time.sleep(pause)


# ---- what does not arrive


@pytest.mark.thorough
@pytest.mark.parametrize(
    "begin", [b"", b"P", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nx-a: "]
)
def test_headers_that_do_not_come_are_not_waited_for(hasty, begin):
    _, server, url = hasty
    with connected(url) as client:
        client.sendall(begin)
        heard = rest(client)
    assert heard.startswith(b"HTTP/1.1 408 ")
    assert "did not arrive in time" in json.loads(heard.split(b"\r\n\r\n")[1])["error"]["message"]
    wait_until(lambda: not server.server_state.connections)


@pytest.mark.thorough
def test_bytes_that_trickle_do_not_help(hasty):
    engine, server, url = hasty
    head, body = post("a" * 500)
    before = len(engine.requests)
    for first, slowly in ((b"", head), (head, body)):
        with connected(url) as client:
            client.sendall(first)
            trickle(client, slowly)
            heard = rest(client)
            assert not heard or heard.startswith(b"HTTP/1.1 408 ")
    wait_until(lambda: not server.server_state.connections)
    assert len(engine.requests) == before


@pytest.mark.thorough
def test_half_a_body_is_told_so(hasty):
    with connected(hasty[2]) as client:
        head, body = post("a")
        client.sendall(head + body[:10])
        assert rest(client).startswith(b"HTTP/1.1 408 ")


@pytest.mark.thorough
def test_a_large_body_may_take_its_time_if_it_comes():
    with (
        serving(EchoEngine(), patience=Patience(arrival=1.0)) as (_, url),
        connected(url) as client,
    ):
        head, body = post("a", user="u" * 400_000)
        client.sendall(head)
        for start in range(0, len(body), 50_000):  # longer than `arrival` in all
            time.sleep(0.15)
            client.sendall(body[start : start + 50_000])
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_headers_without_end_are_refused(hasty):
    with connected(hasty[2]) as client:
        with suppress(ConnectionError):
            client.sendall(b"GET / HTTP/1.1\r\nx: " + b"a" * (4 * MAX_HEADERS))
        heard = rest(client)
    assert heard == b"" or heard.startswith(b"HTTP/1.1 431 ")
    assert httpx.get(f"{hasty[2]}/health").status_code == 200


@pytest.mark.parametrize(("where", "refusal"), [("url", 400), ("header", 431)])  # 400: httptools'
def test_headers_that_are_too_large_are_refused_also_when_they_come_at_once(hasty, where, refusal):
    for size, status in ((MAX_HEADERS - 100, 200), (MAX_HEADERS, refusal)):
        url, fill = ("/health?" + "a" * size, "") if where == "url" else ("/health", "a" * size)
        with connected(hasty[2]) as client:
            client.sendall(f"GET {url} HTTP/1.1\r\nx: {fill}\r\nconnection: close\r\n\r\n".encode())
            assert rest(client).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
    ],
)
def test_what_is_no_http_is_told_so_as_all_else_is(hasty, sent):
    with connected(hasty[2]) as client:
        client.sendall(sent)
        head, body = rest(client).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_stream_says_once_whether_its_connection_stays_open(hasty):
    with connected(hasty[2]) as client:
        head, body = post("a", stream=True)
        client.sendall(head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + body)
        assert rest(client).lower().count(b"\r\nconnection: ") == 1


@pytest.mark.thorough
def test_a_client_that_asks_again_has_its_time_again(hasty):
    with httpx.Client(base_url=hasty[2]) as http:
        for _ in range(4):
            assert http.get("/health").status_code == 200
            time.sleep(0.12)


@pytest.mark.thorough
def test_blank_lines_keep_no_connection(hasty):
    with connected(hasty[2]) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        begin = time.monotonic()
        trickle(client, b"\r\n" * 200)
        assert time.monotonic() - begin < 10
        assert b" 200 " not in rest(client)


@pytest.mark.thorough
def test_half_a_request_more_does_not_end_the_answer_to_the_first():
    slow = EchoEngine(0.01)
    with serving(slow, patience=HASTY) as (_, url), connected(url) as client:
        client.sendall(b"".join(post("a" * 60, stream=True)) + b"GET /hea")
        heard = rest(client)
    assert b'"finish_reason":"stop"' in heard
    assert b"data: [DONE]" in heard


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_who_leaves_with_a_second_request_sent_takes_the_first_along(slow, fields):
    engine, url = slow
    with connected(url) as client:
        client.sendall(b"".join(post("a" * 4000, **fields)) * 3)
        wait_until(lambda: engine.running)
    wait_until(lambda: not engine.running)


# ---- what is not read


def long(**fields):
    return b"".join(post("a" * 8000, **fields))


def test_a_stream_nobody_reads_is_dropped_and_stalls_no_other(hasty):
    engine, server, url = hasty
    with connected(url, receive_buffer=4096) as client:
        client.sendall(long(stream=True))
        wait_until(lambda: engine.running)
        answer = httpx.post(url + CHAT, content=post("b")[1])
        assert answer.json()["choices"][0]["message"]["content"] == "b"
        wait_until(lambda: not engine.running)
        wait_until(lambda: not server.server_state.connections)
        assert b"[DONE]" not in rest(client)


@pytest.mark.thorough
def test_a_whole_answer_nobody_reads_keeps_no_connection(hasty):
    _, server, url = hasty
    with connected(url, receive_buffer=4096) as client:
        client.sendall(long(logprobs=True, top_logprobs=5))
        wait_until(lambda: server.server_state.connections)
        wait_until(lambda: not server.server_state.connections)


@pytest.mark.thorough
def test_who_reads_slowly_but_reads_gets_all(hasty):
    with connected(hasty[2], receive_buffer=1 << 16) as client:
        client.sendall(long(logprobs=True))
        heard, begin = b"", time.monotonic()
        while b'"seed":' not in heard[-200:]:
            time.sleep(0.02)
            part = client.recv(1 << 15)
            assert part
            heard += part
        assert time.monotonic() - begin > HASTY.reading  # else it shows nothing
    body = json.loads(heard.split(b"\r\n\r\n", 1)[1])
    assert len(body["choices"][0]["logprobs"]["content"]) == 8000


class Watched(Engine):
    """Keeps what its requests were told last."""

    def __init__(self, config):
        super().__init__(config)
        self.ends = []

    def step(self):
        told = super().step()
        self.ends += [event for _, event in told if isinstance(event, Finished)]
        return told


@pytest.mark.thorough
def test_pages_of_a_stream_nobody_reads_are_free(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf", context=8192)
    engine = Watched(Config(str(path), memory=64 << 20))
    options = {"patience": HASTY, "send_buffer": 4096}
    with serving(AsyncEngine(engine), **options) as (_, url), connected(url, 4096) as client:
        fields = {"stream": True, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
        client.sendall(b"".join(post("Go on", **fields)).replace(b'"echo"', b'"tiny"'))
        wait_until(lambda: engine.ends)
        assert not engine.num_running
        assert not any(group.held for group in engine.pages)
    assert [end.reason for end in engine.ends] == ["cancelled"]


# ---- how many


def test_a_crowd_is_told_to_come_back_and_a_larger_one_is_cut_off():
    patience = Patience(max_connections=3)
    with serving(EchoEngine(), patience=patience) as (server, url):
        there = server.server_state.connections
        with connected(url), connected(url), connected(url):
            wait_until(lambda: len(there) == 3)
            refused = httpx.get(f"{url}/health")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "all the connections" in refused.json()["error"]["message"]
            held = [connected(url) for _ in range(SPARE_FILES + 20)]
            for one in held:
                one.__enter__()
            wait_until(lambda: len(there) == 3 + SPARE_FILES)
            for one in held:
                one.__exit__(None, None, None)
        wait_until(lambda: not there)
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_crowd_that_loads_files_down_leaves_descriptors_for_others(tmp_path):
    """Of a download: its client's descriptor, which is in this process too, and the server's."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    crowd = 10
    with (
        closing(State(tmp_path / "state.db")) as state,
        serving(EchoEngine(), state=state, send_buffer=4096) as (server, url),
        ExitStack() as loading,
    ):
        form = {"purpose": "batch"}
        sent = httpx.post(f"{url}/v1/files", data=form, files={"file": bytes(8 << 20)}).json()
        path = f"/v1/files/{sent['id']}/content"
        wait_until(lambda: not server.server_state.connections)
        before = num_open()
        for _ in range(crowd):
            client = loading.enter_context(connected(url, receive_buffer=4096))
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        wait_until(lambda: num_open() >= before + 3 * crowd)
        each = (num_open() - before) / crowd - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, most))
        loading.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (allowed, most))
        assert 200 < Patience().room * each <= 1000 - 2 * SPARE_FILES


def num_open():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.thorough
def test_two_hundred_streams_at_once(echo):
    host, port = echo[1].removeprefix("http://").split(":")

    async def one(k):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"".join(post(f"stream {k}", stream=True)))
        heard = await asyncio.wait_for(reader.readuntil(b"data: [DONE]"), 60)
        writer.close()
        await writer.wait_closed()
        return heard

    async def all_of_them():
        return await asyncio.gather(*(one(k) for k in range(200)))

    said = asyncio.run(all_of_them())
    assert all(heard.count(b'"finish_reason":"stop"') == 1 for heard in said)
