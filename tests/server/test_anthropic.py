"""Anthropic's endpoints: the official client with strict validation, the wire byte for byte, and
what is refused."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import anthropic
import httpx
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import BadRequest
from octavo.server.calls import Reply, fold
from octavo.server.protocols import anthropic_messages as protocol
from octavo.types import CallDelta, Delta, Finished, Message, Usage

GOLDEN = Path(__file__).parent / "golden"
ASK = {"model": "echo", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello ☕"}]}


def said(text, **fields):
    return ASK | {"messages": [{"role": "user", "content": text}]} | fields


@pytest.fixture(scope="module")
def client(echo):
    with anthropic.Anthropic(
        base_url=echo[1], api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def test_a_message_in_one_piece(client):
    answer = client.messages.create(**ASK)
    assert [block.text for block in answer.content] == ["Hello ☕"]
    assert (answer.role, answer.model, answer.stop_reason) == ("assistant", "echo", "end_turn")
    usage = answer.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == usage.output_tokens == 9
    assert usage.cache_read_input_tokens == 1


def test_a_message_in_a_stream(client):
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == "Hello ☕"
        answer = stream.get_final_message()
    assert [block.text for block in answer.content] == ["Hello ☕"]
    assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 9)
    assert answer.usage.cache_read_input_tokens == 1


def test_every_event_of_a_stream_is_one_the_client_knows(client):
    kinds = [event.type for event in client.messages.create(**ASK, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("fields", "reason", "stop"),
    [
        ({"stop_sequences": ["l"]}, "stop_sequence", "l"),
        ({"max_tokens": 3}, "max_tokens", None),
        ({"temperature": 0, "top_k": 0, "top_p": 0}, "end_turn", None),
        ({"metadata": {"user_id": "u"}, "service_tier": "auto"}, "end_turn", None),
        ({"thinking": {"type": "disabled"}, "tools": []}, "end_turn", None),
    ],
)
def test_why_it_ended(client, fields, reason, stop):
    answer = client.messages.create(**ASK, extra_body=fields)
    assert (answer.stop_reason, answer.stop_sequence) == (reason, stop)


def test_a_system_prompt_and_blocks_of_text_become_messages():
    text = {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}, "citations": None}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [text, text]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": ""},
    ]
    call = parse(messages=turns, system=[{"type": "text", "text": "s"}])
    assert call.prompts[0].messages == (
        Message("system", "s"),
        Message("user", "a\nb\nb"),
        Message("assistant", "c"),
        Message("user", ""),
    )
    assert not call.ignored


def test_tokens_are_counted_without_an_answer(echo, client):
    before = len(echo[0].requests)
    counted = client.messages.count_tokens(model="echo", messages=ASK["messages"])
    assert counted.input_tokens == 9
    assert len(echo[0].requests) == before


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content[0].text"),
        ({"messages": [{"role": "assistant", "content": "I"}]}, "messages[0].role"),
        ({"system": [{"type": "document"}]}, "system[0].type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"tools": [{"name": "f"}]}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"stop_sequences": ["x"] * 33}, "stop_sequences"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(client, fields, field):
    body = {name: value for name, value in (ASK | fields).items() if value is not None}
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.post("/v1/messages", cast_to=object, body=body)
    said = refused.value.body
    assert (said["type"], said["error"]["type"]) == ("error", "invalid_request_error")
    assert field in said["error"]["message"]


def test_a_thread_is_refused_in_the_words_its_clients_fall_back_on(echo):
    body = ASK | {"thread": {"type": "continue", "previous_message_id": "msg_1"}}
    details = httpx.post(f"{echo[1]}/v1/messages", json=body).json()["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def test_errors_have_their_types(client):
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(**(ASK | {"model": "claude"}))
    with pytest.raises(anthropic.RateLimitError) as full:
        client.messages.create(**said("full"))
    with pytest.raises(anthropic.InternalServerError) as failed:
        client.messages.create(**said("?"))
    kinds = [e.value.body["error"]["type"] for e in (unknown, full, failed)]
    assert kinds == ["not_found_error", "rate_limit_error", "api_error"]


def test_a_stream_that_fails_says_so_in_an_event(client):
    with (
        pytest.raises(anthropic.APIStatusError) as failed,
        client.messages.stream(**said("ab?")) as stream,
    ):
        list(stream)
    assert failed.value.body["error"]["type"] == "api_error"


def test_the_ids_name_is_in_the_header_too(client):
    raw = client.messages.with_raw_response.create(**ASK)
    assert raw.headers["request-id"] == raw.parse().id


def test_unknown_fields_are_named(echo):
    reply = httpx.post(f"{echo[1]}/v1/messages", json=ASK | {"tempo": 1})
    assert reply.headers["x-octavo-ignored"] == "tempo"


# ---- as pure functions

END = Finished("stop", Usage(7, 5, 4), seed=42)


def parse(**fields):
    return protocol.parse(json.dumps(ASK | fields).encode())


def reply_to(**fields):
    return Reply(parse(**fields), "msg_1", 1, "fp_1", ((72, 105, 1, 2, 3, 4, 5),), None)


def stream(events):
    async def numbered():
        for event in events:
            yield 0, event

    async def frames():
        return [one.encode() async for one in protocol.chunks(reply_to(stream=True), numbered())]

    return b"".join(asyncio.run(frames()))


def whole(events):
    return protocol.whole(reply_to(), [fold(events)])


def test_the_wire_byte_for_byte(golden):
    events = [Delta("Hel", (1, 2, 3)), Delta("", (4,)), Delta("lo ☕", (5,)), END]
    golden(GOLDEN / "anthropic_messages.sse", stream(events))
    golden(GOLDEN / "anthropic_messages.json", whole(events))


@pytest.mark.parametrize("reason", ["error", "cancelled"])
def test_a_message_that_did_not_end_well_byte_for_byte(golden, reason):
    events = [Delta("Hel", (1,)), Finished(reason, Usage(1, 1, 0), seed=1, error="out of luck")]
    golden(GOLDEN / f"anthropic_messages_{reason}.sse", stream(events))


@pytest.mark.parametrize(
    ("arguments", "is_told"),
    [('{"x": 28e7041115}', True), ('{"x": ' + "1" * 5000 + "}", True), ('{"x": 28e7', False)],
)
def test_a_call_is_told_whatever_its_numbers_unless_it_was_cut_short(arguments, is_told):
    calls = (CallDelta(0, arguments, "id0", "look"),)
    said = whole([Delta("", (1,), calls=calls), END])
    assert (b'"input":' + arguments.encode() in said) is is_told
    assert (b'"type":"tool_use"' in said) is is_told


def test_the_end_of_the_context_is_not_max_tokens():
    end = Finished("length", Usage(7, 5, 4), seed=42)
    assert json.loads(whole([end]))["stop_reason"] == "model_context_window_exceeded"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@examples(30)
@given(st.lists(texts, max_size=6))
def test_stream_and_whole_say_the_same(parts):
    events = [*(Delta(part, (72,)) for part in parts), END]
    sent = [
        json.loads(frame.split(b"\ndata: ")[1]) for frame in stream(events).split(b"\n\n") if frame
    ]
    message = sent[0]["message"]
    for event in sent[1:]:
        match event["type"]:
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "content_block_delta":
                message["content"][event["index"]]["text"] += event["delta"]["text"]
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    assert message == json.loads(whole(events))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(protocol.Body.__struct_fields__), json_values)
def test_any_value_in_any_field_is_taken_or_refused(field, value):
    with suppress(BadRequest):
        parse(**{field: value})
