"""Bodies made to hurt: every endpoint that reads JSON refuses them and names the field.

A new endpoint is tested by existing; where it requires a field that no other does, EXAMPLES needs
a value for it.
"""

import httpx
import msgspec
import pytest

from octavo.errors import BadRequest
from octavo.registry import entry, names
from octavo.server.app import ENDPOINTS, PROTOCOLS
from octavo.server.bodies import MAX_DEPTH, MAX_DIGITS, MAX_MESSAGES, decode
from octavo.server.endpoints import apply_template, tokenize
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
