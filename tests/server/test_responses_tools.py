"""Tools and thoughts in Responses, as OpenAI's client hears them, kept and gone on from."""

import asyncio
import json
from pathlib import Path

import httpx
import openai
import pytest
from callers import ARGUMENTS, SAYS, TEMPLATE, rendered
from dialects import LOOK
from echoes import EchoEngine
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from serving import serving

from octavo.errors import BadRequest
from octavo.server.calls import Reply, fold
from octavo.server.protocols import openai_responses as wire
from octavo.types import CallDelta, Delta, Finished, Usage

GOLDEN = Path(__file__).parent / "golden"
EVENT = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "look", "parameters": LOOK, "strict": True}
KINDS = ["reasoning", "message", "function_call", "function_call"]


SEARCH = {"type": "web_search"}
CALL = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "a"}
ITEMS = {
    "c": CALL,
    "o": RESULT,
    "m": {"role": "assistant", "content": "m"},
    "r": {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "r"}]},
    "s": {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
    "e": {"type": "reasoning", "summary": [], "content": []},
}


def ask(**fields):
    return {"model": "echo", "input": SAYS, "tools": [TOOL]} | fields


@pytest.fixture(scope="module")
def engine():
    return EchoEngine(template=TEMPLATE)


@pytest.fixture(scope="module")
def client(engine):
    with (
        serving(engine) as (_, url),
        openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
        ) as client,
    ):
        yield client


def check(output):
    thought, said, *calls = output
    assert [item.type for item in output] == KINDS
    assert [part.text for part in thought.content] == ["hm"]
    assert [part.text for part in said.content] == ["Let me see."]
    assert [call.arguments for call in calls] == ARGUMENTS
    assert [(call.call_id, call.name) for call in calls] == [
        ("call_id0", "look"),
        ("call_id1", "look"),
    ]
    assert len({item.id for item in output}) == 4
    assert {item.status for item in output} == {"completed"}


def test_calls_in_one_piece(client):
    response = client.responses.create(**ask())
    check(response.output)
    assert response.status == "completed"
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert (response.tools[0].name, response.tool_choice) == ("look", "auto")


@pytest.mark.thorough
def test_calls_in_a_stream(client):
    with client.responses.stream(**ask()) as stream:
        events = list(stream)
        response = stream.get_final_response()
    check(response.output)
    places = [event.output_index for event in events if event.type.endswith("item.added")]
    assert places == [0, 1, 2, 3]
    for place, whole in ((2, ARGUMENTS[0]), (3, ARGUMENTS[1])):
        said = [
            event.delta
            for event in events
            if event.type == "response.function_call_arguments.delta"
            and event.output_index == place
        ]
        assert "".join(said) == whole


def test_results_are_sent_after_the_response_that_called(engine, client):
    one = client.responses.create(**ask())
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "a"}
        for item in one.output[2:]
    ]
    two = client.responses.create(**ask(input=results, previous_response_id=one.id))
    user, said, first, second = rendered(engine)["messages"]
    assert (user["content"], said["content"]) == (SAYS, "Let me see.")
    assert said["reasoning_content"] == "hm"
    assert [call["id"] for call in said["tool_calls"]] == ["call_id0", "call_id1"]
    assert (first["tool_call_id"], second["content"]) == ("call_id0", "a")
    listed = client.responses.input_items.list(two.id).data
    assert {item.type for item in listed} == {"function_call_output"}


def test_all_may_be_sent_again(engine, client):
    one = client.responses.create(**ask(store=False))
    said = [item.model_dump(exclude_none=True) for item in one.output]
    result = {"type": "function_call_output", "call_id": "call_id1"}
    parts = [{"type": "input_text", "text": "a"}]
    user = {"role": "user", "content": SAYS}
    client.responses.create(**ask(input=[user, *said, result | {"output": parts}], store=False))
    _, assistant, tool = rendered(engine)["messages"]
    assert len(assistant["tool_calls"]) == 2
    assert (assistant["reasoning_content"], tool["content"]) == ("hm", "a")


def test_an_item_of_the_output_may_be_referred_to(engine, client):
    one = client.responses.create(**ask())
    call, user = (
        {"type": "item_reference", "id": one.output[2].id},
        {"role": "user", "content": "x"},
    )
    client.responses.create(**ask(input=[call, user]))
    assert rendered(engine)["messages"][0]["tool_calls"][0]["id"] == "call_id0"


def test_tools_that_others_run_are_named_and_left_out(engine, client):
    tools = [{"type": "web_search"}, TOOL, {"type": "namespace", "name": "n", "tools": []}]
    reply = httpx.post(f"{client.base_url}responses", json=ask(tools=tools))
    assert reply.headers["x-octavo-ignored"].split(", ")[-2:] == ["tools[0]", "tools[2]"]
    assert [tool["function"]["name"] for tool in rendered(engine)["tools"]] == ["look"]


def test_left_out_tools_shift_no_names(client):
    bad = {"type": "object", "properties": {"a": {"contentEncoding": "base64"}}}
    tools = [SEARCH, {"type": "function", "name": "f", "parameters": bad}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**ask(tools=tools))
    assert refused.value.param == "tools[1].parameters"


def test_codex_is_served_with_all_its_tools(client):
    """Whoever cannot be without a tool of the server's says so in tool_choice."""
    tools = [SEARCH | {"search_context_size": "low"}, TOOL]
    reply = httpx.post(f"{client.base_url}responses", json=ask(tools=tools, tool_choice="auto"))
    assert reply.headers["x-octavo-ignored"] == "tools[0]"
    assert [tool["name"] for tool in reply.json()["tools"]] == ["look"]


def test_half_a_call_is_not_told_to_the_model(engine, client):
    """Of a response that was cut short one goes on all the same."""
    one = client.responses.create(**ask(max_output_tokens=80))
    assert (one.status, one.output[-1].status) == ("incomplete", "incomplete")
    assert one.output[-1].arguments == '{"at"'
    again = [item.model_dump(exclude_none=True) for item in one.output]
    user = {"role": "user", "content": "go on"}
    client.responses.create(**ask(input=[user], previous_response_id=one.id))
    kept = rendered(engine)["messages"]
    client.responses.create(**ask(input=[{"role": "user", "content": SAYS}, *again, user]))
    assert rendered(engine)["messages"] == kept
    assert "tool_calls" not in kept[1]
    result = RESULT | {"call_id": one.output[-1].call_id}
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**ask(input=[result], previous_response_id=one.id))
    assert refused.value.param == "input[0].call_id"


@pytest.mark.parametrize(
    ("items", "turns"),
    [
        (["r", "m", "c", "o"], [("m", "r", 1), "tool"]),
        (["c", "m", "o"], [("m", "", 1), "tool"]),
        (["m", "c", "m", "o"], [("m\nm", "", 1), "tool"]),
        (["r", "r", "c", "c", "o"], [("", "r\nr", 2), "tool"]),
        (["m", "m"], [("m", "", 0), ("m", "", 0)]),
        (["m", "r", "m"], [("m", "", 0), ("m", "r", 0)]),
        (["c", "o", "r", "m"], [("", "", 1), "tool", ("m", "r", 0)]),
        (["s"], [("", "s", 0)]),
        (["e", "m"], [("m", "", 0)]),
    ],
)
def test_what_a_model_says_in_one_turn_is_one_message(items, turns):
    (chat,) = wire.parse(json.dumps(ask(input=[ITEMS[name] for name in items])).encode()).prompts
    said = [
        "tool" if m.role == "tool" else (m.content, m.reasoning, len(m.tool_calls))
        for m in chat.messages
    ]
    assert said == turns


def test_results_are_listed_as_what_they_are(client):
    items = [ITEMS["r"], CALL, RESULT, {"role": "user", "content": "x"}]
    one = client.responses.create(**ask(input=items))
    ids = [item.id for item in client.responses.input_items.list(one.id, order="asc").data]
    assert [id.split("_")[0] for id in ids] == ["rs", "fc", "fco", "msg"]
    again = [{"type": "item_reference", "id": id} for id in ids]
    assert client.responses.create(**ask(input=again)).status == "completed"


def test_a_model_that_does_not_reason_refuses_by_name(echo):
    path = f"{echo[1]}/v1/responses"
    for asked, field in ({"effort": "low"}, "effort"), ({"max_tokens": 5}, "max_tokens"):
        reply = httpx.post(path, json=ask(reasoning=asked))
        assert reply.json()["error"]["param"] == f"reasoning.{field}"
    for asked in {"effort": "none"}, {"effort": None, "summary": "auto"}, {}:
        assert httpx.post(path, json=ask(reasoning=asked)).status_code == 200


ALLOWED = {
    "type": "allowed_tools",
    "mode": "required",
    "tools": [{"type": "function", "name": "look"}],
}
OTHER = {"type": "function", "name": "other"}


@pytest.mark.parametrize(
    ("fields", "callable", "is_required", "is_parallel"),
    [
        ({}, ("look", "other"), False, True),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ("look", "other"), True, False),
        ({"tool_choice": {"type": "function", "name": "other"}}, ("other",), True, False),
        ({"tool_choice": ALLOWED}, ("look",), True, True),
    ],
)
def test_which_tools_may_be_called(fields, callable, is_required, is_parallel):
    (chat,) = wire.parse(json.dumps(ask(tools=[TOOL, OTHER]) | fields).encode()).prompts
    assert chat.tools.callable == callable
    assert (chat.tools.is_required, chat.tools.is_parallel) == (is_required, is_parallel)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [SEARCH, TOOL, TOOL]}, "tools[2].name"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        (
            {"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]},
            "input[0].call_id",
        ),
        ({"input": [{"type": "function_call", "call_id": "x", "name": "f"}]}, "input[0].arguments"),
        (
            {"input": [{"type": "function_call", "call_id": "x", "name": "f", "arguments": "["}]},
            "input[0].arguments",
        ),
        ({"input": [CALL | {"namespace": "n"}]}, "input[0].namespace"),
        ({"input": [CALL | {"role": "assistant"}]}, "input[0].role"),
        ({"input": [RESULT | {"output": [{"type": "input_image"}]}]}, "input[0].output[0].type"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
            "input[0].encrypted_content",
        ),
        (
            {"input": [{"role": "user", "content": "x", "call_id": "c"}]},
            "input[0].call_id",
        ),
        ({"tools": [SEARCH, {"type": "function"}]}, "tools[1].name"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL | {"allowed_callers": ["programmatic"]}]}, "tools[0].allowed_callers"),
        ({"tools": [TOOL | {"output_schema": {}}]}, "tools[0].output_schema"),
        ({"tools": [SEARCH], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [SEARCH, TOOL], "tool_choice": SEARCH}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": ALLOWED | {"name": "look"}}, "tool_choice.name"),
        ({"tool_choice": OTHER | {"mode": "auto"}}, "tool_choice.mode"),
        ({"tool_choice": OTHER | {"tools": []}}, "tool_choice.tools"),
        ({"tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.mode"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [SEARCH]}},
            "tool_choice.tools[0]",
        ),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"max_tokens": -1}}, "reasoning.max_tokens"),
        ({"reasoning": {"effort": "none", "max_tokens": 5}}, "reasoning.max_tokens"),
        (
            {"input": [{"type": "item_reference", "id": "x", "content": "y"}]},
            "input[0].content",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields, field):
    with pytest.raises(BadRequest) as refused:
        wire.parse(json.dumps(ask(**fields)).encode())
    assert refused.value.field == field


def test_how_much_to_think_is_told(engine, client):
    client.responses.create(**ask(reasoning={"effort": "low"}, extra_body={"max_tool_calls": 3}))
    assert rendered(engine)["reasoning_effort"] == "low"
    body = {"reasoning": {"max_tokens": 7}}
    client.responses.create(model="echo", input=SAYS, extra_body=body)
    assert engine.requests[-1].reading.max_thought == 7


# ---- as pure functions

EVENTS = [
    Delta("", (1,), reasoning="hm"),
    Delta("Let me see.", (3,), calls=(CallDelta(0, "{", "id0", "look"),)),
    Delta("", (5,), calls=(CallDelta(0, '"a": 1}'), CallDelta(1, "{}", "id1", "look"))),
    Finished("tool_calls", Usage(7, 5, 4, 2), seed=42),
]


def reply_to(**fields):
    call = wire.parse(json.dumps(ask(**fields)).encode())
    return Reply(call, "resp_1", 1, "fp_1", ((72, 105),), None)


def test_the_wire_byte_for_byte(golden):
    async def numbered():
        for event in EVENTS:
            yield 0, event

    async def frames():
        return [one.encode() async for one in wire.chunks(reply_to(stream=True), numbered())]

    told = asyncio.run(frames())
    golden(GOLDEN / "openai_responses_tools.sse", b"".join(told))
    whole = wire.whole(reply_to(), [fold(EVENTS)])
    golden(GOLDEN / "openai_responses_tools.json", whole)
    data = [json.loads(frame.split(b"\ndata: ")[1]) for frame in told]
    for one in data:
        EVENT.validate_python(one, strict=True)
    assert data[-1]["response"] == json.loads(whole)
