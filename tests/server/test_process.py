"""How the server begins and ends: its socket, its drain, its last words."""

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from echoes import EchoEngine
from serving import serving, wait_until

from octavo.errors import BadConfig
from octavo.server import process
from octavo.server.process import listen


def test_what_runs_may_finish_when_the_server_stops():
    with (
        serving(EchoEngine(0.002), drain_seconds=5) as (server, url),
        streaming(url, "a" * 50) as frames,
    ):
        server.end()
        said = [json.loads(frame[6:]) for frame in frames if frame.startswith("data: {")]
    assert "".join(f["choices"][0]["delta"].get("content", "") for f in said) == "a" * 50
    assert said[-1]["choices"][0]["finish_reason"] == "stop"


def test_while_it_drains_new_requests_are_told_when_to_come_back():
    engine = EchoEngine(0.01)
    with (
        serving(engine, drain_seconds=5) as (server, url),
        streaming(url, "a" * 100) as frames,
    ):
        server.end()
        wait_until(lambda: httpx.get(f"{url}/ready").status_code == 503)
        late = httpx.post(f"{url}/v1/chat/completions", json=asked("b"))
        assert (late.status_code, late.headers["retry-after"]) == (503, "2")
        assert late.headers["retry-after-ms"] == "1500"
        assert httpx.get(f"{url}/health").status_code == 200
        assert (
            '"finish_reason":"stop"' in [frame for frame in frames if frame.startswith("data")][-2]
        )


def test_what_takes_too_long_is_told_so_in_its_own_words():
    with (
        serving(engine := EchoEngine(0.01), drain_seconds=0.1) as (server, url),
        ThreadPoolExecutor(2) as pool,
        streaming(url, "a" * 4000) as frames,
    ):

        def ask(**headers):
            return httpx.post(f"{url}/v1/chat/completions", json=asked("a" * 4000), headers=headers)

        wholes = [pool.submit(ask), pool.submit(ask, **{"Idempotency-Key": "k"})]
        wait_until(lambda: engine.num_requests == 3)
        server.end()
        begin = time.monotonic()
        *_, error, done = [frame for frame in frames if frame.startswith("data")]
        for reply in (whole.result() for whole in wholes):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert reply.headers["retry-after-ms"] == "1000"
            assert "the server is stopping" in reply.json()["error"]["message"]
    assert "the server is stopping" in json.loads(error[6:])["error"]["message"]
    assert done == "data: [DONE]"
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("stream", [True, False])
def test_replies_that_nobody_reads_are_cut_off_in_the_end(monkeypatch, capfd, stream):
    """One that is still being told, and one that is told but lies here."""
    monkeypatch.setattr(process, "CLOSING_SECONDS", 0.1)
    raw = json.dumps(asked("a" * 8000) | {"stream": stream, "logprobs": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(raw)}"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with serving(engine := EchoEngine(), send_buffer=4096, drain_seconds=0) as (server, url):
            host, port = url.removeprefix("http://").split(":")
            client.connect((host, int(port)))
            client.sendall(f"{head}\r\n\r\n".encode() + raw)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            wait_until(lambda: all(c.flow.write_paused for c in server.server_state.connections))
            time.sleep(0.1)  # until the kernel takes no more either
        client.settimeout(5)
        heard = b""
        with suppress(ConnectionResetError):
            while part := client.recv(1 << 16):
                heard += part
    assert heard
    assert not heard.endswith((b"}", b"0\r\n\r\n"))
    assert not engine.running
    assert not server.server_state.connections
    assert ("are cut off: 1" in capfd.readouterr().err) == stream


@pytest.mark.processes
@pytest.mark.parametrize(
    ("signals", "drain", "said", "last"),
    [
        ([signal.SIGTERM], 5, 80, '"finish_reason":"stop"'),
        ([signal.SIGTERM], 0.1, None, "the server is stopping"),
        ([signal.SIGINT, signal.SIGINT], 60, None, "the server is stopping"),
    ],
)
def test_signals_end_the_process_and_its_streams_in_good_order(signals, drain, said, last):
    with started(drain) as (server, url), streaming(url, "a" * (said or 4000)) as frames:
        for number in signals:
            server.send_signal(number)
            time.sleep(0.2)
        *_, end, done = [frame for frame in frames if frame.startswith("data")]
        assert server.wait(timeout=5) == 0
        log = server.stderr.read()
    assert last in end
    assert f"Waiting {drain} s at most for what runs (requests: 1)" in log
    assert done == "data: [DONE]"


@contextmanager
def started(drain_seconds):
    """An echoing server of its own, which takes 10 ms a token, and its base URL."""
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from echoes import EchoEngine\n"
        "from octavo.server.process import Server, listen\n"
        "listener = listen('127.0.0.1', 0)\n"
        "print(listener.getsockname()[1], flush=True)\n"
        f"Server(EchoEngine(0.01), drain_seconds={drain_seconds}).run([listener])\n"
    )
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as server:
        try:
            yield server, f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def asked(text):
    return {"model": "echo", "messages": [{"role": "user", "content": text}]}


@contextmanager
def streaming(url, text):
    """The lines of an answer that has begun."""
    body = asked(text) | {"stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
        frames = reply.iter_lines()
        next(frames)
        yield frames


def test_a_port_in_use_is_one_sentence():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(BadConfig, match=rf"127.0.0.1:{port} cannot be opened .*in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 1), ("127.0.0.1", 70_000)])
def test_a_place_that_is_none_is_one_sentence(host, port):
    with pytest.raises(BadConfig, match=r"cannot be opened|not in \[0, 65536\)"):
        listen(host, port)


@pytest.mark.thorough
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be():
    program = """
import resource
from octavo.server.process import raise_file_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
hard = 900 if hard == resource.RLIM_INFINITY else min(hard, 900)
resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr
