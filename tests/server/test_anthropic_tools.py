"""Tools and thoughts in Messages, as the official client hears them."""

import json

import anthropic
import pytest
from callers import ARGUMENTS, THEIRS, THINK, USER, message, rendered

from octavo.server.protocols import anthropic_messages


@pytest.fixture(scope="module")
def claude(thinker):
    with anthropic.Anthropic(
        base_url=thinker[1], api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


BLOCKS = ["text", "tool_use", "tool_use"]
RESULT = {"type": "tool_result", "tool_use_id": "x"}


def said(*blocks):
    return [{"role": "user", "content": list(blocks)}]


def test_a_message_with_calls(claude):
    answer = claude.messages.create(**message())
    assert [block.type for block in answer.content] == BLOCKS
    assert [block.input for block in answer.content[1:]] == list(map(json.loads, ARGUMENTS))
    assert [block.id for block in answer.content[1:]] == ["toolu_id0", "toolu_id1"]
    assert answer.stop_reason == "tool_use"
    assert answer.usage.output_tokens_details.thinking_tokens > 0


def test_a_streamed_message_with_calls_and_thoughts(claude):
    with claude.messages.stream(**message(thinking=THINK)) as stream:
        events = [event for event in stream if event.type.startswith("content_block")]
        answer = stream.get_final_message()
    starts = [event for event in events if event.type == "content_block_start"]
    assert [event.index for event in starts] == [0, 1, 2, 3]
    assert [event.content_block.type for event in starts] == ["thinking", *BLOCKS]
    assert [event.content_block.input for event in starts[2:]] == [{}, {}]
    whole = claude.messages.create(**message(thinking=THINK)).content
    assert [block.to_dict() for block in answer.content] == [block.to_dict() for block in whole]
    assert answer.content[0].thinking == "hm"
    assert answer.stop_reason == "tool_use"


def test_calls_results_and_thoughts_come_back_in(thinker, claude):
    answer = claude.messages.create(**message(thinking=THINK))
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "a", "is_error": error}
        for block, error in zip(answer.content[2:], (False, True), strict=True)
    ]
    turns = [USER, {"role": "assistant", "content": answer.content}]
    turns.append({"role": "user", "content": [*results, {"type": "text", "text": "and?"}]})
    claude.messages.create(**message(messages=turns, thinking=THINK))
    _, said, first, second, user = rendered(thinker[0])["messages"]
    assert (said["content"], said["reasoning_content"]) == ("Let me see.", "hm")
    assert [call["id"] for call in said["tool_calls"]] == ["toolu_id0", "toolu_id1"]
    assert (first["content"], second["content"]) == ("a", "Error: a")
    assert user == {"role": "user", "content": "and?"}


@pytest.mark.parametrize(
    ("choice", "is_required", "is_parallel"),
    [
        (None, False, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, False, False),
        ({"type": "any"}, True, True),
        ({"type": "any", "disable_parallel_tool_use": True}, True, False),
        ({"type": "tool", "name": "look"}, True, False),
    ],
)
def test_their_choice_among_tools(choice, is_required, is_parallel):
    body = message(tool_choice=choice)
    (chat,) = anthropic_messages.parse(json.dumps(body).encode()).prompts
    assert (chat.tools.is_required, chat.tools.is_parallel) == (is_required, is_parallel)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "f", "type": "bash_20250124"}]}, "tools[0].type"),
        ({"tools": [THEIRS, THEIRS]}, "tools[1].name: "),
        ({"tools": [THEIRS | {"allowed_callers": ["code"]}]}, "tools[0].allowed_callers"),
        ({"tools": [THEIRS | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [THEIRS | {"input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        *(
            ({"tool_choice": {"type": kind, "name": "look"}}, "tool_choice.name")
            for kind in ("auto", "any", "none")
        ),
        (
            {"tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}, "tools": []}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": THINK | {"type": "adaptive"}}, "thinking.budget_tokens"),
        ({"thinking": THINK | {"type": "disabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "disabled", "display": "omitted"}}, "thinking.display"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"messages": said({"type": "text", "text": "x", "input": {}})}, "content[0].input"),
        ({"messages": said({"type": "text", "text": "x", "is_error": True})}, "is_error"),
        ({"messages": said(RESULT | {"text": "x"})}, "messages[0].content[0].text"),
        ({"messages": said(RESULT | {"toolset_name": "x"})}, "content[0].toolset_name"),
        ({"diagnostics": {"previous_message_id": "msg_1"}}, "diagnostics"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"compaction": {}}, "compaction"),
        ({"fallbacks": [{"model": "x"}]}, "fallbacks"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": said(RESULT)}, "messages[0].content[0].tool_use_id: no message before it"),
    ],
)
def test_what_they_cannot_have_is_refused_by_name(claude, fields, field):
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.post("/v1/messages", cast_to=object, body=message(**fields))
    assert field in refused.value.body["error"]["message"]


def test_tokens_are_counted_with_tools(thinker, claude):
    claude.messages.count_tokens(model="echo", messages=[USER], tools=[THEIRS])
    assert rendered(thinker[0])["tools"][0]["function"]["name"] == "look"
