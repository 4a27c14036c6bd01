"""Tools and thoughts over HTTP, as OpenAI's client hears them, and the wire byte for byte."""

import asyncio
import json
import re
from pathlib import Path

import httpx
import openai
import pytest
from callers import ARGUMENTS, THINK, TOOL, USER, ask, message, rendered
from dialects import LOOK
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from octavo.errors import BadRequest
from octavo.server.calls import Reply, fold
from octavo.server.protocols import anthropic_messages, openai_chat
from octavo.types import CallDelta, Delta, Finished, ToolCall, Usage

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def client(thinker):
    with openai.OpenAI(
        base_url=f"{thinker[1]}/v1",
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


# ---- chat completions


def test_calls_in_one_piece(client):
    (choice,) = client.chat.completions.create(**ask()).choices
    calls = choice.message.tool_calls
    assert [call.function.arguments for call in calls] == ARGUMENTS
    assert {call.function.name for call in calls} == {"look"}
    assert [call.id for call in calls] == ["call_id0", "call_id1"]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    assert choice.message.reasoning_content == "hm"


def test_calls_without_text_have_null_for_content_and_text_alone_has_no_calls(thinker):
    def message(content):
        body = ask(messages=[{"role": "user", "content": content}])
        reply = httpx.post(f"{thinker[1]}/v1/chat/completions", json=body).json()
        return reply["choices"][0]["message"]

    call = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
    assert message(call)["content"] is None
    assert message("Hello").keys() == {"role", "content", "refusal"}


def test_calls_in_a_stream(client):
    chunks = list(client.chat.completions.create(**ask(stream=True)))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    parts = [call for delta in deltas for call in delta.tool_calls or ()]
    heads = [part for part in parts if part.id]
    assert [(part.index, part.id, part.type, part.function.name) for part in heads] == [
        (0, "call_id0", "function", "look"),
        (1, "call_id1", "function", "look"),
    ]
    for index, whole in enumerate(ARGUMENTS):
        said = [part.function.arguments for part in parts if part.index == index]
        assert "".join(said) == whole
        assert all(isinstance(part, str) for part in said)
    assert all(part.function.name is None for part in parts if not part.id)
    assert [c.choices[0].finish_reason for c in chunks][-2:] == [None, "tool_calls"]


def test_the_clients_own_helper_hears_the_same(client):
    with client.chat.completions.stream(**ask()) as stream:
        kinds = {event.type for event in stream}
        (choice,) = stream.get_final_completion().choices
    assert "tool_calls.function.arguments.done" in kinds
    assert [call.function.arguments for call in choice.message.tool_calls] == ARGUMENTS
    assert choice.finish_reason == "tool_calls"


class look(BaseModel):
    at: str = ""
    deep: bool = False


def test_parse_makes_objects_of_arguments(client):
    tool = openai.pydantic_function_tool(look, name="look")
    answer = client.chat.completions.parse(**ask(tools=[tool]))
    calls = answer.choices[0].message.tool_calls
    assert [call.function.parsed_arguments for call in calls] == [look(at="é\n", deep=True), look()]


def test_calls_and_results_come_back_in(thinker, client):
    answer = client.chat.completions.create(**ask()).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "name": "look", "content": [part("a")]}
        for call in answer.tool_calls
    ]
    untyped = answer.model_dump()
    untyped["tool_calls"][0]["type"] = None
    del untyped["tool_calls"][1]["type"]
    told = []
    for sent in (answer, untyped):
        client.chat.completions.create(**ask(messages=[USER, sent, *results]))
        told.append(rendered(thinker[0])["messages"])
    assert told[0] == told[1]
    user, said, first, second = told[0]
    assert (said["content"], said["reasoning_content"]) == ("Let me see.", "hm")
    assert [call["function"]["arguments"] for call in said["tool_calls"]] == [
        json.loads(arguments) for arguments in ARGUMENTS
    ]
    assert [first["tool_call_id"], second["tool_call_id"]] == ["call_id0", "call_id1"]
    assert (first["role"], first["content"]) == ("tool", "a")
    assert user == USER


def part(text):
    return {"type": "text", "text": text}


def named(name):
    return {"type": "function", "function": {"name": name}}


OTHER = {"type": "function", "function": {"name": "other"}}
ALLOWED = {"mode": "required", "tools": [named("other")]}


@pytest.mark.parametrize(
    ("fields", "callable", "is_required", "is_parallel"),
    [
        ({}, ("look", "other"), False, True),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, ("look", "other"), False, False),
        ({"tool_choice": "required"}, ("look", "other"), True, True),
        ({"tool_choice": named("other")}, ("other",), True, False),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED}},
            ("other",),
            True,
            True,
        ),
        ({"parallel_tool_calls": True, "tool_choice": None}, ("look", "other"), False, True),
    ],
)
def test_which_tools_may_be_called(fields, callable, is_required, is_parallel):
    body = ask(tools=[TOOL, OTHER]) | fields
    (chat,) = openai_chat.parse(json.dumps(body).encode()).prompts
    assert [tool.name for tool in chat.tools.all] == ["look", "other"], "all are shown"
    assert chat.tools.callable == callable
    assert (chat.tools.is_required, chat.tools.is_parallel) == (is_required, is_parallel)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NO_OBJECT = {"name": "f", "arguments": "[]"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages[0].tool_call_id", [{"role": "tool", "content": "x"}]),
        ("messages[0].tool_call_id", [{"role": "tool", "content": "x", "tool_call_id": "c"}]),
        ("messages[0].tool_calls", [USER | {"tool_calls": [CALL]}]),
        ("messages[0].tool_calls[0]", [{"role": "assistant", "tool_calls": [{"id": "1"}]}]),
        (
            "messages[0].tool_calls[0].function.arguments",
            [
                {
                    "role": "assistant",
                    "tool_calls": [CALL | {"function": {"name": "f", "arguments": "[]"}}],
                }
            ],
        ),
        ("tools[0].type", [{"type": "custom", "custom": {"name": "f"}}]),
        ("tools[0].function", [{"type": "function"}]),
        ("tools[0].function.name", [{"type": "function", "function": {"name": "a b"}}]),
        (
            "tools[0].function.parameters",
            [{"type": "function", "function": {"name": "f", "parameters": 1}}],
        ),
        (
            "tools[0].function.parameters.type",
            [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}],
        ),
        ("tools[1].function.name", [{"type": "function", "function": {"name": "f"}}] * 2),
        ("tool_choice", "always"),
        ("tool_choice", {"type": "custom", "custom": {"name": "f"}}),
        ("tool_choice.function", {"type": "function"}),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("tool_choice.allowed_tools", named("f") | {"allowed_tools": ALLOWED}),
        (
            "tool_choice.function",
            named("f") | {"type": "allowed_tools", "allowed_tools": ALLOWED},
        ),
        ("tool_choice.allowed_tools", {"type": "allowed_tools"}),
        (
            "tool_choice.allowed_tools.tools[0]",
            {"type": "allowed_tools", "allowed_tools": ALLOWED | {"tools": [{"type": "custom"}]}},
        ),
        ("reasoning.max_tokens", {"max_tokens": -1}),
        ("reasoning.max_tokens", {"effort": "none", "max_tokens": 5}),
        ("tool_choice", "required"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field, value):
    body = {"model": "echo", "messages": [USER]} | {re.split(r"[.\[]", field)[0]: value}
    with pytest.raises(BadRequest) as refused:
        openai_chat.parse(json.dumps(body).encode())
    assert refused.value.field == field


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tools": []}, {"tools": None}])
def test_where_no_tool_may_be_called_none_is(client, fields):
    (choice,) = client.chat.completions.create(**ask(**fields)).choices
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert choice.message.content.startswith("Let me see.\n<tool_call>")


@pytest.mark.parametrize(
    "fields", [{}, {"tool_choice": "required"}, {"tool_choice": named("look")}]
)
def test_tools_reach_the_engine_as_a_grammar(thinker, client, fields):
    client.chat.completions.create(**ask(**fields))
    constraint = thinker[0].requests[-1].params.constraint
    assert constraint.kind == "reply"
    assert "look" in constraint.text


def test_a_schema_that_is_not_enforced_is_refused_by_the_tool_and_the_keyword(client):
    bad = {"type": "object", "properties": {"a": {"type": "string", "contentEncoding": "base64"}}}
    tools = [TOOL, {"type": "function", "function": {"name": "f", "parameters": bad}}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ask(tools=tools))
    assert refused.value.param == "tools[1].function.parameters"
    assert "'contentEncoding' at $.properties.a" in refused.value.message


def test_five_hundred_tools_in_one_request(client):
    hard = 'a "b" {c} </tool_call> <|im_end|> \\ é\n' * 3
    tools = [
        {"type": "function", "function": TOOL["function"] | {"name": f"f{i}", "description": hard}}
        for i in range(499)
    ]
    answer = client.chat.completions.create(**ask(tools=[*tools, TOOL]))
    assert len(answer.choices[0].message.tool_calls) == 2


# ---- thoughts in chat completions


@pytest.mark.parametrize(
    ("fields", "most", "extra"),
    [
        ({}, None, {}),
        ({"reasoning": {"max_tokens": 7}}, 7, {}),
        ({"reasoning_effort": "low"}, None, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": "low", "max_tokens": 9}}, 9, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, 0, {"enable_thinking": False}),
    ],
)
def test_how_much_to_think_is_told_to_template_and_engine(thinker, client, fields, most, extra):
    client.chat.completions.create(model="echo", messages=[USER], extra_body=fields)
    assert thinker[0].requests[-1].reading.max_thought == most
    known = {name: value for name, value in rendered(thinker[0]).items() if name not in SHOWN}
    assert known == extra


SHOWN = ("messages", "tools")


def test_thoughts_are_counted(client):
    usage = client.chat.completions.create(model="echo", messages=[USER]).usage
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
    ],
)
def test_a_model_that_does_not_reason_refuses_by_name(echo, fields, field):
    body = {"model": "echo", "messages": [USER], **fields}
    error = httpx.post(f"{echo[1]}/v1/chat/completions", json=body).json()["error"]
    assert error["param"] == field
    plain = {"model": "echo", "messages": [USER], "reasoning_effort": "none"}
    assert httpx.post(f"{echo[1]}/v1/chat/completions", json=plain).status_code == 200


@pytest.mark.parametrize("path", ["/tokenize", "/apply-template"])
def test_the_engines_own_endpoints_take_tools(thinker, path):
    assert httpx.post(thinker[1] + path, json={"messages": [USER], "tools": [TOOL]}).is_success
    assert rendered(thinker[0])["tools"] == [
        {"type": "function", "function": {"name": "look", "parameters": LOOK}}
    ]


# ---- as pure functions

END = Finished("tool_calls", Usage(7, 5, 4, 2), seed=42)
EVENTS = [
    Delta("", (1,), reasoning="h"),
    Delta("", (2,), reasoning="m"),
    Delta("Let me see.", (3,), calls=(CallDelta(0, "{", "id0", "look"),)),
    Delta("", (4,)),
    Delta("", (5,), calls=(CallDelta(0, '"a": 1}'), CallDelta(1, "{}", "id1", "look"))),
    END,
]
ASKED = {openai_chat: ask, anthropic_messages: lambda **more: message(thinking=THINK, **more)}
PROTOCOLS = pytest.mark.parametrize("protocol", ASKED, ids=lambda p: p.__name__.split(".")[-1])


def reply_to(protocol, **fields):
    call = protocol.parse(json.dumps(ASKED[protocol](**fields)).encode())
    return Reply(call, f"{protocol.PREFIX}1", 1, "fp_1", ((72, 105),), None)


def stream(protocol, events):
    async def numbered():
        for event in events:
            yield 0, event

    async def frames():
        reply = reply_to(protocol, stream=True)
        return [frame.encode() async for frame in protocol.chunks(reply, numbered())]

    return b"".join(asyncio.run(frames()))


def whole(protocol, events):
    return protocol.whole(reply_to(protocol), [fold(events)])


@PROTOCOLS
def test_the_wire_byte_for_byte(golden, protocol):
    name = f"{protocol.__name__.split('.')[-1]}_tools"
    golden(GOLDEN / f"{name}.sse", stream(protocol, EVENTS))
    golden(GOLDEN / f"{name}.json", whole(protocol, EVENTS))


def test_half_an_input_is_no_block():
    events = [
        Delta("", (1,), calls=(CallDelta(0, '{"a": ', "id0", "look"),)),
        Finished("length", Usage(7, 2000, 4), seed=42),
    ]
    said = json.loads(whole(anthropic_messages, events))
    assert (said["content"], said["stop_reason"]) == ([], "max_tokens")


pieces = st.text('{}"a: 1é', min_size=1, max_size=4)


@examples(30)
@given(st.lists(pieces, max_size=5), st.lists(pieces, max_size=3))
def test_a_stream_of_calls_joins_to_the_whole(first, second):
    events = [Delta("", (1,), calls=(CallDelta(0, "", "a", "look"),))]
    events += [Delta("", (1,), calls=(CallDelta(0, text),)) for text in first]
    events += [Delta("", (1,), calls=(CallDelta(1, "".join(second), "b", "look"),)), END]
    chunks = [
        json.loads(line[6:]) for line in stream(openai_chat, events).decode().split("\n\n")[:-2]
    ]
    said = {0: "", 1: ""}
    for chunk in chunks:
        for call in chunk["choices"][0]["delta"].get("tool_calls", ()):
            said[call["index"]] += call["function"]["arguments"]
    calls = json.loads(whole(openai_chat, events))["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == list(said.values())


def test_an_answer_is_folded():
    answer = fold(EVENTS)
    assert (answer.reasoning, answer.text) == ("hm", "Let me see.")
    assert answer.calls == (ToolCall("id0", "look", '{"a": 1}'), ToolCall("id1", "look", "{}"))
