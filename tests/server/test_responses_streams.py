"""Streams of Responses: however tokens are cut, wherever a stream ends or is taken up again."""

import asyncio
import json
from dataclasses import replace

import openai
import pytest
from asking import polled, strict
from callers import SAYS, TEMPLATE
from dialects import DIALECTS, LOOK, dialect, told
from echoes import EchoEngine
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from serving import serving, wait_until

from octavo.loader.template import message_data
from octavo.server.calls import Reply, fold
from octavo.server.protocols import openai_responses as wire
from octavo.server.protocols._openai_items import chat, read
from octavo.types import CallDelta, Delta, Finished, TokenLogprob, Usage

EVENT = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "look", "parameters": LOOK}
ASK = {"model": "echo", "input": SAYS, "tools": [TOOL]}
USER = read("and?")


class Bytes:
    def token_bytes(self, token_id, *, special=False):
        return bytes([token_id])


def reply_to(**fields):
    call = wire.parse(json.dumps(ASK | fields).encode())
    return Reply(call, "resp_1", 1, "fp_1", ((72, 105),), Bytes())


def streamed(reply, events):
    async def numbered():
        for event in events:
            yield 0, event

    async def frames():
        return [frame.encode() async for frame in wire.chunks(reply, numbered())]

    said = [json.loads(frame.split(b"\ndata: ")[1]) for frame in asyncio.run(frames())]
    assert [one["sequence_number"] for one in said] == list(range(len(said)))
    return said


def joined(events):
    """The output as a reader makes it of the events of items: one after the other, each begun, said
    piece by piece and ended, with the same words at its end."""
    output, open_item = [], None
    for one in events:
        kind = one["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert open_item is None
            assert one["output_index"] == len(output)
            open_item, text, logprobs = one["item"], "", []
        elif "output_index" in one:
            assert one["output_index"] == len(output)
            assert one.get("item_id", open_item["id"]) == open_item["id"]
        if kind.endswith(".delta"):
            text += one["delta"]
            logprobs += one.get("logprobs", [])
        elif kind in ("output_text.done", "reasoning_text.done"):
            assert (one["text"], one.get("logprobs", [])) == (text, logprobs)
        elif kind == "function_call_arguments.done":
            assert one["arguments"] == text
        elif kind == "output_item.done":
            assert said_in(one["item"]) == (text, logprobs)
            assert one["item"].keys() == open_item.keys()
            output.append(one["item"])
            open_item = None
    assert open_item is None
    return output


def said_in(item):
    if item["type"] == "function_call":
        return item["arguments"], []
    (part,) = item["content"]
    return part["text"], part.get("logprobs", [])


def scores(delta, token):
    return replace(delta, token_ids=(token,), logprobs=(TokenLogprob(token, -0.5, ()),))


@examples(50)
@given(data=st.data(), name=st.sampled_from(DIALECTS), control=st.booleans())
def test_however_tokens_are_cut_the_stream_joins_to_the_whole(data, name, control):
    text = dialect(name).EXAMPLE
    cuts = data.draw(st.sets(st.integers(1, len(text.encode()))))
    has_logprobs = data.draw(st.booleans())
    deltas, _ = told(name, text, cuts, control=control)
    if has_logprobs:
        deltas = [scores(delta, place % 256) for place, delta in enumerate(deltas)]
    end = Finished(data.draw(st.sampled_from(["tool_calls", "length"])), Usage(9, 9, 0, 3), seed=1)
    reply = reply_to(top_logprobs=0, include=["message.output_text.logprobs"])
    said = streamed(reply, [*deltas, end])
    whole = json.loads(wire.whole(reply, [fold([*deltas, end])]))
    Response.model_validate(whole, strict=True)
    for one in said:
        EVENT.validate_python(one, strict=True)
    assert said[-1]["response"] == whole
    assert joined(said) == whole["output"]
    uncut, _ = told(name, text, control=control)
    assert bare(whole) == bare(json.loads(wire.whole(reply, [fold([*uncut, end])])))


def bare(response):
    return [(item["id"], item["type"], said_in(item)[0]) for item in response["output"]]


words = st.text("ab ", min_size=1, max_size=3)
thoughts = st.builds(lambda text: Delta("", (1,), reasoning=text), words)
texts = st.builds(lambda text: Delta(text, (1,)), words)
nothing = st.just(Delta("", (1,)))
answers = st.lists(st.one_of(thoughts, texts, nothing, st.just("call")), max_size=8)


@examples(80)
@given(parts=answers, scored=st.sets(st.integers(0, 7)))
def test_in_whatever_order_a_model_says_things(parts, scored):
    num_calls, events = 0, []
    for place, part in enumerate(parts):
        if part == "call":
            part = Delta("", (1,), calls=(CallDelta(num_calls, "{}", f"id{num_calls}", "look"),))
            num_calls += 1
        events.append(scores(part, place) if place in scored else part)
    events.append(Finished("stop", Usage(9, 9, 0), seed=1))
    reply = reply_to()
    said = streamed(reply, events)
    whole = json.loads(wire.whole(reply, [fold(events)]))
    assert said[-1]["response"] == whole
    assert joined(said) == whole["output"]
    assert whole["output"], "an answer that says nothing is an empty message"
    assert len({item["id"] for item in whole["output"]}) == len(whole["output"])


def test_logprobs_are_those_of_text():
    """The mark of a thought is no text, half a character is, and so is the end of the turn."""
    parts = [
        Delta("", (1,)),
        Delta("", (2,), reasoning="hm"),
        Delta("", (3,)),
        Delta("é", (4,)),
        Delta("", (5,)),
        Delta("", (6,), calls=(CallDelta(0, "{}", "id0", "look"),)),
    ]
    events = [scores(part, place) for place, part in enumerate(parts)]
    end = Finished("stop", Usage(9, 9, 0), seed=1)
    for given_events, tokens in ((events, [[2], [3]]), (events[:5], [[2], [3], [4]])):
        *_, last = streamed(reply_to(), [*given_events, end])
        thought, message = last["response"]["output"][:2]
        assert "logprobs" not in thought["content"][0]
        assert [one["bytes"] for one in message["content"][0]["logprobs"]] == tokens


DELTAS, _ = told("hermes", SAYS, range(1, len(SAYS.encode())))


@pytest.mark.parametrize("end", [None, pytest.param("length", marks=pytest.mark.thorough), "error"])
def test_wherever_an_answer_is_cut_off_it_joins_and_can_be_gone_on_from(end):
    """By whoever cancels it, by max_output_tokens, by an engine that fails."""
    ends = [Finished(end, Usage(9, 9, 0), seed=1, error="out of luck")] if end else []
    for cut in range(len(DELTAS) + 1):
        reply = reply_to()
        said = streamed(reply, [*DELTAS[:cut], *ends])
        response = said[-1]["response"]
        assert joined(said) == response["output"]
        assert response["status"] == {None: "cancelled", "length": "incomplete"}.get(end, "failed")
        *whole, last = [item["status"] for item in response["output"]] or ["incomplete"]
        assert (set(whole) <= {"completed"}, last) == (True, "incomplete")
        opening, items = reply.call.thread.opening, reply.call.thread.items
        messages = chat(opening, [*items, *response["output"]], USER).messages
        assert messages[-1].content == "and?"
        for message in messages:
            message_data(message)  # what calls pass on can be read


@pytest.fixture(scope="module")
def engine():
    return EchoEngine(0.002, template=TEMPLATE)


@pytest.fixture(scope="module")
def url(engine):
    with serving(engine) as (_, url):
        yield url


def test_a_stream_is_taken_up_after_any_of_its_events(url):
    """By readers that come while it runs and by those that come afterwards."""

    async def rest(client, id, after):
        options = {} if after is None else {"starting_after": after}
        stream = await client.responses.retrieve(id, stream=True, **options)
        return [event async for event in stream]

    async def scene():
        options = {"api_key": "none", "_strict_response_validation": True}
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **options) as client:
            made = await client.responses.create(**ASK, background=True)
            early = [rest(client, made.id, after) for after in range(0, 60, 6)]
            early = await asyncio.gather(*early)
            whole = await rest(client, made.id, None)
            places = [*range(0, len(whole), 7), len(whole) - 1]
            late = [await rest(client, made.id, after) for after in places]
        for after, heard in zip(range(0, 60, 6), early, strict=True):
            assert heard == whole[after + 1 :]
        for after, heard in zip(places, late, strict=True):
            assert heard == whole[after + 1 :]
        kinds = [item.type for item in whole[-1].response.output]
        assert kinds == ["reasoning", "message", "function_call", "function_call"]

    asyncio.run(scene())


def test_cancelled_within_a_call(engine, url):
    with strict(url) as client:
        stream = client.responses.create(**ASK, background=True, stream=True)
        made = next(stream).response
        next(event for event in stream if "arguments.delta" in event.type)
        done = client.responses.cancel(made.id)
        assert (done.status, done.output[-1].status) == ("cancelled", "incomplete")
        assert polled(client.responses, made.id) == done
        wait_until(lambda: not engine.running)
        again = client.responses.create(**ASK | {"input": "x"}, previous_response_id=made.id)
        assert again.status == "completed"
