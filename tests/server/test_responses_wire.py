"""OpenAI's Responses as pure functions: the wire byte for byte, and what parse refuses."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from octavo.errors import BadRequest
from octavo.server.calls import Reply, fold
from octavo.server.protocols import openai_responses as wire
from octavo.types import Delta, Finished, TokenLogprob, Usage

GOLDEN = Path(__file__).parent / "golden"
ASK = {"model": "tiny", "input": "Hi"}
END = Finished("stop", Usage(7, 5, 4), seed=42)
PLAIN = [Delta("Hel", (1,)), Delta("", (4,)), Delta("lo ☕", (5,)), END]
EVENT = TypeAdapter(ResponseStreamEvent)


class Bytes:
    def token_bytes(self, token_id, *, special=False):
        return bytes([token_id])


def parse(**fields):
    return wire.parse(json.dumps(ASK | fields).encode())


def reply_to(**fields):
    return Reply(parse(**fields), "resp_1", 1, "fp_1", ((72, 105),), Bytes())


def stream(reply, events):
    async def said():
        for event in events:
            yield 0, event

    async def frames():
        return [frame.encode() async for frame in wire.chunks(reply, said())]

    return asyncio.run(frames())


def told(frames):
    """The data of each event; all of which OpenAI's own types know."""
    said = []
    for frame in frames:
        name, data = frame.decode().removesuffix("\n\n").split("\n")
        said.append(json.loads(data.removeprefix("data: ")))
        EVENT.validate_python(said[-1], strict=True)
        assert name == f"event: {said[-1]['type']}"
    assert [one["sequence_number"] for one in said] == list(range(len(said)))
    return said


def scored(token, rival):
    return (TokenLogprob(token, -0.25, ((rival, -1.5),)),)


RICH = {
    "instructions": "Be brief.",
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 1,
    "metadata": {"a": "b"},
    "max_output_tokens": 2,
    "seed": 42,
}
CASES = {
    "plain": ({}, PLAIN),
    "rich": (
        RICH,
        [
            Delta("H", (72,), scored(72, 74)),
            Delta("i", (105,), scored(105, 111)),
            Finished("length", Usage(7, 2, 0), seed=42),
        ],
    ),
    "background": ({"background": True, "seed": 42}, PLAIN),
}


@pytest.mark.parametrize("name", CASES)
def test_the_wire_byte_for_byte(golden, name):
    fields, events = CASES[name]
    frames = stream(reply_to(stream=True, **fields), events)
    told(frames)
    golden(GOLDEN / f"openai_responses_{name}.sse", b"".join(frames))
    whole = wire.whole(reply_to(**fields), [fold(events)])
    golden(GOLDEN / f"openai_responses_{name}.json", whole)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@examples(50)
@given(
    parts=st.lists(texts, max_size=6),
    reason=st.sampled_from(["stop", "length"]),
    logprobs=st.booleans(),
    background=st.booleans(),
)
def test_stream_and_whole_say_the_same(parts, reason, logprobs, background):
    fields = {"background": background} | ({"top_logprobs": 1} if logprobs else {})
    score = scored(72, 74) if logprobs else ()
    end = Finished(reason, Usage(3, len(parts), 1), seed=1)
    events = [*(Delta(part, (72,), score) for part in parts), end]
    reply = reply_to(**fields)
    said = told(stream(reply, events))
    whole = json.loads(wire.whole(reply, [fold(events)]))
    Response.model_validate(whole, strict=True)
    assert said[-1]["response"] == whole
    assert (
        said[-1]["type"] == {"stop": "response.completed", "length": "response.incomplete"}[reason]
    )
    deltas = [one for one in said if one["type"] == "response.output_text.delta"]
    (item,) = whole["output"]
    (part,) = item["content"]
    assert "".join(one["delta"] for one in deltas) == part["text"] == "".join(parts)
    assert [t for one in deltas for t in one["logprobs"]] == part["logprobs"]
    assert len(part["logprobs"]) == len(parts) * logprobs
    kinds = [one["type"].removeprefix("response.") for one in said]
    order = ["created", "queued"] if background else ["created"]
    order += ["in_progress", "output_item.added", "content_part.added"]
    order += ["output_text.delta"] * len(deltas)
    order += ["output_text.done", "content_part.done", "output_item.done"]
    assert kinds[:-1] == order
    assert whole["usage"]["total_tokens"] == 3 + len(parts)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("end", "kind", "status"),
    [
        (None, "response.incomplete", "cancelled"),
        (Finished("error", Usage(1, 1, 0), 1, error="out of luck"), "response.failed", "failed"),
        (Finished("timeout", Usage(1, 1, 0), 1, error="too late"), "response.failed", "failed"),
        (Finished("cancelled", Usage(1, 1, 0), 1), "error", None),
    ],
)
def test_other_ends(golden, begun, end, kind, status):
    events = [Delta("Hel", (1,))] * begun + ([end] if end else [])
    frames = stream(reply_to(background=True, seed=1), events)
    if begun and end and end.reason != "timeout":
        golden(GOLDEN / f"openai_responses_{end.reason}.sse", b"".join(frames))
    *before, last = told(frames)
    assert last["type"] == kind
    if status is None:
        assert "the server is stopping" in last["message"]
        return
    response = last["response"]
    assert response["status"] == status
    assert (response["error"] or {}).get("message") == (end and end.error)
    assert [item["status"] for item in response["output"]] == ["incomplete"] * begun
    assert ("response.output_item.done" in [one["type"] for one in before]) == begun


def test_defaults_ask_for_nothing_special():
    call = parse()
    assert (call.stream, call.ignored, call.params.max_tokens, call.params.seed) == (
        *(False, {}),
        *(None, None),
    )
    assert (call.thread.is_kept, call.thread.is_background) == (True, False)
    assert [(m.role, m.content) for m in call.prompts[0].messages] == [("user", "Hi")]


def test_null_means_absent():
    optional = set(wire.Body.__struct_fields__) - {"model", "input"}
    assert parse(**dict.fromkeys(optional)) == parse()


def test_values_that_ask_for_nothing_are_taken():
    nothing = {
        "tools": [],
        "tool_choice": "none",
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "reasoning": {"effort": None, "summary": None},
        "include": ["reasoning.encrypted_content", "file_search_call.results"],
        "parallel_tool_calls": False,
        "max_tool_calls": 3,
        "service_tier": "default",
        "safety_identifier": "x",
        "prompt_cache_key": "x",
        "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
        "prompt_cache_retention": "24h",
        "context_management": [],
        "metadata": {"k": "v"},
        "user": "x",
        "truncation": "disabled",
    }
    call = parse(**nothing)
    assert (call.params, call.prompts, call.ignored) == (parse().params, parse().prompts, {})


def test_every_way_to_shape_an_answer_reaches_the_engine():
    shape = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 7,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "presence_penalty": -1.0,
        "frequency_penalty": 2.0,
        "seed": 2**63,
        "ignore_eos": True,
    }
    call = parse(**shape, max_output_tokens=9, stop=["a"], logit_bias={"5": 1}, priority=3)
    assert {name: getattr(call.params, name) for name in shape} == shape
    assert (call.params.max_tokens, call.params.stop, call.priority) == (9, ("a",), 3)
    assert call.params.logprobs is None
    assert parse(include=["message.output_text.logprobs"]).params.logprobs == 0
    assert parse(top_logprobs=3).params.logprobs == 3


MESSAGE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("input", None),
        ("input", []),
        ("input", 5),
        ("input[0].role", [{"role": "wizard", "content": "x"}]),
        ("input[0].role", [{"content": "x"}]),
        ("input[1].content", [MESSAGE, {"role": "user"}]),
        ("input[0].type", [{"type": "computer_call_output", "call_id": "1", "output": "x"}]),
        ("input[0].content[0].type", [{"role": "user", "content": [{"type": "input_image"}]}]),
        ("input[0].content[0].text", [{"role": "user", "content": [{"type": "input_text"}]}]),
        ("input[0].id", [{"type": "item_reference"}]),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("max_output_tokens", 0),
        ("max_output_tokens", 2**40),
        ("max_output_tokens", 10**30),
        ("top_logprobs", 21),
        ("seed", 2**64),
        ("include", ["everything"]),
        ("metadata", {str(k): "v" for k in range(17)}),
        ("metadata", {"k": 5}),
        ("metadata", {"k": "v" * 513}),
        ("truncation", "middle"),
        ("stream_options", {"include_obfuscation": False}),
        ("store", "yes"),
        ("background", 1),
        ("previous_response_id", 5),
        ("previous_response_id", ""),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1"}),
        ("moderation", {"model": "m"}),
        ("text.format.name", {"format": {"type": "json_schema", "schema": {}}}),
        ("text.format.schema", {"format": {"type": "json_schema", "name": "x"}}),
        ("text.format.schema", {"format": {"type": "json_object", "schema": {}}}),
        ("text.format.type", {"format": {"type": "grammar"}}),
        ("service_tier", "flex"),
        ("text.verbosity", {"verbosity": "low"}),
        ("context_management", [{"type": "compaction"}]),
        ("background_options", {"completion_window": "2h"}),
        ("prompt_cache_options.prewarm", {"prewarm": True}),
        ("prompt_cache_options.comparison_response_id", {"comparison_response_id": "resp_1"}),
        ("image", {"context_compression": "enabled"}),
        ("access_programs", {"cyber": "standard"}),
        ("timeout", 0),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(field, value):
    with pytest.raises(BadRequest) as refusal:
        parse(**{field.split(".")[0].split("[")[0]: value})
    assert (refusal.value.field or "").startswith(field)


def test_what_contradicts_itself_is_refused():
    with pytest.raises(BadRequest, match="background"):
        parse(background=True, store=False)
    with pytest.raises(BadRequest, match="include_obfuscation"):
        parse(stream=True, stream_options={"include_obfuscation": True})
    assert parse(stream=True, stream_options={"include_obfuscation": False}).stream


def test_items_in_every_spelling():
    part = {"type": "input_text", "text": "b", "prompt_cache_breakpoint": {"mode": "explicit"}}
    past = {"type": "output_text", "text": "c", "annotations": [], "logprobs": []}
    call = parse(
        instructions="be brief",
        input=[
            {"role": "developer", "content": "a"},
            {"type": "message", "role": "user", "content": [part, part]},
            {
                **{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"},
                **{"content": [past], "phase": "final_answer"},
            },
        ],
    )
    (chat,) = call.prompts
    said = [(message.role, message.content) for message in chat.messages]
    assert said == [("system", "be brief"), ("system", "a"), ("user", "b\nb"), ("assistant", "c")]
    assert call.ignored == {}
    assert call.thread.items[2]["phase"] == "final_answer"


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
def test_what_goes_on_from_others_has_no_prompt_yet(item):
    assert parse(input=[item]).prompts == parse(previous_response_id="resp_1").prompts == ()


@given(raw=st.binary(max_size=40))
def test_noise_is_a_bad_request(raw):
    with pytest.raises(BadRequest):
        wire.parse(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), value=json_values)
def test_any_value_in_any_field_is_taken_or_refused(data, value):
    field = data.draw(st.sampled_from(wire.Body.__struct_fields__))
    with suppress(BadRequest):
        parse(**{field: value})
