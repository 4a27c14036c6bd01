"""OpenAI's Responses over a real socket: made, kept, run in the background, found again."""

import asyncio
import sqlite3

import httpx
import openai
import pytest
from asking import PATH, asked, polled, strict
from echoes import EchoEngine
from serving import serving, wait_until

from octavo.server.archive import Archive
from octavo.server.gate import Gate
from octavo.server.keys import Keys, Limits
from octavo.server.protocols._openai_output import Output
from octavo.server.state import State

HEX = "0" * 32


@pytest.fixture(scope="module")
def client(echo):
    with strict(echo[1]) as client:
        yield client.responses


@pytest.fixture(scope="module")
def pacing(slow):
    with strict(slow[1]) as client:
        yield client.responses


@pytest.fixture(scope="module")
def http(echo):
    with httpx.Client(base_url=echo[1]) as http:
        yield http


# ---- made


def test_a_response_in_one_piece(client):
    made = client.create(**asked(), top_logprobs=2, metadata={"a": "b"})
    assert (made.output_text, made.status, made.error) == ("Hello ☕", "completed", None)
    assert len(made.output[0].content[0].logprobs) == made.usage.output_tokens == 9
    assert made.usage.input_tokens_details.cached_tokens == 1
    assert made.metadata == {"a": "b"}
    assert client.retrieve(made.id) == made


def test_a_response_in_a_stream(client):
    events = list(client.create(**asked(), stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello ☕"
    assert events[-1].response.output_text == "Hello ☕"
    assert client.retrieve(events[-1].response.id) == events[-1].response


def test_the_clients_own_stream_helper_follows(client):
    with client.stream(**asked()) as stream:
        made = stream.get_final_response()
    assert made.output_text == "Hello ☕"
    with client.stream(response_id=made.id, starting_after=2) as stream:
        events = list(stream)
        assert events[0].sequence_number == 3
        assert stream.get_final_response().output_text == "Hello ☕"


def test_a_response_cut_short_says_why(client):
    made = client.create(**asked(), max_output_tokens=2)
    assert (made.status, made.output_text) == ("incomplete", "He")
    assert made.incomplete_details.reason == "max_output_tokens"


def test_a_request_without_a_seed_is_told_the_one_it_got(echo, client):
    made = client.create(**asked())
    assert made.seed == echo[0].requests[-1].params.seed
    assert client.create(**asked(), extra_body={"seed": 7}).seed == 7


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_are_the_clients_own_exceptions(echo, client, stream):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.create(**asked(), temperature=-1, stream=stream)
    assert refusal.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.create(**asked() | {"model": "gpt-9"}, stream=stream)
    with pytest.raises(openai.RateLimitError):
        client.create(**asked("full"), stream=stream)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.create(**asked("a" * 9000), stream=stream)
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "input")
    assert not echo[0].running


def test_an_engine_that_fails_is_an_error_and_kept_as_one(echo, client):
    with pytest.raises(openai.InternalServerError):
        client.create(**asked("ab?"))
    *_, last = client.create(**asked("ab?"), stream=True)
    assert (last.type, last.response.error.code) == ("response.failed", "server_error")
    kept = client.retrieve(last.response.id)
    assert (kept.status, kept.output_text) == ("failed", "ab")
    with pytest.raises(openai.BadRequestError, match="is failed"):
        client.create(**asked(), previous_response_id=kept.id)
    assert not echo[0].running


def test_what_is_not_stored_cannot_be_found(client):
    made = client.create(**asked(), store=False)
    assert (made.output_text, made.store) == ("Hello ☕", False)
    *_, last = client.create(**asked(), store=False, stream=True)
    assert last.response.output_text == "Hello ☕"
    for id in (made.id, last.response.id):
        with pytest.raises(openai.NotFoundError):
            client.retrieve(id)


def test_codex_is_served(http):
    body = asked(
        [
            {"type": "message", "role": "developer", "content": "x"},
            {"role": "user", "content": "y"},
        ],
        **{"store": False, "stream": True, "include": ["reasoning.encrypted_content"]},
        **{"instructions": "z", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        **{"reasoning": None, "prompt_cache_key": "k", "client_metadata": {"a": "b"}},
    )
    reply = http.post(PATH, json=body)
    assert reply.status_code == 200
    assert reply.headers["x-octavo-ignored"] == "client_metadata"
    assert "response.completed" in reply.text


# ---- gone on from


def test_a_conversation_goes_on_without_being_sent_again():
    engine = EchoEngine()
    rendered = []

    def render(messages, tools):
        rendered.append(messages)
        return messages[-1]["content"]

    engine.tokenizer.render = render
    with serving(engine) as (_, url), strict(url) as client:
        create = client.responses.create
        one = create(**asked("one"), instructions="first")
        two = create(**asked("two"), previous_response_id=one.id, instructions="second")
        create(**asked("three"), previous_response_id=two.id)
        reference = {"type": "item_reference", "id": one.output[0].id}
        create(**asked([reference, {"role": "user", "content": "four"}]))
        items = client.responses.input_items.list(two.id)
        create(**asked([{"type": "item_reference", "id": items.data[0].id}]))
    said = [[(m["role"], m["content"]) for m in messages] for messages in rendered]
    assert said == [
        [("system", "first"), ("user", "one")],
        [("system", "second"), ("user", "one"), ("assistant", "one"), ("user", "two")],
        [(role, text) for text in ("one", "two") for role in ("user", "assistant")]
        + [("user", "three")],
        [("assistant", "one"), ("user", "four")],
        [("user", "two")],
    ]
    assert two.previous_response_id == one.id


def test_what_cannot_be_gone_on_from_is_refused_by_name(client, pacing):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.create(**asked(), previous_response_id="resp_" + HEX)
    assert refusal.value.code == "previous_response_not_found"
    assert refusal.value.param == "previous_response_id"
    for id in ("msg_" + HEX, "msg_", "x", "msg_" + "x" * 10_000):
        with pytest.raises(openai.BadRequestError) as refusal:
            client.create(**asked([{"type": "item_reference", "id": id}]))
        assert refusal.value.param == "input[0].id"
    running = pacing.create(**asked("x" * 500), background=True)
    with pytest.raises(openai.BadRequestError, match="not ended"):
        pacing.create(**asked(), previous_response_id=running.id)
    pacing.cancel(running.id)


def test_a_conversation_of_which_a_part_was_deleted_cannot_be_gone_on_from(client):
    one = client.create(**asked("one"))
    two = client.create(**asked("two"), previous_response_id=one.id)
    client.delete(one.id)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.create(**asked("three"), previous_response_id=two.id)
    assert refusal.value.code == "previous_response_not_found"


def test_a_conversation_may_be_shortened_to_fit():
    engine = EchoEngine()
    engine.max_context = 100
    engine.tokenizer.render = lambda messages, tools: "".join(m["content"] for m in messages)
    turns = [
        {"role": r, "content": t * 30}
        for r, t in zip(["user", "assistant"] * 3, "abcdef", strict=True)
    ]
    turns.append({"role": "user", "content": "last"})
    with serving(engine) as (_, url), strict(url) as client:
        create = client.responses.create
        with pytest.raises(openai.BadRequestError):
            create(**asked(turns), instructions="sys")
        made = create(**asked(turns), instructions="sys", truncation="auto", max_output_tokens=5)
        assert (
            bytes(engine.requests[-1].prompt_ids).decode() == "sys" + "e" * 30 + "f" * 30 + "last"
        )
        assert made.truncation == "auto"
        create(**asked(turns), instructions="sys", truncation="auto", max_output_tokens=90)
        assert len(engine.requests[-1].prompt_ids) == 67  # a quarter is left for the answer
        with pytest.raises(openai.BadRequestError) as refusal:
            create(**asked("x" * 101), truncation="auto")
        assert refusal.value.param == "input"


# ---- found again


def test_input_items_page_by_page(client):
    texts = [str(k) for k in range(45)]
    made = client.create(**asked([{"role": "user", "content": text} for text in texts]))

    def listed(**options):
        return [item.content[0].text for item in client.input_items.list(made.id, **options)]

    assert listed() == texts[::-1]
    assert listed(order="asc", limit=7) == texts
    page = client.input_items.list(made.id, order="asc", limit=10)
    assert (len(page.data), page.has_more) == (10, True)
    assert listed(order="asc", after=page.data[-1].id) == texts[10:]
    assert listed(after=page.data[2].id) == texts[1::-1]
    assert listed(order="asc", after=client.input_items.list(made.id).data[0].id) == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=1e3", "order=up", "after=msg_0", "include[]=all"],
)
def test_pages_that_are_none_are_refused_by_name(client, http, query):
    made = client.create(**asked())
    reply = http.get(f"{PATH}/{made.id}/input_items?{query}")
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith(query.split("=")[0].removesuffix("[]"))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=" + "9" * 400, "starting_after"),
        ("stream=perhaps", "stream"),
        ("starting_after=3", "starting_after"),
        ("stream=true&starting_after=9999", "starting_after"),
        ("include_obfuscation=true", "include_obfuscation"),
        ("include=everything", "include"),
    ],
)
def test_what_cannot_be_retrieved_so_is_refused_by_name(client, http, query, param):
    made = client.create(**asked())
    reply = http.get(f"{PATH}/{made.id}?{query}")
    assert (reply.status_code, reply.json()["error"]["param"][: len(param)]) == (400, param)


def test_what_a_query_may_say_beside(client, http):
    made = client.create(**asked())
    query = "include[]=message.output_text.logprobs&include[]=web_search_call.results&mood=good"
    reply = http.get(f"{PATH}/{made.id}?{query}&stream=false&include_obfuscation=false")
    assert (reply.status_code, reply.json()["id"]) == (200, made.id)
    assert reply.headers["x-octavo-ignored"] == "mood"


def test_what_was_deleted_is_gone(client, http):
    made = client.create(**asked())
    reply = http.delete(f"{PATH}/{made.id}")
    assert reply.json() == {"id": made.id, "object": "response", "deleted": True}
    for method, path in (
        ("GET", ""),
        ("GET", "?stream=true"),
        ("DELETE", ""),
        ("GET", "/input_items"),
        ("POST", "/cancel"),
    ):
        gone = http.request(method, f"{PATH}/{made.id}{path}")
        assert (gone.status_code, gone.json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize("id", ["resp_" + "x" * 5000, "%00", "%F0%9F%92%A9", "'; DROP TABLE"])
def test_ids_that_are_none_are_not_found(http, id):
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        assert http.request(method, f"{PATH}/{id}{path}").status_code == 404


# ---- in the background


def test_in_the_background_it_is_polled_for(pacing, slow):
    made = pacing.create(**asked("a" * 30), background=True)
    assert made.status in ("queued", "in_progress")
    assert (made.output, made.background) == ([], True)
    done = polled(pacing, made.id)
    assert (done.status, done.output_text) == ("completed", "a" * 30)
    told = httpx.get(f"{slow[1]}/v1/requests/{made.id}/explain").json()
    assert told["choices"][0]["tokens"]["completion"] == 30


@pytest.mark.thorough
def test_in_the_background_it_outlives_its_connection(pacing, slow):
    stream = pacing.create(**asked("a" * 50), background=True, stream=True)
    made = next(stream).response
    stream.close()
    assert polled(pacing, made.id).output_text == "a" * 50
    assert not slow[0].running


def test_elsewhere_it_does_not(pacing, slow):
    stream = pacing.create(**asked("a" * 1000), stream=True)
    made = next(stream).response
    stream.close()
    wait_until(lambda: not slow[0].running)
    left = polled(pacing, made.id)
    assert left.status == "cancelled"
    assert len(left.output_text) < 1000


def test_cancelled_in_the_background(pacing, slow):
    stream = pacing.create(**asked("a" * 1000), background=True, stream=True)
    made = next(stream).response
    wait_until(lambda: pacing.retrieve(made.id).status == "in_progress")
    done = pacing.cancel(made.id)
    assert (done.status, done.background) == ("cancelled", True)
    assert not slow[0].running
    *_, last = stream
    assert (last.type, last.response) == ("response.incomplete", done)
    assert pacing.cancel(made.id) == pacing.retrieve(made.id) == done
    *_, again = pacing.retrieve(made.id, stream=True)
    assert again == last
    pacing.delete(made.id)


def test_only_the_background_is_cancelled(client):
    made = client.create(**asked())
    with pytest.raises(openai.BadRequestError) as refusal:
        client.cancel(made.id)
    assert refusal.value.param == "id"


def test_a_bug_of_ours_ends_it_for_all_who_read(pacing, slow, monkeypatch):
    stream = pacing.create(**asked("a" * 1000), background=True, stream=True)
    made = next(stream).response
    monkeypatch.setattr(Output, "hear", None)
    *_, last = stream
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert list(pacing.retrieve(made.id, stream=True))[-1] == last
    assert pacing.retrieve(made.id) == last.response
    wait_until(lambda: not slow[0].running)


def test_what_cannot_be_kept_does_not_run_in_the_background(pacing, slow, monkeypatch):
    def full(archive, record):
        raise sqlite3.OperationalError("database or disk is full")

    for verb in ("open", "close"):
        monkeypatch.setattr(Archive, verb, full)
    with pytest.raises(openai.InternalServerError):
        pacing.create(**asked("a" * 1000), background=True)
    wait_until(lambda: not slow[0].running)


def test_deleted_while_it_runs(pacing, slow):
    made = pacing.create(**asked("a" * 1000), background=True)
    pacing.delete(made.id)
    assert not slow[0].running
    with pytest.raises(openai.NotFoundError):
        pacing.retrieve(made.id)


def test_for_every_place_and_moment_the_rest_of_a_stream_is_its_rest(slow):
    """Readers that join at any time, from any event on, while it runs and afterwards."""

    async def one(client, id, start, after):
        await asyncio.sleep(after)
        options = {} if start == 0 else {"starting_after": start - 1}
        stream = await client.responses.retrieve(id, stream=True, **options)
        return start, [event async for event in stream]

    async def scene():
        async with openai.AsyncOpenAI(
            base_url=f"{slow[1]}/v1", api_key="none", _strict_response_validation=True
        ) as client:
            made = await client.responses.create(**asked("a" * 20), background=True)
            joins = [(s, t) for s in range(0, 30, 3) for t in (0, 0.05, 0.12, 0.4)]
            rests = await asyncio.gather(*(one(client, made.id, s, t) for s, t in joins))
            whole = [e async for e in await client.responses.retrieve(made.id, stream=True)]
        assert [event.sequence_number for event in whole] == list(range(29))
        for start, rest in rests:
            assert rest == whole[start:]

    asyncio.run(scene())


def test_a_reader_may_name_the_last_event_it_heard(client, http):
    made = client.create(**asked())
    whole = http.get(f"{PATH}/{made.id}?stream=true").text
    heard, rest = whole[: whole.index("id: 5")], whole[whole.index("id: 5") :]
    again = http.get(f"{PATH}/{made.id}?stream=true", headers={"Last-Event-ID": "4"}).text
    assert heard + again == whole
    assert again == rest
    wrong = http.get(f"{PATH}/{made.id}?stream=true", headers={"Last-Event-ID": "x"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "Last-Event-ID")


# ---- keys


def test_a_response_is_its_keys_own(tmp_path):
    keys = Keys(State(tmp_path / "keys.db"))
    (alice, first), (_, second) = (keys.create(n, Limits(concurrency=1)) for n in ("a", "b"))
    engine = EchoEngine(0.01)
    with serving(engine, gate=Gate(keys)) as (_, url), strict(url, first) as owner:
        mine = owner.responses
        running = mine.create(**asked("a" * 1000), background=True)
        with strict(url, second) as other:
            theirs = other.responses
            for call in (theirs.retrieve, theirs.cancel, theirs.delete, theirs.input_items.list):
                with pytest.raises(openai.NotFoundError):
                    call(running.id)
        assert engine.requests[-1].tenant == alice.id
        with pytest.raises(openai.RateLimitError):
            mine.create(**asked())
        mine.cancel(running.id)
        made = mine.create(**asked("ab"))
        with strict(url, second) as other:
            with pytest.raises(openai.NotFoundError):
                other.responses.retrieve(made.id)
            with pytest.raises(openai.BadRequestError):
                other.responses.create(**asked(), previous_response_id=made.id)
            reference = {"type": "item_reference", "id": made.output[0].id}
            with pytest.raises(openai.BadRequestError):
                other.responses.create(**asked([reference]))
