"""Both OpenAI endpoints as pure functions: the wire byte for byte, and what parse refuses."""

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import BadRequest, CapacityError, StepFailed
from octavo.server.calls import Reply, fold
from octavo.server.protocols import openai_chat, openai_completions
from octavo.types import Delta, Finished, PromptScored, TokenLogprob, Usage

GOLDEN = Path(__file__).parent / "golden"
USER = {"role": "user", "content": "Hi"}
CHAT = {"model": "tiny", "messages": [USER]}
TEXT = {"model": "tiny", "prompt": "Hi"}
ASK = {openai_chat: CHAT, openai_completions: TEXT}
PROTOCOLS = pytest.mark.parametrize("protocol", ASK, ids=lambda p: p.__name__.split(".")[-1])
COFFEE = "☕".encode()


def scored(token_id, *rivals):
    return TokenLogprob(token_id, -0.25, tuple((rival, -1.5) for rival in rivals))


END = Finished("stop", Usage(7, 5, 4), seed=42, stop="\n")
EVENTS = [
    PromptScored((scored(ord("i"), ord("o")),)),
    Delta("He", (72, 101), (scored(72, 74), scored(101, 97))),
    *(Delta("", (byte,), (scored(byte, 0xFF),)) for byte in COFFEE[:2]),
    Delta("☕", (COFFEE[2],), (scored(COFFEE[2], 256),)),
    END,
]
PLAIN = [Delta("Hel", (1, 2, 3)), Delta("", (4,)), Delta("lo ☕", (5,)), END]


class Bytes:
    """A byte is a token, and 256 is the control token that ends a turn."""

    def token_bytes(self, token_id, *, special=False):
        return bytes([token_id]) if token_id < 256 else b"<end>" * special


def parse(protocol, **fields):
    return protocol.parse(json.dumps(ASK[protocol] | fields).encode())


def reply_to(protocol, **fields):
    call = parse(protocol, **fields)
    ids = tuple((72, 105) for _ in call.prompts)
    name = f"{protocol.PREFIX}1"
    return Reply(call, name, 1, "fp_1", ids, Bytes())


def stream(protocol, reply, *choices):
    async def events():
        for index, choice in enumerate(choices):
            for event in choice:
                yield index, event

    async def frames():
        return [frame.encode() async for frame in protocol.chunks(reply, events())]

    return b"".join(asyncio.run(frames()))


def whole(protocol, reply, *choices):
    return protocol.whole(reply, [fold(events) for events in choices])


def objects(sse):
    *frames, done, rest = sse.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


RICH = {
    openai_chat: {"logprobs": True, "top_logprobs": 1},
    openai_completions: {"logprobs": 1, "echo": True},
}


@PROTOCOLS
@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_the_wire_byte_for_byte(golden, protocol, kind):
    name = f"{protocol.__name__.split('.')[-1]}_{kind}"
    fields = RICH[protocol] if kind == "rich" else {}
    options = {"stream_options": {"include_usage": True}} if kind == "rich" else {}
    events = EVENTS if kind == "rich" else PLAIN
    streamed = reply_to(protocol, stream=True, **fields, **options)
    golden(GOLDEN / f"{name}.sse", stream(protocol, streamed, events))
    golden(GOLDEN / f"{name}.json", whole(protocol, reply_to(protocol, **fields), events))


@PROTOCOLS
def test_several_choices_byte_for_byte(golden, protocol):
    name = f"{protocol.__name__.split('.')[-1]}_n2"
    second = [Delta("Ho", (1,)), Finished("length", Usage(7, 1, 7), seed=43)]
    fields = {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    golden(GOLDEN / f"{name}.sse", stream(protocol, reply_to(protocol, **fields), PLAIN, second))
    golden(GOLDEN / f"{name}.json", whole(protocol, reply_to(protocol, n=2), PLAIN, second))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@PROTOCOLS
@examples(30)
@given(parts=st.lists(texts, max_size=6), echo=st.booleans(), logprobs=st.booleans())
def test_stream_and_whole_say_the_same(protocol, parts, echo, logprobs):
    fields = RICH[protocol] if logprobs else {}
    if protocol is openai_completions:
        fields = fields | {"echo": echo}
    scores = (scored(72, 74),) if logprobs else ()
    events = [Delta(part, (72,), scores) for part in parts] + [END]
    sent = objects(stream(protocol, reply_to(protocol, stream=True, **fields), events))
    said = json.loads(whole(protocol, reply_to(protocol, **fields), events))["choices"][0]
    choices = [chunk["choices"][0] for chunk in sent]
    assert "".join(map(text_of, choices)) == text_of(said)
    assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert tokens_of(choices) == tokens_of([said])


def text_of(choice):
    return choice["text"] if "text" in choice else spoken(choice).get("content", "")


def spoken(choice):
    return choice.get("delta") or choice.get("message") or {}


def tokens_of(choices):
    parts = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    return [token for part in parts for token in part.get("content", part.get("tokens"))]


@PROTOCOLS
@pytest.mark.parametrize(
    ("reason", "raised"), [("error", StepFailed), ("cancelled", CapacityError)]
)
def test_a_request_that_did_not_end_well_is_an_error(golden, protocol, reason, raised):
    events = [Delta("Hel", (1,)), Finished(reason, Usage(1, 1, 0), seed=1, error="out of luck")]
    sent = stream(protocol, reply_to(protocol, stream=True), events)
    golden(GOLDEN / f"{protocol.__name__.split('.')[-1]}_{reason}.sse", sent)
    *_, last = objects(sent)
    assert last["error"].keys() == {"message", "type", "param", "code"}
    assert last["error"]["type"] == "server_error"
    with pytest.raises(raised):
        whole(protocol, reply_to(protocol), events)


@PROTOCOLS
def test_defaults_ask_for_nothing_special(protocol):
    call = parse(protocol)
    assert (call.n, call.stream, call.ignored) == (1, False, {})
    assert (call.params.temperature, call.params.top_p, call.params.seed) == (1.0, 1.0, None)
    assert call.params.max_tokens == {openai_chat: None, openai_completions: 16}[protocol]


@PROTOCOLS
def test_null_means_absent(protocol):
    optional = set(protocol.Body.__struct_fields__) - {"model", "messages", "prompt"}
    assert parse(protocol, **dict.fromkeys(optional)) == parse(protocol)


@PROTOCOLS
def test_every_way_to_shape_an_answer_reaches_the_engine(protocol):
    shape = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 7,
        "min_p": 0.125,
        "repetition_penalty": 1.5,
        "presence_penalty": -1.0,
        "frequency_penalty": 2.0,
        "seed": 2**63,
        "max_tokens": 9,
        "ignore_eos": True,
        "prompt_logprobs": 3,
    }
    lists = {"logit_bias": {"5": -100, "7": 1.5}, "stop": ["a", "b"], "stop_token_ids": [1, 2]}
    call = parse(protocol, **shape, **lists, n=3, priority=-2)
    assert {name: getattr(call.params, name) for name in shape} == shape
    assert call.params.logit_bias == {5: -100.0, 7: 1.5}
    assert (call.params.stop, call.params.stop_token_ids) == (("a", "b"), (1, 2))
    assert (call.n, call.priority) == (3, -2)


@PROTOCOLS
@pytest.mark.parametrize("top_k", [0, -1])
def test_both_ways_to_say_no_top_k(protocol, top_k):
    assert parse(protocol, top_k=top_k).params.top_k is None


@PROTOCOLS
def test_top_p_zero_is_the_likeliest_token(protocol):
    assert 0 < parse(protocol, top_p=0).params.top_p < 1e-6


@PROTOCOLS
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("n", 0),
        ("n", 129),
        ("n", 10**30),
        ("n", True),
        ("temperature", -1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("top_p", 1.5),
        ("top_k", -2),
        ("min_p", 2),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("repetition_penalty", 0),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": 200}),
        ("max_tokens", 0),
        ("max_tokens", 2**40),
        ("seed", 2**64),
        ("seed", 0.5),
        ("stop", [""]),
        ("stop", ["x"] * 33),
        ("stop", "x" * 1001),
        ("stop_token_ids", ["x"]),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("stream_options", {"include_usage": 1}),
        ("prompt_logprobs", 21),
        ("priority", 2**40),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(protocol, field, value):
    with pytest.raises(BadRequest, match=field) as refusal:
        parse(protocol, **{field: value})
    assert (refusal.value.field or "").startswith(field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", []),
        ("messages", "Hi"),
        ("messages[0].role", [{"role": "wizard", "content": "x"}]),
        ("messages[0].role", [{"role": "function", "content": "x", "name": "f"}]),
        ("messages[0].name", [USER | {"name": "Ann"}]),
        ("messages[0].content", [{"role": "user"}]),
        ("messages[0].content", [{"role": "user", "content": 1}]),
        (
            "messages[1].content[0].type",
            [USER, {"role": "user", "content": [{"type": "image_url"}]}],
        ),
        ("messages[0].content[0].text", [{"role": "user", "content": [{"type": "text"}]}]),
        ("messages[0].refusal", [{"role": "assistant", "refusal": "no"}]),
        ("functions", [{"name": "f"}]),
        ("response_format.json_schema.schema", {"type": "json_schema"}),
        ("response_format.json_schema.schema", {"type": "json_schema", "json_schema": {}}),
        ("response_format.type", {"type": "grammar"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("store", True),
        ("service_tier", "flex"),
        ("top_logprobs", 2),
        ("top_logprobs", 21),
        ("max_completion_tokens", 0),
        ("max_completion_tokens", 2**40),
    ],
)
def test_what_chat_cannot_honour_is_refused_by_name(field, value):
    with pytest.raises(BadRequest) as refusal:
        parse(openai_chat, **{re.split(r"[.\[]", field)[0]: value})
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", []),
        ("prompt", [[]]),
        ("prompt", ["a", 1]),
        ("prompt", [-1]),
        ("prompt", [1.5]),
        ("prompt", ["a"] * 129),
        ("suffix", "x"),
        ("best_of", 2),
        ("logprobs", 21),
        ("logprobs", True),
        ("echo", "yes"),
    ],
)
def test_what_completions_cannot_honour_is_refused_by_name(field, value):
    with pytest.raises(BadRequest) as refusal:
        parse(openai_completions, **{field: value})
    assert refusal.value.field.startswith(field)


def test_values_that_ask_for_nothing_are_taken():
    nothing = {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}}
    call = parse(openai_chat, **nothing, modalities=["text"], store=False, service_tier="auto")
    assert call == parse(openai_chat)
    assert parse(openai_completions, suffix="", best_of=1) == parse(openai_completions)


@PROTOCOLS
def test_no_padding_is_all_that_is_served(protocol):
    for nothing in (False, None):
        options = {"include_obfuscation": nothing}
        assert parse(protocol, stream=True, stream_options=options) == parse(protocol, stream=True)
    with pytest.raises(BadRequest) as refusal:
        parse(protocol, stream=True, stream_options={"include_obfuscation": True})
    assert refusal.value.field == "stream_options.include_obfuscation"


def test_two_limits_that_differ_are_refused():
    assert parse(openai_chat, max_completion_tokens=7).params.max_tokens == 7
    assert parse(openai_chat, max_completion_tokens=7, max_tokens=7).params.max_tokens == 7
    with pytest.raises(BadRequest, match="max_tokens: 8 contradicts max_completion_tokens 7"):
        parse(openai_chat, max_completion_tokens=7, max_tokens=8)


def test_messages_in_every_spelling():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    past = {"role": "assistant", "content": None, "refusal": None, "tool_calls": None}
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    (prompt,) = parse(openai_chat, messages=[*messages, past]).prompts
    said = [(message.role, message.content) for message in prompt.messages]
    assert said == [("system", "be brief"), ("user", "a\nb"), ("assistant", "")]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        (None, ("",)),
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 0], ((1, 0),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_prompts_in_every_spelling(prompt, prompts):
    assert parse(openai_completions, prompt=prompt).prompts == prompts


def test_only_the_echo_is_said_when_no_token_is_wanted():
    reply = reply_to(openai_completions, max_tokens=0, echo=True, logprobs=1)
    answer = json.loads(whole(openai_completions, reply, EVENTS))
    assert answer["choices"][0]["text"] == "Hi"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, -0.25]
    assert answer["usage"]["completion_tokens"] == 0


def test_scores_of_the_prompt_by_token_id():
    reply = reply_to(openai_completions, prompt_logprobs=1)
    scores = json.loads(whole(openai_completions, reply, EVENTS))["choices"][0]["prompt_logprobs"]
    chosen = {"logprob": -0.25, "rank": None, "decoded_token": "i"}
    rival = {"logprob": -1.5, "rank": 1, "decoded_token": "o"}
    assert scores == [None, {"105": chosen, "111": rival}]
    with pytest.raises(BadRequest, match="prompt_logprobs"):
        parse(openai_completions, prompt_logprobs=1, stream=True)


def test_fields_nobody_knows_are_reported_wherever_they_stand():
    message = {"role": "user", "content": [{"type": "text", "text": "x", "mood": 1}], "nick": "Z"}
    options = {"continuous_usage_stats": True}
    call = parse(openai_chat, topp=1, messages=[USER, message], stream=True, stream_options=options)
    assert set(call.ignored) == {
        "topp",
        "messages[1].nick",
        "messages[1].content[0].mood",
        "stream_options.continuous_usage_stats",
    }


@PROTOCOLS
@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b"{}", "model"),
        (b'\xef\xbb\xbf{"model": "x"}', None),
        (b'{"model": "\xff"}', "model"),
        (b'{"model": "x", "user": {"a": "b\xc3(', "user"),
        (b'{"model": "\\ud800"}', "model"),
        (b'{"model": "x", "temperature": NaN}', "temperature"),
        (b'{"model": "x", "temperature": Infinity}', "temperature"),
        (b'{"model": "x", "temperature": 1e999}', "temperature"),
        (b'{"model": "x", "seed": 1' + b"0" * 5000 + b"}", "seed"),
        (b'{"model": "x", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
        (b'{"model": "x", "user": ' + b'{"a":' * 100_000, "user"),
    ],
)
def test_any_bytes_are_a_call_or_a_bad_request_that_says_where(protocol, raw, field):
    with pytest.raises(BadRequest) as refusal:
        protocol.parse(raw)
    assert refusal.value.field == field


@PROTOCOLS
@given(raw=st.binary(max_size=40))
def test_noise_is_a_bad_request(protocol, raw):
    with pytest.raises(BadRequest):
        protocol.parse(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@PROTOCOLS
@given(data=st.data(), value=json_values)
def test_any_value_in_any_field_is_taken_or_refused(protocol, data, value):
    field = data.draw(st.sampled_from(protocol.Body.__struct_fields__))
    with suppress(BadRequest):
        parse(protocol, **{field: value})


def test_a_value_out_of_a_list_is_told_the_list():
    with pytest.raises(BadRequest) as refusal:
        parse(openai_chat, messages=[{"role": "wizard", "content": "x"}])
    assert str(refusal.value) == (
        "messages[0].role: 'wizard' is none of "
        "'assistant', 'developer', 'function', 'system', 'tool', 'user'"
    )
