"""Who may ask, and how much: the store, the buckets, and both over a real socket."""

import sqlite3
from contextlib import suppress

import httpx
import openai
import pytest
from echoes import EchoEngine
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from serving import serving, wait_until
from typer.testing import CliRunner

from octavo.cli import app
from octavo.errors import BadConfig, BadRequest, BadState, RateLimited, Unauthorized, UnknownName
from octavo.scheduler.forecast import UNKNOWN
from octavo.server import keys as module
from octavo.server.gate import Gate
from octavo.server.keys import Key, Keys, Limits
from octavo.server.limits import MINUTE, Bucket, Limiter
from octavo.server.state import State

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def keys(tmp_path):
    state = State(tmp_path / "state.db")
    yield Keys(state)
    state.close()


def made(**limits):
    return Key("k", "", 0, Limits(**limits))


# ---- the store


def test_a_key_is_recognised_until_it_is_revoked(keys, tmp_path):
    assert not keys.are_there
    key, text = keys.create("alice", Limits(tokens_per_minute=5, priority=3))
    other, _ = keys.create("bob", Limits())
    assert keys.are_there
    assert keys.recognise(text) == key
    assert [one.name for one in Keys(State(tmp_path / "state.db")).all()] == ["alice", "bob"]
    keys.revoke(key.id)
    with pytest.raises(Unauthorized):
        keys.recognise(text)
    with pytest.raises(UnknownName, match=key.id):
        keys.revoke(key.id)
    assert keys.all() == [other]


def test_the_secret_is_nowhere_in_the_file(keys, tmp_path):
    key, text = keys.create("alice", Limits())
    secret = text.removeprefix(f"sk-octavo-{key.id}-").encode()
    assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())
    assert (tmp_path / "state.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", [lambda t: t + "x", lambda t: t[:-1], str.upper, lambda t: ""])
def test_nearly_a_key_is_none(keys, change):
    _, text = keys.create("alice", Limits())
    with pytest.raises(Unauthorized):
        keys.recognise(change(text))


def test_a_key_is_compared_in_constant_time_whether_or_not_its_id_is_known(keys, monkeypatch):
    compared = []
    monkeypatch.setattr(module, "compare_digest", lambda *two: compared.append(two))
    _, text = keys.create("alice", Limits())
    for one in (text, text + "x", "sk-octavo-none-x", ""):
        with pytest.raises(Unauthorized):
            keys.recognise(one)
    assert [[len(side) for side in two] for two in compared] == [[32, 32]] * 4


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadState, match="OCTAVO_HOME"):
        State(tmp_path / "file" / "state.db")
    (tmp_path / "state.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(BadState, match="OCTAVO_HOME"):
        State(tmp_path / "state.db")


def test_a_change_that_fails_is_undone(tmp_path):
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    keys.create("alice", Limits())
    with suppress(sqlite3.Error), state.change() as connection:
        connection.execute("DELETE FROM keys")
        connection.execute("INSERT INTO nothing VALUES (1)")
    assert keys.are_there
    with suppress(RuntimeError), state.change() as connection:
        connection.execute("DELETE FROM keys")
        raise RuntimeError
    assert keys.are_there
    state.close()


# ---- the buckets

moves = st.lists(
    st.tuples(st.floats(0, 30), st.integers(1, 15), st.integers(0, 40)), min_size=1, max_size=30
)


@examples(60)
@given(moves)
def test_never_more_than_a_bucket_and_what_flows_in(moves):
    """Whatever is asked when: in any span, at most its refill and one full bucket are granted."""
    capacity, now, limiter, key = 10, 0.0, Limiter(), made(tokens_per_minute=10)
    granted = []
    for pause, wanted, _ in moves:
        now += pause
        try:
            limiter.admit(key, wanted, now).settle(wanted, now)
            granted.append((now, wanted))
        except (RateLimited, BadRequest):
            continue
    for i, (start, _) in enumerate(granted):
        total = 0
        for end, amount in granted[i:]:
            total += amount
            assert total <= capacity + (end - start) * capacity / MINUTE + 1e-6


@examples(60)
@given(moves)
def test_after_all_is_settled_only_the_truth_was_taken(moves):
    now, limiter, key = 0.0, Limiter(), made(tokens_per_minute=10, concurrency=3)
    grants = []
    for pause, wanted, used in moves:
        now += pause
        try:
            grants.append((limiter.admit(key, wanted, now), used))
        except (RateLimited, BadRequest):
            continue
    running = len(grants)
    account = limiter.account(key, now)
    assert account.running == running <= 3
    level = account.tokens.level(now)
    for grant, used in grants:
        grant.settle(used, now)
        grant.settle(used, now)
        level = min(10.0, level + grant.reserved - used)
    assert account.running == 0
    assert account.tokens.level(now) == pytest.approx(level)


@given(st.integers(1, 10**6), st.floats(0, 1e5), st.floats(0, 1))
def test_the_forecast_is_when_it_will_be_there(capacity, now, share):
    bucket = Bucket(capacity, now)
    bucket.take(capacity, now)
    wait = bucket.seconds_until(capacity * share, now)
    assert bucket.level(now + wait) == pytest.approx(capacity * share, abs=capacity * 1e-9 + 1e-6)


def test_what_was_used_beyond_the_estimate_is_paid_back():
    limiter, key = Limiter(), made(tokens_per_minute=60)
    limiter.admit(key, 10, 0.0).settle(90, 0.0)
    with pytest.raises(RateLimited) as refused:
        limiter.admit(key, 10, 0.0)
    assert refused.value.retry_after == pytest.approx(40)
    limiter.admit(key, 10, 40.1)


def test_what_a_full_bucket_cannot_hold_is_refused_for_good():
    with pytest.raises(BadRequest, match="may take 61 tokens, the key's limit is 60"):
        Limiter().admit(made(tokens_per_minute=60), 61, 0.0)


def test_a_place_is_forecast_from_how_long_the_key_had_the_last_ones():
    limiter, key = Limiter(), made(concurrency=2)
    running = [limiter.admit(key, 1, 0.0) for _ in range(2)]
    refused = [forecast(limiter, key, 0.0)]
    for grant in running:
        grant.settle(5, 8.0)
    limiter.admit(key, 1, 8.0)
    limiter.admit(key, 1, 8.0).settle(0, 8.0)  # it did not run
    limiter.admit(key, 1, 8.0)
    refused.append(forecast(limiter, key, 9.0))
    assert refused == [UNKNOWN, 4.0]


def forecast(limiter, key, now):
    with pytest.raises(RateLimited, match="requests at a time") as refused:
        limiter.admit(key, 1, now)
    return refused.value.retry_after


def test_requests_at_a_time_end_before_others_begin():
    limiter, key = Limiter(), made(concurrency=1)
    grant = limiter.admit(key, 1, 0.0)
    with pytest.raises(RateLimited, match="1 of its 1 requests at a time"):
        limiter.admit(key, 1, 0.0)
    grant.settle(0, 0.0)
    limiter.admit(key, 1, 0.0)


@pytest.mark.parametrize(
    "limits", [{"requests_per_minute": 0}, {"tokens_per_minute": -1}, {"concurrency": 2**31}]
)
def test_limits_out_of_range_are_refused_by_name(limits):
    with pytest.raises(BadConfig, match=next(iter(limits))):
        Limits(**limits)


# ---- over a socket


def ask(url, text="", header="authorization", **fields):
    headers = {header: f"Bearer {text}" if header == "authorization" else text} if text else {}
    return httpx.post(f"{url}/v1/chat/completions", headers=headers, json=HELLO | fields)


def test_with_a_key_in_the_store_everybody_needs_one(keys):
    with serving(EchoEngine(), gate=Gate(keys)) as (_, url):
        assert ask(url).status_code == 200
        _, text = keys.create("alice", Limits())
        assert ask(url).status_code == ask(url, text + "x").status_code == 401
        assert ask(url, text).status_code == ask(url, text, "x-api-key").status_code == 200
        assert [httpx.get(url + path).status_code for path in ("/health", "/ready")] == [200, 200]
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.post(f"{url}/v1/messages").json()["error"]["type"] == "authentication_error"
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as refused,
        ):
            client.models.list()
        assert refused.value.code == "invalid_api_key"


def test_anonymous_callers_may_be_let_in_but_wrong_keys_not(keys):
    keys.create("alice", Limits())
    with serving(EchoEngine(), gate=Gate(keys, allow_anonymous=True)) as (_, url):
        assert ask(url).status_code == 200
        assert ask(url, "wrong").status_code == 401


def test_revoking_the_last_key_opens_nothing_to_others(keys):
    key, text = keys.create("alice", Limits())
    with serving(EchoEngine(), gate=Gate(keys, is_local=False)) as (_, url):
        assert ask(url, text).status_code == 200
        keys.revoke(key.id)
        assert ask(url, text).status_code == ask(url).status_code == 401
    with serving(EchoEngine(), gate=Gate(keys, allow_anonymous=True, is_local=False)) as (_, url):
        assert ask(url).status_code == ask(url, "none").status_code == 200


def test_limits_are_told_and_kept(keys):
    _, text = keys.create("alice", Limits(requests_per_minute=2, tokens_per_minute=2000))
    with serving(EchoEngine(), gate=Gate(keys)) as (_, url):
        first = ask(url, text, max_tokens=100)
        # Five of the prompt, of which one was cached, and five of the answer: 9 in the end. 33 a
        # second flow back, so that the bounds leave time for slow machines.
        assert first.headers["x-ratelimit-limit-tokens"] == "2000"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert 1991 <= int(first.headers["x-ratelimit-remaining-tokens"]) <= 2000
        second = ask(url, text, stream=True)
        assert 1470 <= int(second.headers["x-ratelimit-remaining-tokens"]) <= 1500
        third = ask(url, text)
        assert third.status_code == 429
        assert third.json()["error"]["code"] == "rate_limit_exceeded"
        assert 20 <= int(third.headers["retry-after"]) <= 30
        assert int(third.headers["retry-after-ms"]) <= 30_000
        assert third.headers["x-ratelimit-remaining-requests"] == "0"
        assert third.headers["x-ratelimit-reset-requests"].endswith("s")
        left = httpx.get(f"{url}/v1/models", headers={"x-api-key": text}).headers
        assert 1978 <= int(left["x-ratelimit-remaining-tokens"]) <= 2000


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/health", None, 200),
        ("GET", "/ready", None, 200),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/chat/completions", b"{}", 405),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b" " * (17 << 20), 413),
        ("GET", "/v1/files?limit=0", None, 400),
    ],
)
def test_limits_are_told_with_every_reply_but_to_nobody_else(keys, method, path, content, status):
    _, text = keys.create("alice", Limits(requests_per_minute=5))
    with serving(EchoEngine(), gate=Gate(keys)) as (_, url):
        ours = httpx.request(method, url + path, content=content, headers={"x-api-key": text})
        assert (ours.status_code, ours.headers["x-ratelimit-limit-requests"]) == (status, "5")
        other = httpx.request(method, url + path, content=content, headers={"x-api-key": "x"})
        assert other.status_code in (status, 401)
        assert "x-ratelimit-limit-requests" not in other.headers


@pytest.mark.parametrize(
    ("path", "prompt", "field"),
    [
        ("/v1/chat/completions", "messages", "max_tokens"),
        ("/v1/chat/completions", "messages", "max_completion_tokens"),
        ("/v1/completions", "prompt", "max_tokens"),
        ("/v1/messages", "messages", "max_tokens"),
        ("/v1/responses", "input", "max_output_tokens"),
    ],
)
def test_what_a_key_may_never_ask_is_refused_by_the_name_it_was_sent_by(keys, path, prompt, field):
    _, text = keys.create("alice", Limits(tokens_per_minute=50))
    said = "Hello" if prompt in ("prompt", "input") else HELLO["messages"]
    body = {"model": "echo", prompt: said, field: 60}
    with serving(EchoEngine(), gate=Gate(keys)) as (_, url):
        reply = httpx.post(url + path, json=body, headers={"x-api-key": text})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(f"{field}: the prompt and the answer may")


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"n": 2}])
def test_a_listener_that_raises_leaves_nothing_behind(keys, fields, caplog):
    _, text = keys.create("alice", Limits(concurrency=2))
    engine, listening = EchoEngine(), []

    class Listening:
        def __init__(self, reply):
            listening.append(self)

        def close(self):
            listening.remove(self)

    def broken(reply):
        raise ZeroDivisionError

    with serving(engine, gate=Gate(keys), listeners=[Listening, broken]) as (_, url):
        for _ in range(3):
            assert ask(url, text, **fields).status_code == 500
    assert not engine.running
    assert not listening
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_gives_its_place_back(keys):
    _, text = keys.create("alice", Limits(concurrency=1))
    with serving(EchoEngine(0.01), gate=Gate(keys)) as (_, url):
        headers, long = {"x-api-key": text}, HELLO | {"stream": True}
        long["messages"] = [{"role": "user", "content": "a" * 4000}]
        path = f"{url}/v1/chat/completions"
        with httpx.stream("POST", path, headers=headers, json=long) as reply:
            frames = reply.iter_lines()  # closed with it
            next(frames)
            refused = ask(url, text)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
        wait_until(lambda: ask(url, text).status_code == 200)


def test_what_the_engine_refuses_costs_nothing(keys):
    _, text = keys.create("alice", Limits(tokens_per_minute=1000, concurrency=1))
    full = [{"role": "user", "content": "full"}]
    with serving(EchoEngine(), gate=Gate(keys)) as (_, url):
        for _ in range(3):
            assert ask(url, text, messages=full).status_code == 429
        left = int(ask(url, text).headers["x-ratelimit-remaining-tokens"])
        assert left >= 1000 - 5 - 512


def test_a_request_is_explained_to_its_own_key_alone(keys):
    texts = [keys.create(name, Limits())[1] for name in "ab"]
    with serving(EchoEngine(), gate=Gate(keys)) as (_, url):
        asked = [{"authorization": f"Bearer {text}"} for text in texts]
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        made = httpx.post(f"{url}/v1/chat/completions", json=body, headers=asked[0]).json()["id"]
        explain = f"{url}/v1/requests/{made}/explain"
        statuses = [httpx.get(explain, headers=one).status_code for one in asked]
        assert statuses == [200, 404]


def test_a_key_can_only_be_less_urgent_than_it_is(keys):
    _, text = keys.create("batch", Limits(priority=5))
    engine = EchoEngine()
    with serving(engine, gate=Gate(keys)) as (_, url):
        for asked, got in ((None, 5), (-3, 5), (9, 9)):
            ask(url, text, priority=asked)
            assert engine.requests[-1].priority == got
        assert engine.requests[-1].tenant == keys.all()[0].id


# ---- the commands


def octavo(*arguments):
    return CliRunner().invoke(app, arguments)


def test_the_commands_make_list_and_revoke(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    assert "no keys" in octavo("keys", "list").stderr
    made = octavo("keys", "create", "alice", "--tokens-per-minute", "20000", "--priority", "2")
    text = made.stdout.strip().splitlines()[-1]
    keys = Keys(State(tmp_path / "state.db"))
    key = keys.recognise(text)
    assert key.limits == Limits(tokens_per_minute=20000, priority=2)
    listed = octavo("keys", "list").stdout
    assert all(part in listed for part in (key.id, "alice", "20,000 tokens/min", "priority 2"))
    assert text not in listed
    revoked = octavo("keys", "revoke", key.id)
    assert (revoked.exit_code, revoked.stdout) == (0, "")
    assert "alice" in revoked.stderr
    assert not keys.are_there
    assert octavo("keys", "revoke", key.id).exit_code == 2
    assert all(octavo("keys", "create", name).exit_code == 2 for name in ("", " ", "a\nb"))
    refused = octavo("keys", "create", "bob", "--concurrency", "0")
    assert refused.exit_code == 2
    assert "concurrency" in refused.output


def test_the_background_takes_no_place_and_leaves_half_of_each_bucket():
    limiter, key = Limiter(), made(tokens_per_minute=100, requests_per_minute=10, concurrency=1)
    first = limiter.admit(key, 40, 0.0, in_background=True)
    limiter.admit(key, 10, 0.0, in_background=True)
    with pytest.raises(RateLimited) as refused:
        limiter.admit(key, 10, 0.0, in_background=True)
    assert refused.value.retry_after == pytest.approx(6.0)  # until half is there beside it
    grant = limiter.admit(key, 40, 0.0)
    with pytest.raises(RateLimited, match="requests at a time"):
        limiter.admit(key, 0, 0.0)
    first.settle(0, 0.0)
    grant.settle(40, 0.0)
    assert limiter.account(key, 0.0).running == 0
