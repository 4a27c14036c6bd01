"""Idempotency-Key and Last-Event-ID, over a real socket."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import uuid4

import anthropic
import httpx
import openai
import pytest
from echoes import EchoEngine, EchoStream
from serving import serving, wait_until

from octavo.server import replays
from octavo.server.exchange import MAX_BODY
from octavo.server.gate import Gate
from octavo.server.keys import Keys, Limits
from octavo.server.state import State

CHAT = "/v1/chat/completions"
TEXT = "Once more, please."


def said(text=TEXT, **fields):
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}


def keyed(key, last=None):
    headers = {"Idempotency-Key": key}
    return headers if last is None else headers | {"Last-Event-ID": str(last)}


@pytest.fixture
def served():
    engine = EchoEngine(pace=0.002)
    with serving(engine) as (_, url), httpx.Client(base_url=url) as http:
        yield engine, http


def events(body):
    """(id, data) of a stream."""
    blocks = [block.split("\n") for block in body.strip().split("\n\n") if block[0] != ":"]
    return [(int(lines[0].removeprefix("id: ")), lines[-1]) for lines in blocks]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "path", [CHAT, "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize"]
)
def test_the_same_post_is_answered_once(served, path, stream):
    engine, http = served
    prompt, given = {"prompt": TEXT}, {"input": TEXT}
    others = {"/v1/completions": prompt, "/v1/responses": given, "/tokenize": prompt}
    body = others.get(path, said())
    limit = {"/tokenize": {}, "/v1/responses": {"max_output_tokens": 50}}
    body = body | {"model": "echo"} | limit.get(path, {"max_tokens": 50})
    body |= {"stream": True} if stream and path != "/tokenize" else {}
    first = http.post(path, json=body, headers=keyed("k"))
    again = http.post(path, json=body, headers=keyed("k"))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.text == again.text
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    ours = {k: v for k, v in again.headers.items() if k not in ("idempotent-replayed", "date")}
    assert ours == {k: v for k, v in first.headers.items() if k != "date"}
    assert len(engine.requests) == (path != "/tokenize")


def test_another_body_under_the_same_key_is_a_conflict(served):
    _, http = served
    assert http.post(CHAT, json=said(), headers=keyed("k")).status_code == 200
    other = http.post(CHAT, json=said("Another"), headers=keyed("k"))
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    assert "Idempotency-Key" in other.json()["error"]["message"]
    assert http.post("/tokenize", json={"prompt": "x"}, headers=keyed("k")).status_code == 200


def test_who_asks_meanwhile_is_attached_and_another_body_refused(served):
    engine, http = served
    body = said("x" * 100, stream=True)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(http.post, CHAT, json=body, headers=keyed("k")) for _ in range(4)]
        wait_until(lambda: engine.running)
        assert http.post(CHAT, json=said("y"), headers=keyed("k")).status_code == 409
        answers = [one.result() for one in asked]
    assert len(engine.requests) == 1
    assert len({answer.text for answer in answers}) == 1
    assert [a.headers.get("idempotent-replayed") for a in answers].count(None) == 1


@pytest.mark.thorough
def test_a_stream_goes_on_after_any_event_while_it_runs_and_afterwards(served):
    engine, http = served
    body = said("0123456789" * 8, stream=True)
    with http.stream("POST", CHAT, json=body, headers=keyed("k")) as answer:
        heard = []
        for line in answer.iter_lines():
            heard.append(line)
            if len(heard) > 30:
                break  # the connection is lost
    last = int([line for line in heard if line.startswith("id: ")][-2].removeprefix("id: "))
    rest = events(http.post(CHAT, json=body, headers=keyed("k", last)).text)
    whole = events(http.post(CHAT, json=body, headers=keyed("k")).text)
    assert [id for id, _ in whole] == list(range(len(whole)))
    assert whole[last + 1 :] == rest
    assert whole[-1][1] == "data: [DONE]"
    assert len(engine.requests) == 1
    for last in range(len(whole)):
        rest = events(http.post(CHAT, json=body, headers=keyed("k", last)).text or ":")
        assert whole[last + 1 :] == rest


def test_who_leaves_under_a_key_is_waited_for_but_not_forever(served, monkeypatch):
    engine, http = served
    monkeypatch.setattr(replays, "LINGER_SECONDS", 0.05)
    with http.stream("POST", CHAT, json=said("x" * 5000, stream=True), headers=keyed("k")) as one:
        next(one.iter_lines())
    wait_until(lambda: not engine.running)
    assert http.post(CHAT, json=said("short"), headers=keyed("k")).status_code == 200  # forgotten


@pytest.mark.thorough
def test_who_comes_back_too_late_begins_anew_and_hears_nothing_of_the_end(served, monkeypatch):
    """Of the first, which takes a moment to end."""
    engine, http = served
    monkeypatch.setattr(replays, "LINGER_SECONDS", 0.05)
    own, leaving = EchoStream.aclose, []

    async def slow(stream):
        leaving.append(stream)
        await asyncio.sleep(0.5)
        await own(stream)

    body = said("x" * 300, stream=True)
    with http.stream("POST", CHAT, json=body, headers=keyed("k")) as one:
        next(one.iter_lines())
        monkeypatch.setattr(EchoStream, "aclose", slow)
    wait_until(lambda: leaving)
    assert http.post(CHAT, json=body, headers=keyed("k")).text.endswith("[DONE]\n\n")
    assert len(engine.requests) == 2


@pytest.mark.thorough
def test_who_comes_back_in_time_is_waited_for_anew(served, monkeypatch):
    engine, http = served
    monkeypatch.setattr(replays, "LINGER_SECONDS", 0.4)
    body = said("x" * 600, stream=True)
    for _ in range(3):  # each shorter than the wait, all of them longer
        with http.stream("POST", CHAT, json=body, headers=keyed("k")) as one:
            next(one.iter_lines())
            time.sleep(0.05)
        time.sleep(0.25)
    assert http.post(CHAT, json=body, headers=keyed("k")).text.endswith("[DONE]\n\n")
    assert len(engine.requests) == 1


def test_nothing_is_begun_for_who_wants_to_go_on(served):
    engine, http = served
    refused = http.post(CHAT, json=said(stream=True), headers=keyed("gone", 0))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")
    assert not engine.requests


def test_what_was_refused_or_failed_is_tried_again(served):
    engine, http = served
    for text, status in (("full", 429), ("fails?", 500)):
        for _ in range(2):
            refused = http.post(CHAT, json=said(text), headers=keyed(text))
            assert refused.status_code == status
            assert "idempotent-replayed" not in refused.headers
    num_asked = len(engine.requests)
    for n in range(2):
        stream = http.post(CHAT, json=said("fails?", stream=True), headers=keyed("stream"))
        assert '"error"' in stream.text
        assert len(engine.requests) == num_asked + n + 1


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Idempotency-Key": ""}, "Idempotency-Key"),
        ({"Idempotency-Key": "k" * 256}, "Idempotency-Key"),
        ({"Last-Event-ID": "3"}, "Last-Event-ID"),
        (keyed("fresh", 10**6), "Last-Event-ID"),
        (keyed("fresh", -1), "Last-Event-ID"),
        (keyed("fresh", "x"), "Last-Event-ID"),
        (keyed("fresh", "9" * 400), "Last-Event-ID"),
        (keyed("fresh", "0" * 20 + "9" * 5000), "Last-Event-ID"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_headers_that_make_no_sense_are_refused_by_name(echo, headers, field, stream):
    if headers.get("Idempotency-Key") == "fresh":
        headers = headers | {"Idempotency-Key": uuid4().hex}
    refused = httpx.post(echo[1] + CHAT, json=said(stream=stream), headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


def test_every_client_has_keys_of_its_own_and_a_replay_costs_nothing(tmp_path):
    keys = Keys(State(tmp_path / "state.db"))
    texts = [keys.create(name, Limits(requests_per_minute=1))[1] for name in "ab"]
    engine = EchoEngine()
    with serving(engine, gate=Gate(keys)) as (_, url), httpx.Client(base_url=url) as http:
        for body, text in zip((said("one"), said("two")), texts, strict=True):
            headers = keyed("k") | {"authorization": f"Bearer {text}"}
            answers = [http.post(CHAT, json=body, headers=headers) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200] * 3
            assert answers[2].headers["x-ratelimit-remaining-requests"] == "0"
        assert len(engine.requests) == 2
        assert http.post(CHAT, json=said("one"), headers=keyed("k")).status_code == 401


def test_what_was_said_outlives_the_process(tmp_path):
    answers = []
    for _ in range(2):
        state = State(tmp_path / "state.db")
        with serving(EchoEngine(), state=state) as (_, url):
            body = said(stream=True)
            answers.append(httpx.post(f"{url}{CHAT}", json=body, headers=keyed("k")))
    assert answers[0].text == answers[1].text
    assert answers[1].headers["idempotent-replayed"] == "true"


def test_what_another_process_runs_is_run_once_and_told_here_once_it_has_ended(tmp_path):
    first, second = EchoEngine(0.005), EchoEngine()
    with (
        serving(second, state=State(tmp_path / "state.db")) as (_, there),
        ThreadPoolExecutor(1) as pool,
    ):
        with serving(first, state=State(tmp_path / "state.db"), drain_seconds=0) as (_, here):

            def ask(url, text="x" * 100, key="k"):
                return httpx.post(url + CHAT, json=said(text), headers=keyed(key))

            asked = pool.submit(ask, here)
            wait_until(lambda: first.running)
            refused = ask(there)
            assert (refused.status_code, refused.headers["retry-after-ms"]) == (409, "1000")
            assert "x-should-retry" not in refused.headers
            assert "runs in another process" in refused.json()["error"]["message"]
            assert ask(there, "another", "key").status_code == 200
            answer = asked.result()
            assert (answer.status_code, ask(there).text) == (200, answer.text)
            assert [len(first.requests), len(second.requests)] == [1, 1]
            asked = pool.submit(ask, here, "x" * 4000, "cut off")
            wait_until(lambda: first.running)
        assert asked.result().status_code == 503
        assert ask(there, "x" * 4000, "cut off").status_code == 200


def test_what_is_kept_is_bounded_in_time_and_number(tmp_path, monkeypatch):
    monkeypatch.setattr(replays, "MAX_KEPT", 3)
    state = State(tmp_path / "state.db")
    with serving(EchoEngine(), state=state) as (_, url):
        for k in range(5):
            httpx.post(f"{url}{CHAT}", json=said(), headers=keyed(f"k{k}"))
        wait_until(
            lambda: (
                [r["key"] for r in state.rows("SELECT key FROM replays ORDER BY key")]
                == ["k2", "k3", "k4"]
            )
        )
        monkeypatch.setattr(replays, "KEPT_SECONDS", 0)
        again = httpx.post(f"{url}{CHAT}", json=said(), headers=keyed("k4"))
        assert "idempotent-replayed" not in again.headers


@pytest.mark.parametrize(("bound", "most"), [("MAX_KEPT", 2), ("MAX_KEPT_BYTES", 2000)])
def test_one_who_asks_for_much_takes_none_of_the_others(tmp_path, monkeypatch, bound, most):
    monkeypatch.setattr(replays, bound, most)
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    quiet, loud = (
        {"authorization": f"Bearer {keys.create(name, Limits())[1]}"} for name in ("quiet", "loud")
    )
    with serving(EchoEngine(), state=state, gate=Gate(keys)) as (_, url):
        ask = partial(httpx.post, url + CHAT, json=said())
        ask(headers=keyed("k") | quiet)
        for k in range(8):
            ask(headers=keyed(f"k{k}") | loud)
        wait_until(lambda: 2 <= len(state.rows("SELECT key FROM replays")) <= 4)
        again = ask(headers=keyed("k") | quiet)
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in ask(headers=keyed("k0") | loud).headers


def test_the_official_clients_may_use_it(served):
    engine, http = served
    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none") as client:
        for _ in range(2):
            stream = client.chat.completions.create(
                **said(), stream=True, extra_headers=keyed("openai")
            )
            assert "".join(c.choices[0].delta.content or "" for c in stream) == TEXT
    with anthropic.Anthropic(base_url=str(http.base_url), api_key="none") as client:
        for _ in range(2):
            with client.messages.stream(**said(), max_tokens=99, extra_headers=keyed("a")) as got:
                assert got.get_final_text() == TEXT
    assert len(engine.requests) == 2


@pytest.mark.thorough
def test_a_file_is_kept_once_however_its_form_is_drawn(served):
    with openai.OpenAI(base_url=f"{served[1].base_url}/v1", api_key="none") as client:
        large = (b"--line" + b"x" * 1000 + b"\n") * 17_000
        assert len(large) > MAX_BODY  # more than JSON may have

        def sent(content):
            return client.files.create(
                file=("in.jsonl", content), purpose="batch", extra_headers=keyed("file")
            )

        first, again = sent(large), sent(large)
        assert first.id == again.id
        assert [file.id for file in client.files.list()] == [first.id]
        assert client.files.content(first.id).content == large
        with pytest.raises(openai.ConflictError):
            sent(large[:-2] + b"y\n")
