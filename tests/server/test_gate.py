"""Who may ask a server without keys: programs of this machine, and no web page from elsewhere."""

import httpx
import pytest
from echoes import EchoEngine
from serving import serving
from typer.testing import CliRunner

from octavo.cli import app
from octavo.server.gate import Gate
from octavo.server.keys import Keys, Limits
from octavo.server.state import State

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
FOREIGN = [
    ("host", "evil.example"),
    ("host", "127.0.0.1.evil.example:80"),
    ("host", "[bad"),
    ("origin", "http://evil.example"),
    ("origin", "http://localhost.evil.example"),
    ("origin", "null"),
    ("origin", "file://"),
]
OURS = [
    {"host": "LocalHost:1", "origin": "http://127.8.9.1:3000"},
    {"host": "[::1]:8000", "origin": "https://[::1]"},
    {"origin": "https://page.example"},
]


@pytest.fixture
def keys(tmp_path):
    state = State(tmp_path / "state.db")
    yield Keys(state)
    state.close()


def ask(url, text="", headers=None):
    key = {"authorization": f"Bearer {text}"} if text else {}
    return httpx.post(f"{url}/v1/chat/completions", headers=(headers or {}) | key, json=HELLO)


def test_without_keys_web_pages_from_elsewhere_are_not_served(keys):
    origins, engine = ["https://page.example"], EchoEngine()
    with serving(engine, gate=Gate(keys, origins=origins), cors_origins=origins) as (_, url):
        for name, value in FOREIGN:
            # For text a browser asks nobody beforehand.
            headers = {name: value, "content-type": "text/plain"}
            refused = ask(url, headers=headers)
            assert refused.status_code == httpx.get(f"{url}/v1/files", headers=headers).status_code
            assert refused.status_code == 403
            said = refused.json()["error"]["message"]
            assert said.startswith(f"{name}: {value!r} is not this machine")
            assert "octavo keys create" in said
            assert httpx.get(f"{url}/nowhere", headers=headers).status_code == 404
            assert httpx.get(f"{url}/health", headers=headers).status_code == 200
        message = httpx.post(f"{url}/v1/messages", headers={"host": "evil.example"}).json()
        assert message["error"]["type"] == "permission_error"
        assert not engine.requests
        assert [ask(url, headers=headers).status_code for headers in OURS] == [200] * 3
        _, text = keys.create("alice", Limits())
        assert {ask(url, text, headers=dict([one])).status_code for one in FOREIGN} == {200}


@pytest.mark.parametrize("options", [{"allow_anonymous": True}, {"origins": ["*"]}])
def test_web_pages_from_elsewhere_may_be_let_in(keys, options):
    with serving(EchoEngine(), gate=Gate(keys, **options)) as (_, url):
        assert ask(url, headers={"origin": "http://evil.example"}).status_code == 200
        named = ask(url, headers={"host": "evil.example"})
        assert named.status_code == (200 if "allow_anonymous" in options else 403)


def octavo(*arguments):
    return CliRunner().invoke(app, arguments)


def test_without_a_key_only_this_machine_is_listened_to(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    for host in ("0.0.0.0", "::", "example.org"):
        refused = octavo("serve", "--host", host, "--port", "0")
        assert refused.exit_code == 2
        assert "octavo keys create" in refused.output


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "86401"])
def test_a_drain_without_end_is_refused(tmp_path, monkeypatch, seconds):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    refused = octavo("serve", "--drain-seconds", seconds)
    assert refused.exit_code == 2
    assert f"drain_seconds: {seconds} is not in [0, 86400]" in refused.output
