"""How the server begins and ends: its socket, its drain, its last words."""

import json
import time
from contextlib import contextmanager

import httpx
import pytest

from octavo.errors import BadConfig
from octavo.server.process import listen


def test_what_runs_may_finish_when_the_server_stops(serve):
    with serve(0.002, drain_seconds=5) as (server, url), streaming(url, "a" * 50) as frames:
        server.should_exit = True
        said = [json.loads(frame[6:]) for frame in frames if frame.startswith("data: {")]
    assert "".join(f["choices"][0]["delta"].get("content", "") for f in said) == "a" * 50
    assert said[-1]["choices"][0]["finish_reason"] == "stop"


def test_what_takes_too_long_is_told_so_in_its_own_words(serve):
    with serve(0.01, drain_seconds=0.1) as (server, url), streaming(url, "a" * 4000) as frames:
        server.should_exit = True
        begin = time.monotonic()
        *_, error, done = [frame for frame in frames if frame]
    assert "the server is stopping" in json.loads(error[6:])["error"]["message"]
    assert done == "data: [DONE]"
    assert time.monotonic() - begin < 3


@contextmanager
def streaming(url, text):
    """The lines of an answer that has begun."""
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "stream": True}
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
