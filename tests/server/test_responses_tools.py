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
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]}, "input"),
        ({"input": [{"type": "function_call", "call_id": "x", "name": "f"}]}, "input[0].arguments"),
        (
            {"input": [{"type": "function_call", "call_id": "x", "name": "f", "arguments": "["}]},
            "input[0].arguments",
        ),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"max_tokens": -1}}, "reasoning.max_tokens"),
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
