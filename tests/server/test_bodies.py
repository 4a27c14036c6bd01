"""Bodies made to hurt: every endpoint that reads JSON refuses them and names the field.

A new endpoint is tested by existing; where it requires a field that no other does, EXAMPLES needs
a value for it.
"""

import json

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import BadRequest
from octavo.registry import entry, names
from octavo.server.app import ENDPOINTS, PROTOCOLS
from octavo.server.bodies import (
    MAX_COMMAS,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_MESSAGES,
    MAX_NAMED,
    decode,
)
from octavo.server.endpoints import apply_template, tokenize
from octavo.server.marks import marks
from octavo.server.protocols import anthropic_messages, openai_chat, openai_responses

EXAMPLES = {
    "model": "echo",
    "messages": [{"role": "user", "content": "a"}],
    "max_tokens": 3,
    "tokens": [97],
    "input": "a",
    "input_file_id": "file-1",
    "endpoint": "/v1/completions",
    "completion_window": "24h",
}
NUMBERS = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1" * 400, b"1" * 5000]
HOSTILE = {
    **{number[:9]: number for number in NUMBERS},
    "a huge number in a list": b"[1, [2.5, 1e400]]",
    "not UTF-8": b'"\xff"',
    "half a pair": b'"\\ud800"',
    "a control character": b'"\n"',
    "lists": b"[" * 200 + b"]" * 200,
    "objects": b'{"a":' * 200 + b"1" + b"}" * 200,
    "lists without end": b"[" * 100_000,
    "a string without end": b'"' + b'\\"' * 500_000,
    "twice": b'1, "culprit": 1',
    "twice within": b'{"culprit": 1, "b": 2, "culprit": 3}',
}


def served():
    for folder in (PROTOCOLS, ENDPOINTS):
        for name in names(folder):
            file = entry(folder, name)
            if hasattr(file, "Body"):
                path = file.PATH if folder == PROTOCOLS else file.PATHS[0]
                yield pytest.param(file.Body, path, id=name)


SERVED = list(served())


def example(shape):
    required = [field.name for field in msgspec.structs.fields(shape) if field.required]
    return {name: EXAMPLES[name] for name in required}


@pytest.fixture(scope="module")
def http(echo):
    with httpx.Client(base_url=echo[1]) as http:
        yield http


@pytest.mark.parametrize(("shape", "path"), SERVED)
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=map(str, HOSTILE))
def test_whatever_cannot_be_meant_is_a_400_by_name(http, shape, path, hostile):
    raw = msgspec.json.encode(example(shape))[:-1]
    comma = b", " if len(raw) > 1 else b""
    reply = http.post(path, content=raw + comma + b'"culprit": ' + hostile + b"}")
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("culprit: ")


@pytest.mark.parametrize(
    ("shape", "path"), [one for one in SERVED if "model" in one.values[0].__struct_fields__]
)
@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: str(number[:9]))
def test_and_in_a_field_that_is_known(http, shape, path, number):
    reply = http.post(path, content=b'{"model": ' + number + b"}")
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("model: ")


def test_what_only_looks_hostile_is_read():
    text = '[{"' * MAX_DEPTH + "1" * (MAX_DIGITS + 1) + "1e999 NaN \\" + '"a": 1, "a": 2'
    body = example(openai_chat.Body) | {"user": text, "zzz": 10**MAX_DIGITS // 10, "y": 1.5e308}
    read, unknown = decode(msgspec.json.encode(body), openai_chat.Body)
    assert read.user == text
    assert unknown.keys() == {"zzz", "y"}


def test_as_deep_as_the_limit_is_allowed():
    for depth in (MAX_DEPTH - 1, MAX_DEPTH):
        nested = b"[" * depth + b"]" * depth
        raw = msgspec.json.encode(example(openai_chat.Body))[:-1] + b', "x": ' + nested + b"}"
        if depth < MAX_DEPTH:
            assert decode(raw, openai_chat.Body)[1].keys() == {"x"}
        else:
            with pytest.raises(BadRequest, match=f"x: it is nested deeper than {MAX_DEPTH}"):
                decode(raw, openai_chat.Body)


@pytest.mark.parametrize("file", [openai_chat, anthropic_messages, tokenize, apply_template])
def test_more_messages_than_a_conversation_has_are_refused(file):
    body = example(file.Body) | {"messages": EXAMPLES["messages"] * MAX_MESSAGES}
    decode(msgspec.json.encode(body), file.Body)
    body["messages"] = EXAMPLES["messages"] * (MAX_MESSAGES + 1)
    with pytest.raises(BadRequest, match=f"messages: .*length <= {MAX_MESSAGES}"):
        decode(msgspec.json.encode(body), file.Body)


def test_more_items_than_a_conversation_has_are_refused():
    items = [{"role": "user", "content": "a"}] * (MAX_MESSAGES + 1)
    with pytest.raises(BadRequest, match=f"input: .*length <= {MAX_MESSAGES}"):
        decode(msgspec.json.encode({"model": "echo", "input": items}), openai_responses.Body)


def with_x(value):
    return msgspec.json.encode(example(openai_chat.Body))[:-1] + b', "x": ' + value + b"}"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (b"[" + b"1," * MAX_COMMAS + b"1]", f"commas between values, the limit is {MAX_COMMAS}"),
        (b"[" + b"[]," * MAX_NAMED + b"1]", f"lists and names, the limit is {MAX_NAMED}"),
        (b"[" + b'{"a":1},' * (MAX_NAMED // 2) + b"1]", f"the limit is {MAX_NAMED}"),
    ],
    ids=["values", "lists", "names"],
)
def test_more_than_one_body_may_hold_is_refused_before_anything_is_built(value, what, monkeypatch):
    monkeypatch.setattr(msgspec.json, "decode", None)
    with pytest.raises(BadRequest, match=what):
        decode(with_x(value), openai_chat.Body)


def test_a_text_may_hold_what_it_likes_and_a_list_as_many_as_the_limit():
    text = msgspec.json.encode('a, "b": [{' * MAX_NAMED)
    assert decode(with_x(text), openai_chat.Body)[1].keys() == {"x"}
    ids = b"[" + b"1," * (MAX_COMMAS - 10) + b"1]"
    assert decode(with_x(ids), openai_chat.Body)[1].keys() == {"x"}


VALUES = st.recursive(
    st.integers() | st.text(alphabet='a"\\,:[]{}\u1234', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_marks_are_what_stands_outside_strings(value, ascii):
    text = json.dumps(value, ensure_ascii=ascii)
    decoder, place, outside = json.JSONDecoder(), 0, ""
    while place < len(text):
        if text[place] == '"':
            _, place = decoder.raw_decode(text, place)
            outside += '"'
        else:
            outside += text[place] if text[place] in "[]{},:" else ""
            place += 1
    assert marks(text.encode()).decode() == outside


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata": {"a": "b", "k": 1}}, "metadata.k: expected `str`, got `int`, '1' is not"),
        ({"metadata": {"k" * 65: ""}}, "metadata: expected `str` of length <= 64, 'kkk"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k: expected `str` of length <= 512, 'vvv"),
        ({"metadata": dict.fromkeys("abcdefghijklmnopq", "")}, "metadata: expected `object` of le"),
        ({"logit_bias": {"1": 1, "a": 1}}, "logit_bias: expected `int`, got `str`, 'a' is not"),
        ({"logit_bias": {"1": "b"}}, "logit_bias.1: expected `float`, got `str`, 'b' is not"),
    ],
)
def test_the_entry_of_an_object_is_named(fields, message):
    with pytest.raises(BadRequest) as refused:
        decode(msgspec.json.encode(example(openai_chat.Body) | fields), openai_chat.Body)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("text", [r"\ud800", r"\ud800 and more", r"\\\ud83d\ude00\udc00"])
def test_half_a_pair_is_told_as_such(text):
    raw = with_x(b'1, "stop": "' + text.encode() + b'"')
    with pytest.raises(BadRequest, match=r"^stop: \\ud[8c]00 is half of a surrogate pair"):
        decode(raw, openai_chat.Body)


def test_what_follows_a_body_lies_in_no_field():
    with pytest.raises(BadRequest, match="trailing") as refused:
        decode(with_x(b"1") + b"{}", openai_chat.Body)
    assert refused.value.field is None
