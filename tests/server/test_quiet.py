"""What the server lets out: nothing of a request into the log, nothing of its host into headers."""

import json
import platform
import socket

import httpx
import pytest
from checkpoints import write_tiny
from echoes import EchoEngine
from engines import engine_over
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.loading import load
from octavo.server.connection import Patience
from octavo.server.request_log import LoggedRequest

CHAT, TEXT, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
SECRET = "xyzzy"
PATHS = [CHAT, TEXT, MESSAGES]


def body(path, text, **fields):
    given = {"prompt": text} if path == TEXT else {"messages": [{"role": "user", "content": text}]}
    return {"model": "echo", "max_tokens": 40} | given | fields


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_the_log_has_no_text_of_a_request(path, stream, capsys, caplog):
    with serving(EchoEngine()) as (_, url), httpx.Client(base_url=url) as http:
        stop = "stop_sequences" if path == MESSAGES else "stop"
        for text in (SECRET, f"{SECRET}?", f"{SECRET}!", "full"):  # heard, failed, a bug, refused
            http.post(path, json=body(path, text, stream=stream, **{stop: [SECRET * 2]}))
        http.post(path, json=body(path, SECRET, temperature=SECRET))
        http.post(path, json=body(path, SECRET, never_heard_of=SECRET))
        http.post(path, content=json.dumps(body(path, SECRET))[:-3])
        http.post(path, content=b'{"prompt": "' + SECRET.encode() + b'\xff"}')
    printed = "".join(capsys.readouterr()) + caplog.text
    assert f"POST {path}" in printed  # else it shows nothing
    assert "a bug in the engine" in printed
    assert SECRET not in printed


@pytest.mark.parametrize("path", PATHS)
def test_the_log_has_all_of_it_where_that_is_asked_for(path, caplog):
    with serving(EchoEngine(), listeners=[LoggedRequest]) as (_, url):
        reply = httpx.post(url + path, json=body(path, SECRET, max_tokens=3))
        wait_until(lambda: any(r.name.endswith("request_log") for r in caplog.records))
    (line,) = [r.getMessage() for r in caplog.records if r.name.endswith("request_log")]
    assert json.loads(line) == {
        "id": reply.json()["id"],
        "prompts": [SECRET],
        "answers": [SECRET[:3]],
    }


def test_headers_say_nothing_of_the_host(echo):
    url = echo[1]
    with httpx.Client(base_url=url) as http:
        replies = [
            http.get("/health"),
            http.get("/metrics"),
            http.get("/nothing"),
            http.get(CHAT),
            http.post(CHAT, json=body(CHAT, "a")),
            http.post(CHAT, json=body(CHAT, "a", stream=True)),
            http.post(CHAT, json=body(CHAT, "a!")),
            http.post(CHAT, content=b"{"),
            http.post(CHAT, content=b" " * (17 << 20)),
        ]
        assert len({reply.status_code for reply in replies}) == 6
    heads = [str(reply.headers).lower() for reply in replies] + [refused_raw(url)]
    with serving(EchoEngine(), patience=Patience(arrival=0.2)) as (_, hasty):
        heads.append(refused_raw(hasty, begin=b"GET"))
    for head in heads:
        for word in ("'server'", "server:", "x-powered-by", "uvicorn", "python", "octavo/"):
            assert word not in head
        assert platform.release().lower() not in head
        assert socket.gethostname().lower() not in head


def refused_raw(url, begin=b"nonsense\r\n\r\n"):
    """What bytes that are no request get."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(begin)
        heard = b""
        while part := client.recv(1 << 16):
            heard += part
    assert b" 400 " in heard or b" 408 " in heard
    return heard.decode().lower()


class FailingProgram:
    """The program it is over, but for the steps it is told to fail."""

    def __init__(self, program):
        self._program, self.fails = program, False
        self.buffer_bytes = program.buffer_bytes

    def run(self, batch):
        if self.fails:
            raise RuntimeError("a cosmic ray")
        self._program.run(batch)

    def logits(self, first, last):
        return self._program.logits(first, last)


def test_a_failed_step_is_an_error_to_its_clients_a_cause_to_the_operator_and_no_end(
    tmp_path, caplog
):
    loaded = load(Config(str(write_tiny(tmp_path / "echo.gguf"))))
    program = FailingProgram(loaded.program)
    engine = AsyncEngine(engine_over(loaded, program=program))
    with serving(engine) as (_, url), httpx.Client(base_url=url) as http:
        program.fails = True
        for path in PATHS:
            whole = http.post(path, json=body(path, SECRET))
            assert (whole.status_code, whole.json().keys() >= {"error"}) == (500, True)
            assert "a cosmic ray" in whole.json()["error"]["message"]
            stream = http.post(path, json=body(path, SECRET, stream=True))
            assert '"error":' in stream.text
            assert "a cosmic ray" in stream.text
        program.fails = False
        assert http.post(CHAT, json=body(CHAT, "a")).status_code == 200
        assert http.get("/health").status_code == 200
        shown = http.get("/metrics").text
        assert not engine.num_requests
        assert not engine.load.pages[0].held
    assert 'octavo_step_failures_total{cause="RuntimeError",model_name="echo"} 6.0' in shown
    assert 'octavo_requests_finished_total{model_name="echo",reason="error"} 6.0' in shown
    assert 'octavo_errors_total{model_name="echo",status="500"} 3.0' in shown
    assert "a cosmic ray" in caplog.text
    assert "Traceback" in caplog.text
    assert SECRET not in caplog.text
