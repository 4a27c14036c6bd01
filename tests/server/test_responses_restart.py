"""OpenAI's Responses when the server ends, and when it comes back."""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest
from asking import PATH, asked, polled, strict
from callers import SAYS, TEMPLATE
from dialects import LOOK
from echoes import EchoEngine
from serving import serving, wait_until

from octavo.server import responses
from octavo.server.state import State

SLOW = 0.05  # seconds a token: what is to be cut off has not ended, however long a disk may take
TOOL = {"type": "function", "name": "look", "parameters": LOOK}


def dumped(events):
    return [event.model_dump() for event in events]


def served(path, pace=0.0, template="{{ messages }}", **options):
    engine = EchoEngine(pace, template)
    return serving(engine, state=State(path / "state.db"), **options)


def test_what_was_kept_outlives_the_server(tmp_path):
    with served(tmp_path) as (_, url), strict(url) as client:
        made = client.responses.create(**asked("one"))
        events = list(client.responses.retrieve(made.id, stream=True))
    with served(tmp_path) as (_, url), strict(url) as client:
        assert client.responses.retrieve(made.id) == made
        assert list(client.responses.retrieve(made.id, stream=True)) == events
        assert client.responses.create(**asked(), previous_response_id=made.id).output_text


def test_what_ran_in_the_background_is_begun_anew_with_the_same_words(tmp_path):
    with served(tmp_path, SLOW, drain_seconds=0) as (server, url), strict(url) as client:
        ask = asked("a" * 200, extra_body={"temperature": 0.5})
        stream = client.responses.create(**ask, background=True, stream=True)
        made = next(stream).response
        heard = [next(stream).model_dump() for _ in range(8)]
        waiting = client.responses.create(**asked("b" * 200), background=True)
        server.end()
        rest = list(stream)
    assert rest[-1].type == "error"
    assert "stopping" in rest[-1].message
    with served(tmp_path) as (server, url), strict(url) as client:
        polled(client.responses, made.id)
        again = dumped(client.responses.retrieve(made.id, stream=True))
        assert again[1:9] == heard
        assert again[1 : len(rest) + 8] == heard + dumped(rest[:-1])
        assert server.engine.requests[0].params.seed == made.seed
        assert again[-1]["response"]["created_at"] == made.created_at
        assert polled(client.responses, waiting.id).output_text == "b" * 200


@pytest.mark.thorough
def test_thoughts_calls_and_schemas_are_begun_anew_alike(tmp_path):
    """Within a conversation that has calls and results of its own."""
    ask = {"model": "echo", "tools": [TOOL], "reasoning": {"effort": "low"}}
    options = {"template": TEMPLATE, "drain_seconds": 0}
    with served(tmp_path, **options) as (server, url), strict(url) as client:
        one = client.responses.create(**ask, input=SAYS)
        result = {"type": "function_call_output", "call_id": "call_id0", "output": "a"}
        user = {"role": "user", "content": SAYS}
        fields = {"previous_response_id": one.id, "tool_choice": "required"}
        fields["text"] = {"format": {"type": "json_object"}}
        server.engine.pace = 0.015
        stream = client.responses.create(
            **ask, input=[result, user], **fields, background=True, stream=True
        )
        made, heard = next(stream).response, []
        for event in stream:
            heard.append(event.model_dump())
            if "arguments.delta" in event.type:
                break
        first = server.engine.requests[-1]
        server.end()
        heard += [event.model_dump() for event in stream]
    assert heard.pop()["type"] == "error"
    with served(tmp_path, **options) as (server, url), strict(url) as client:
        done = polled(client.responses, made.id)
        again = dumped(client.responses.retrieve(made.id, stream=True))
        assert again[1 : len(heard) + 1] == heard
        assert [item.type for item in done.output][-2:] == ["function_call"] * 2
        assert server.engine.requests == [first]


def test_what_runs_in_the_background_is_waited_for_when_the_server_stops(tmp_path):
    with served(tmp_path, 0.002, drain_seconds=5) as (_, url), strict(url) as client:
        made = client.responses.create(**asked("a" * 50), background=True)
    with served(tmp_path) as (server, url), strict(url) as client:
        assert client.responses.retrieve(made.id).output_text == "a" * 50
        assert not server.engine.requests


def test_where_it_cannot_be_begun_anew_it_has_failed(tmp_path):
    with served(tmp_path, SLOW, drain_seconds=0) as (_, url), strict(url) as client:
        before = client.responses.create(**asked("one"))
        fields = {"background": True, "previous_response_id": before.id}
        made = client.responses.create(**asked("a" * 200), **fields)
        client.responses.delete(before.id)
    with served(tmp_path) as (_, url), strict(url) as client:
        failed = client.responses.retrieve(made.id)
        assert (failed.status, failed.error.code) == ("failed", "server_error")
        assert "kept here" in failed.error.message
        (event,) = client.responses.retrieve(made.id, stream=True)
        assert (event.type, event.response) == ("response.failed", failed)


def test_another_models_answer_is_not_begun_anew(tmp_path):
    with served(tmp_path, SLOW, drain_seconds=0) as (_, url), strict(url) as client:
        made = client.responses.create(**asked("a" * 200), background=True)
    engine = EchoEngine()
    engine.fingerprint = "fp_other"
    with serving(engine, state=State(tmp_path / "state.db")) as (_, url), strict(url) as client:
        assert "other weights" in client.responses.retrieve(made.id).error.message
        assert not engine.requests


@pytest.mark.thorough
def test_another_process_that_lives_keeps_its_own(tmp_path):
    with served(tmp_path, 0.01, drain_seconds=0) as (first, url), strict(url) as client:
        made = client.responses.create(**asked("a" * 4000), background=True)
        with served(tmp_path) as (second, other), strict(other) as visitor:
            assert visitor.responses.retrieve(made.id).status in ("queued", "in_progress")
            with pytest.raises(openai.BadRequestError, match="another process"):
                visitor.responses.cancel(made.id)
            with pytest.raises(openai.BadRequestError, match="another process"):
                visitor.responses.retrieve(made.id, stream=True)
            assert not second.engine.requests
            first.engine.pace = 0
            polled(client.responses, made.id)
            assert visitor.responses.retrieve(made.id).output_text == "a" * 4000
            first.engine.pace = 0.01
            gone = client.responses.create(**asked("b" * 4000), background=True)
            visitor.responses.delete(gone.id)
            first.engine.pace = 0
            for one in (client, visitor):  # also when it has come to its end
                url = f"{one.base_url}responses/{gone.id}"
                wait_until(lambda url=url: httpx.get(url).status_code == 404)


@pytest.mark.thorough
def test_one_that_lives_takes_up_what_another_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(responses, "LOOK_SECONDS", 0.01)
    with served(tmp_path) as (second, other), strict(other) as visitor:
        with served(tmp_path, 0.01, drain_seconds=0) as (_, url), strict(url) as client:
            made = client.responses.create(**asked("a" * 4000), background=True)
            time.sleep(0.1)  # some looks: what lives is left alone
            assert not second.engine.requests
        assert polled(visitor.responses, made.id).output_text == "a" * 4000
        assert [request.params.seed for request in second.engine.requests] == [made.seed]


def test_one_that_cannot_be_read_any_more_holds_up_no_other(tmp_path):
    with served(tmp_path, SLOW, drain_seconds=0) as (_, url), strict(url) as client:
        ids = [client.responses.create(**asked("a" * 99), background=True).id for _ in range(2)]
    state = State(tmp_path / "state.db")
    with state.change() as connection:
        sql = "UPDATE responses SET response = ? WHERE id = ?"
        connection.execute(sql, [b'{"output": []}', ids[0]])
    with served(tmp_path) as (_, url), strict(url) as client:
        assert httpx.get(f"{url}{PATH}/{ids[0]}").json()["status"] == "failed"
        assert polled(client.responses, ids[1]).output_text == "a" * 99


def test_what_is_begun_anew_waits_for_room(tmp_path):
    with served(tmp_path, SLOW, drain_seconds=0) as (_, url), strict(url) as client:
        ids = [client.responses.create(**asked("a" * 99), background=True).id for _ in range(2)]
    engine = EchoEngine()
    engine.start = engine.stop  # it comes up, and takes nothing yet
    engine.is_ready, engine.reopens_in = False, 0.05
    with serving(engine, state=State(tmp_path / "state.db")) as (_, url), strict(url) as client:
        assert client.responses.retrieve(ids[0]).status == "queued"
        assert client.responses.cancel(ids[0]).status == "cancelled"
        engine.stopping, engine.is_ready = False, True
        assert polled(client.responses, ids[1]).output_text == "a" * 99


def test_a_stream_of_a_server_that_stops_says_so(tmp_path):
    with (
        served(tmp_path, 0.01, drain_seconds=0) as (server, url),
        httpx.stream("POST", url + PATH, json=asked("a" * 4000, stream=True)) as reply,
    ):
        lines = reply.iter_lines()
        first = json.loads([next(lines) for _ in range(3)][2].removeprefix("data: "))
        server.end()
        *_, name, data = [line for line in lines if line]
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["message"].startswith("the server is stopping")
    with served(tmp_path) as (_, url):
        assert httpx.get(f"{url}{PATH}/{first['response']['id']}").status_code == 404


@pytest.mark.processes
def test_what_a_killed_process_left_is_begun_anew(tmp_path):
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from pathlib import Path\n"
        "from echoes import EchoEngine\n"
        "from octavo.server.process import Server, listen\n"
        "from octavo.server.state import State\n"
        "listener = listen('127.0.0.1', 0)\n"
        "print(listener.getsockname()[1], flush=True)\n"
        f"state = State(Path({str(tmp_path / 'state.db')!r}))\n"
        "Server(EchoEngine(0.01), state=state).run([listener])\n"
    )
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        with strict(url) as client:
            made = client.responses.create(**asked("a" * 500), background=True)
        process.kill()
    with served(tmp_path) as (_, url), strict(url) as client:
        assert polled(client.responses, made.id).output_text == "a" * 500
