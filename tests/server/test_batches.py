"""Batches through the official client, over an engine that echoes."""

import json
from contextlib import contextmanager
from dataclasses import replace

import httpx
import openai
import pytest
from batching import asked, client_of, ended, entries, jsonl, reached, started, told
from echoes import EchoEngine
from serving import serving, wait_until

from octavo.server import batches as octavo_batches
from octavo.server import journal
from octavo.server.batch_worker import AHEAD
from octavo.server.batches import Batch
from octavo.server.exchange import UnknownFields
from octavo.server.gate import Gate
from octavo.server.keys import Keys, Limits
from octavo.server.state import State


@contextmanager
def serve(engine=None, **options):
    with serving(engine or EchoEngine(), **options) as (_, url), client_of(url) as client:
        yield client


@pytest.fixture(scope="module")
def client():
    with serve() as client:
        yield client


def test_every_line_is_answered_under_its_id_and_counted(client):
    lines = [asked(f"r-{k}", f"line {k}") for k in range(40)]
    batch = started(client, lines, metadata={"a": "b"})
    assert (batch.status, batch.completion_window, batch.metadata) == (
        "validating",
        "24h",
        {"a": "b"},
    )
    assert batch.expires_at == batch.created_at + 24 * 3600
    batch = ended(client, batch)
    assert (batch.status, batch.error_file_id, batch.errors) == ("completed", None, None)
    times = [batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert times == sorted(times)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (40, 40, 0)
    said = entries(client, batch.output_file_id)
    assert {one["custom_id"]: told(one) for one in said} == {
        f"r-{k}": f"line {k}" for k in range(40)
    }
    assert len({one["id"] for one in said}) == 40
    for one in said:
        assert one["id"].startswith("batch_req_")
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        body = openai.types.chat.ChatCompletion.model_validate(one["response"]["body"])
        assert one["response"]["request_id"] == body.id
    usage = [one["response"]["body"]["usage"] for one in said]
    assert batch.usage.total_tokens == sum(one["total_tokens"] for one in usage)
    assert batch.usage.input_tokens == sum(one["prompt_tokens"] for one in usage)
    assert batch.usage.input_tokens_details.cached_tokens == 40
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.expires_at) == ("batch_output", None)
    assert output.filename == f"{batch.id}_output.jsonl"


def test_lines_that_cannot_be_served_are_in_the_error_file_and_the_others_are_answered(client):
    lines = [
        asked("good"),
        asked("hot", temperature=9),
        asked("other model", model="other"),
        asked("streamed", stream=True),
        asked("tools", tools=[{"type": "function"}]),
        asked("broken step", "?"),
        asked("a bug", "!"),
        asked("late", timeout=0.5),
        asked("empty", ""),
    ]
    batch = ended(client, started(client, lines))
    counts = batch.request_counts
    assert (batch.status, counts.completed, counts.failed) == ("completed", 1, 8)
    assert [one["custom_id"] for one in entries(client, batch.output_file_id)] == ["good"]
    failed = {one["custom_id"]: one["response"] for one in entries(client, batch.error_file_id)}
    assert {id: response["status_code"] for id, response in failed.items()} == {
        "hot": 400,
        "other model": 404,
        "streamed": 400,
        "tools": 400,
        "broken step": 500,
        "a bug": 500,
        "late": 504,
        "empty": 400,
    }
    assert failed["streamed"]["body"]["error"]["param"] == "stream"
    assert failed["tools"]["body"]["error"]["param"] == "tools[0].function"
    assert failed["other model"]["body"]["error"]["code"] == "model_not_found"
    assert client.files.retrieve(batch.error_file_id).filename == f"{batch.id}_error.jsonl"


def test_a_batch_of_failures_has_no_output_file(client):
    batch = ended(client, started(client, [asked("a", temperature=9)]))
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(entries(client, batch.error_file_id)) == 1


def test_each_generating_endpoint_is_served_in_its_own_words(client):
    raw = {"custom_id": "a", "method": "POST", "url": "/v1/completions"}
    raw["body"] = {"model": "echo", "prompt": ["one", "two"], "n": 2, "max_tokens": 9}
    batch = ended(client, started(client, [raw], "/v1/completions"))
    (one,) = entries(client, batch.output_file_id)
    texts = [choice["text"] for choice in one["response"]["body"]["choices"]]
    assert texts == ["one", "one", "two", "two"]
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (6, 12)
    lines = [asked("b", url="/v1/messages", max_tokens=3), asked("c", url="/v1/messages")]
    batch = ended(client, started(client, lines, "/v1/messages"))
    (good,), (bad,) = (entries(client, id) for id in (batch.output_file_id, batch.error_file_id))
    assert good["response"]["body"]["content"][0]["text"] == "hel"
    assert bad["response"]["body"]["type"] == "error"


def test_responses_are_kept_or_not_as_their_lines_say(client):
    url = "/v1/responses"
    first = client.responses.create(model="echo", input="first")
    bodies = {
        "kept": {"input": "hello"},
        "not kept": {"input": "hello", "store": False},
        "goes on": {"input": "hello", "previous_response_id": first.id},
        "late": {"input": "hello", "background": True},
    }
    lines = [asked(id, url=url) | {"body": {"model": "echo", **bodies[id]}} for id in bodies]
    batch = ended(client, started(client, lines, url))
    said = {one["custom_id"]: one for one in entries(client, batch.output_file_id)}
    assert said.keys() == {"kept", "not kept", "goes on"}
    (bad,) = entries(client, batch.error_file_id)
    assert bad["response"]["body"]["error"]["param"] == "background"
    for id, one in said.items():
        body = openai.types.responses.Response.model_validate(one["response"]["body"])
        assert (body.status, body.output_text) == ("completed", "hello")
        if id == "not kept":
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(body.id)
        else:
            assert client.responses.retrieve(body.id).output_text == "hello"
    assert batch.usage.output_tokens == 15


def test_a_field_nobody_knows_is_named_beside_the_answer_or_refuses_the_line(client):
    batch = ended(client, started(client, [asked("a", tempo=1)]))
    (one,) = entries(client, batch.output_file_id)
    assert one["response"]["headers"] == {"x-octavo-ignored": "tempo"}
    with serve(unknown_fields=UnknownFields(are_refused=True)) as strict:
        batch = ended(strict, started(strict, [asked("a", tempo=1), asked("b")]))
        (one,) = entries(strict, batch.error_file_id)
    assert one["response"]["body"]["error"]["param"] == "tempo"
    assert batch.request_counts.completed == 1


def test_an_input_that_is_none_fails_with_the_numbers_of_its_lines(client):
    content = jsonl([asked("a"), asked("a")]) + b"{\n"
    batch = ended(client, started(client, content))
    assert (batch.status, batch.output_file_id, batch.in_progress_at) == ("failed", None, None)
    assert batch.failed_at >= batch.created_at
    assert [(one.code, one.line) for one in batch.errors.data] == [
        ("duplicate_custom_id", 2),
        ("invalid_json_line", 3),
    ]
    with pytest.raises(openai.BadRequestError, match="it is failed"):
        client.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {str(k): "v" for k in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
        ),
        (
            {"output_expires_after": {"anchor": "now", "seconds": 3600}},
            "output_expires_after.anchor",
        ),
    ],
)
def test_what_is_not_served_is_refused_by_name(client, fields, field):
    file = client.files.create(file=("in.jsonl", jsonl([asked("a")])), purpose="batch")
    body = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **fields}
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(input_file_id=file.id, **body)
    assert refused.value.body["param"].startswith(field)


def test_a_batch_needs_a_file_that_is_there_and_meant_for_it(client):
    fields = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with pytest.raises(openai.NotFoundError, match="file-none") as refused:
        client.batches.create(input_file_id="file-none", **fields)
    assert refused.value.body["param"] == "input_file_id"
    batch = ended(client, started(client, [asked("a")]))
    with pytest.raises(openai.BadRequestError, match="input_file_id: its purpose is 'batch_output"):
        client.batches.create(input_file_id=batch.output_file_id, **fields)


def test_batches_are_listed_newest_first(client):
    ids = [started(client, [asked("a")]).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=2).data] == ids[:0:-1]
    assert [batch.id for batch in client.batches.list(limit=2)][:3] == ids[::-1]
    assert client.batches.list(after=ids[1], limit=1).data[0].id == ids[0]
    for limit in (0, 101):
        with pytest.raises(openai.BadRequestError, match="limit"):
            client.batches.list(limit=limit)
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")


def test_output_files_expire_when_they_shall(client):
    keep = {"anchor": "created_at", "seconds": 7200}
    lines = [asked("a"), asked("b", temperature=9)]
    batch = ended(client, started(client, lines, output_expires_after=keep))
    for id in (batch.output_file_id, batch.error_file_id):
        file = client.files.retrieve(id)
        assert file.expires_at == file.created_at + 7200


def test_its_input_may_be_deleted_once_it_has_begun():
    with serve(EchoEngine(pace=0.01)) as client:
        batch = started(client, [asked(k) for k in range(20)])
        client.files.delete(batch.input_file_id)
        assert ended(client, batch).request_counts.completed == 20


def test_a_cancelled_batch_keeps_what_was_answered_and_stops_what_runs():
    engine = EchoEngine(pace=0.01)
    with serve(engine) as client:
        slow = [asked(f"slow {k}", "x" * 4000) for k in range(20)]
        batch = started(client, [asked("a"), asked("b"), *slow])
        reached(client, batch, lambda now: now.request_counts.completed == 2)
        wait_until(lambda: engine.num_requests == engine.max_running + AHEAD)
        cancelled = client.batches.cancel(batch.id)
        assert cancelled.status in ("cancelling", "cancelled")
        assert cancelled.cancelling_at >= batch.created_at
        assert client.batches.cancel(batch.id).id == batch.id  # twice is as good as once
        batch = ended(client, batch)
        assert batch.status == "cancelled"
        assert batch.cancelled_at >= batch.cancelling_at
        assert engine.num_requests == 0
        assert {told(one) for one in entries(client, batch.output_file_id)} == {"hello"}
        left = entries(client, batch.error_file_id)
        assert {one["custom_id"] for one in left} == {line["custom_id"] for line in slow}
        assert {one["error"]["code"] for one in left} == {"batch_cancelled"}
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (22, 2, 20)


def test_what_is_not_done_in_time_is_named_in_the_error_file(tmp_path):
    state = State(tmp_path / "state.db")
    with serve(EchoEngine(pace=0.01), state=state, drain_seconds=0) as client:
        batch = started(client, [asked("a"), *(asked(k, "x" * 4000) for k in range(20))])
        reached(client, batch, lambda now: now.request_counts.completed == 1)
        with state.change() as connection:
            connection.execute("UPDATE batches SET expires_at = 0 WHERE id = ?", [batch.id])
    with serve(state=State(tmp_path / "state.db")) as client:
        batch = ended(client, batch)
        assert (batch.status, batch.completed_at) == ("expired", None)
        assert batch.expired_at > 0
        assert [one["custom_id"] for one in entries(client, batch.output_file_id)] == ["a"]
        left = entries(client, batch.error_file_id)
        assert {one["custom_id"] for one in left} == {str(k) for k in range(20)}
        assert {one["error"]["code"] for one in left} == {"batch_expired"}


@pytest.mark.thorough
def test_one_that_runs_expires_when_its_time_is_over(monkeypatch):
    with serve(EchoEngine(pace=0.01)) as client:
        first = started(client, [asked("a", "x" * 4000)])
        reached(client, first, lambda now: now.status == "in_progress")
        monkeypatch.setattr(octavo_batches, "WINDOW", 1)
        second = started(client, [asked("b")])  # waits for the first
        batch = ended(client, second)
        assert (batch.status, batch.request_counts.failed) == ("expired", 1)
        client.batches.cancel(first.id)


def test_a_line_without_a_seed_is_given_one_by_batch_and_number():
    engine = EchoEngine()
    with serve(engine) as client:
        batch = ended(client, started(client, [asked(0), asked(1), asked(2, seed=7)]))
        seeds = [one["response"]["body"]["seed"] for one in entries(client, batch.output_file_id)]
    assert len(set(seeds)) == 3
    assert seeds[2] == 7
    assert {request.params.seed for request in engine.requests} == set(seeds)
    assert all(request.is_background for request in engine.requests)


def test_a_line_waits_for_room_and_does_not_fail(tmp_path):
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    _, text = keys.create("a", Limits(requests_per_minute=120))  # two a second
    engine = EchoEngine()
    with (
        serving(engine, state=state, gate=Gate(keys)) as (_, url),
        client_of(url, text) as client,
    ):
        batch = ended(client, started(client, [asked(k) for k in range(62)]))
        assert (batch.status, batch.request_counts.completed) == ("completed", 62)
        reply = client.with_options(max_retries=0).models.with_raw_response.list()
        assert int(reply.headers["x-ratelimit-remaining-requests"]) >= 59
    assert {request.tenant for request in engine.requests} == {keys.all()[0].id}


@pytest.mark.thorough
def test_a_revoked_key_s_batch_is_cancelled(tmp_path):
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    key, text = keys.create("a", Limits())
    keys.create("b", Limits())
    engine = EchoEngine(pace=0.01)
    with (
        serving(engine, state=state, gate=Gate(keys)) as (_, url),
        client_of(url, text) as client,
    ):
        batch = started(client, [asked(k, "x" * 20) for k in range(1000)])
        wait_until(lambda: len(engine.requests) > 20)
        keys.revoke(key.id)
        wait_until(lambda: not engine.num_requests)
        sql = "SELECT status, error_file_id FROM batches WHERE id = ?"
        wait_until(lambda: state.rows(sql, batch.id)[0]["status"] == "cancelled")
    (row,) = state.rows(sql, batch.id)
    left = (state.folder / "files" / row["error_file_id"]).read_text().splitlines()
    assert {json.loads(line)["error"]["code"] for line in left} == {"batch_cancelled"}


def test_keys_see_their_own_batches_and_do_not_wait_for_each_other_s(tmp_path):
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    (_, first), (_, second) = (keys.create(name, Limits()) for name in "ab")
    with (
        serving(EchoEngine(pace=0.01), state=state, gate=Gate(keys)) as (_, url),
        client_of(url, first) as mine,
        client_of(url, second) as theirs,
    ):
        long = started(mine, [asked(k, "x" * 4000) for k in range(30)])
        reached(mine, long, lambda now: now.status == "in_progress")
        with pytest.raises(openai.NotFoundError):
            theirs.batches.retrieve(long.id)
        with pytest.raises(openai.NotFoundError):
            theirs.batches.cancel(long.id)
        assert theirs.batches.list().data == []
        assert ended(theirs, started(theirs, [asked("a")])).status == "completed"
        assert mine.batches.retrieve(long.id).status == "in_progress"
        mine.batches.cancel(long.id)


def test_batches_at_a_time_have_a_bound(monkeypatch):
    monkeypatch.setattr(octavo_batches, "MOST_AT_A_TIME", 1)
    with serve(EchoEngine(pace=0.01), drain_seconds=0) as client:
        started(client, [asked("a", "x" * 4000)])
        with pytest.raises(openai.RateLimitError, match="1 of its 1 batches at a time") as refused:
            started(client, [asked("a")])
    assert 86_300 < int(refused.value.response.headers["retry-after"]) <= 86_400


def test_when_a_batch_should_be_over_is_told_from_what_is_done():
    batch = Batch(*"abcdef", 9, "in_progress", created_at=0, expires_at=1000, num_lines=10)
    assert batch.seconds_left(100) == 900
    begun = replace(batch, in_progress_at=100)
    assert begun.seconds_left(200) == 800
    assert replace(begun, num_completed=3, num_failed=1).seconds_left(200) == 150
    assert replace(begun, num_completed=1).seconds_left(300) == 700
    assert replace(begun, num_completed=10).seconds_left(200) == 1


def test_another_model_s_batch_waits_for_its_model(tmp_path):
    other, echo = EchoEngine(pace=0.01), EchoEngine()
    other.name = "other"
    with serve(other, state=State(tmp_path / "state.db"), drain_seconds=0) as client:
        lines = [asked(k, "x" * 300, model="other") for k in range(3)]
        batch = started(client, lines)
        reached(client, batch, lambda now: now.status == "in_progress")
    with serve(echo, state=State(tmp_path / "state.db")) as client:
        mine = ended(client, started(client, [asked("a")]))
        assert mine.status == "completed"
        assert client.batches.retrieve(batch.id).status == "in_progress"
    other.pace = 0
    with serve(other, state=State(tmp_path / "state.db")) as client:
        assert ended(client, batch).request_counts.completed == 3


def test_the_journal_and_the_histograms_are_not_flooded(client, monkeypatch):
    monkeypatch.setattr(journal, "MAX_KEPT", 10)
    base = str(client.base_url).removesuffix("/v1/")
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    asked_now = httpx.post(f"{base}/v1/chat/completions", json=body).json()["id"]
    before = histogram(base)
    batch = ended(client, started(client, [asked(k) for k in range(30)]))
    assert httpx.get(f"{base}/v1/requests/{asked_now}/explain").json()["background"] is False
    *_, last = entries(client, batch.output_file_id)
    explained = httpx.get(f"{base}/v1/requests/{last['response']['request_id']}/explain").json()
    assert (explained["background"], explained["choices"][0]["state"]) == (True, "finished")
    assert histogram(base) == before


def histogram(base):
    name = "octavo_time_to_first_token_seconds_count"
    lines = httpx.get(f"{base}/metrics").text.splitlines()
    return [line for line in lines if line.startswith(name)]


@pytest.mark.thorough
def test_a_line_of_ten_megabytes_is_answered(client):
    """With the engine's own words: it is too long for the context."""
    content = jsonl([asked("large", "x" * (10 << 20)), asked("small")])
    batch = ended(client, started(client, content))
    (large,) = entries(client, batch.error_file_id)
    assert json.dumps(large).count("maximum context length") == 1
    assert batch.request_counts.completed == 1
