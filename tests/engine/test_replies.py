"""Answers of whole engines that call tools and think, from random models: whatever the weights say,
calls are calls and thoughts end."""

import json
from dataclasses import replace

import pytest
from dialects import DIALECTS
from engines import end, engine_over, run, text, tokens
from schemas import is_valid

from octavo.errors import BadRequest
from octavo.loader.checkpoint import open_checkpoint
from octavo.loader.tokenizer import Tokenizer
from octavo.types import (
    Chat,
    Delta,
    Grammar,
    Message,
    Request,
    SamplingParams,
    Thinking,
    Tool,
    Tools,
)

PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 5},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
SUM = {"type": "object", "properties": {"a": {"type": "boolean"}}}  # and nothing else
TOOLS = (Tool("weather", "Of a city.", PLACE), Tool("add", None, SUM))
SCHEMAS = {tool.name: tool.parameters for tool in TOOLS}
NAMES = tuple(SCHEMAS)
THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n{# </think> <tool_call> #}"


def thinking(loaded, template=THINKS):
    vocabulary = open_checkpoint(loaded.path).vocabulary
    return replace(loaded, tokenizer=Tokenizer(vocabulary, template))


def asked(engine, id="a", *, tools=None, thinking=None, said="hi", answer=None, **params):
    chat = Chat((Message("user", said),), tools, thinking)
    prompt = engine.chat_format.prompt(chat, answer)
    given = SamplingParams(**{"max_tokens": 500, "ignore_eos": True, "seed": 1} | params)
    return Request(id, prompt.ids, given.held_to(prompt.grammar), reading=prompt.reading)


def calls_of(events):
    """[(id, name, arguments)]"""
    calls = {}
    for event in events:
        for part in event.calls if isinstance(event, Delta) else ():
            if part.id is not None:
                calls[part.index] = [part.id, part.name, ""]
            calls[part.index][2] += part.arguments
    return [tuple(call) for call in calls.values()]


def thought_of(events):
    return "".join(event.reasoning for event in events if isinstance(event, Delta))


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("temperature", [pytest.param(0, marks=pytest.mark.thorough), 1.5])
def test_a_required_call_is_well_formed_and_valid_on_any_model(llama, name, temperature):
    engine = engine_over(llama, tool_dialect=name)
    wanted = Tools(TOOLS, NAMES, is_required=True, is_parallel=False)
    requests = [
        asked(engine, str(seed), tools=wanted, seed=seed, temperature=temperature)
        for seed in range(3)
    ]
    for events in run(engine, *requests).values():
        ((id, called, arguments),) = calls_of(events)
        assert is_valid(arguments, SCHEMAS[called]), arguments
        assert id
        assert text(events) == ""
        assert end(events).reason == "tool_calls"


def test_a_named_tool_is_called_and_no_other(gemma):
    engine = engine_over(gemma)
    for name in NAMES:
        events = run(engine, asked(engine, tools=Tools(TOOLS, (name,), True, False)))["a"]
        assert [called for _, called, _ in calls_of(events)] == [name]


def test_ids_are_the_same_for_the_same_request_and_others_for_others(llama):
    engine = engine_over(llama)
    wanted = Tools(TOOLS, NAMES, is_required=True, is_parallel=False)

    def id(**fields):
        ((id, _, _),) = calls_of(run(engine, asked(engine, tools=wanted, **fields))["a"])
        return id

    assert id() == id()
    assert len({id(), id(seed=2), id(said="another turn")}) == 3


@pytest.mark.parametrize("name", DIALECTS)
def test_a_call_that_is_cut_anywhere_says_so(llama, name):
    engine = engine_over(llama, tool_dialect=name)
    wanted = Tools(TOOLS, ("add",), is_required=True, is_parallel=False)
    whole = run(engine, asked(engine, tools=wanted))["a"]
    length = len(tokens(whole))
    limits = {1, 2, 5, 9, *range(length - 12, length)} & set(range(1, length))
    requests = [asked(engine, str(limit), tools=wanted, max_tokens=limit) for limit in limits]
    for limit, cut in run(engine, *requests).items():
        assert end(cut).reason == "length"
        assert tokens(cut) == tokens(whole)[: int(limit)]
        assert text(cut) == ""
        said = "".join(arguments for _, _, arguments in calls_of(cut))
        assert calls_of(whole)[0][2].startswith(said)


@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("temperature", [0, 2])
def test_a_thought_that_has_had_its_tokens_is_closed(llama, budget, temperature):
    engine = engine_over(thinking(llama))
    spent = Thinking("reasoning.max_tokens", max_tokens=budget)
    events = run(engine, asked(engine, thinking=spent, temperature=temperature, max_tokens=60))["a"]
    closing = engine.chat_format.closing
    assert end(events).usage.reasoning_tokens in ([0] if budget == 0 else range(1, budget + 9))
    if budget:
        assert tuple(tokens(events))[budget : budget + len(closing)] == closing
    assert len(tokens(events)) == 60
    assert "think>" not in thought_of(events) + text(events)
    assert text(events)


def test_a_thought_is_closed_between_characters_where_a_grammar_follows(llama):
    engine = engine_over(thinking(llama))
    wanted = Tools(TOOLS, NAMES, is_required=True, is_parallel=False)
    for budget in (2, 3):
        spent = Thinking("reasoning.max_tokens", max_tokens=budget)
        for seed in range(12):
            asking = asked(engine, tools=wanted, thinking=spent, temperature=1.5, seed=seed)
            events = run(engine, asking)["a"]
            assert end(events).error is None
            assert "\ufffd" not in thought_of(events)
            ((_, name, arguments),) = calls_of(events)
            assert is_valid(arguments, SCHEMAS[name])


def test_a_thought_may_end_by_itself_or_never(llama):
    engine = engine_over(thinking(llama))
    events = run(engine, asked(engine, max_tokens=30))["a"]
    assert text(events) == ""
    assert end(events).usage.reasoning_tokens == 30
    assert end(events).reason == "length"


def test_after_a_thought_comes_the_call_that_is_required(llama):
    engine = engine_over(thinking(llama))
    wanted = Tools(TOOLS, NAMES, is_required=True, is_parallel=False)
    spent = Thinking("reasoning.max_tokens", max_tokens=5)
    for temperature in (0, 1.5):
        asking = asked(engine, tools=wanted, thinking=spent, temperature=temperature)
        events = run(engine, asking)["a"]
        ((_, called, arguments),) = calls_of(events)
        assert is_valid(arguments, SCHEMAS[called])
        assert (text(events), end(events).reason) == ("", "tool_calls")


@pytest.mark.parametrize(
    "answer",
    [Grammar("json_schema", json.dumps(PLACE)), Grammar("regex", "[a-c]{3}")],
    ids=lambda grammar: grammar.kind,
)
def test_after_a_thought_comes_the_answer_that_a_grammar_asks_for(llama, answer):
    engine = engine_over(thinking(llama))
    spent = Thinking("reasoning.max_tokens", max_tokens=5)
    events = run(engine, asked(engine, thinking=spent, answer=answer))["a"]
    assert is_valid(text(events), PLACE) if answer.kind == "json_schema" else len(text(events)) == 3
    assert end(events).reason == "stop"


def test_text_is_held_to_its_grammar_beside_tools(llama):
    engine = engine_over(llama)
    answer = Grammar("json_schema", json.dumps(PLACE))
    said = set()
    for seed in range(6):
        either = Tools(TOOLS, NAMES, is_parallel=False)
        asking = asked(engine, tools=either, answer=answer, seed=seed, temperature=3)
        events = run(engine, asking)["a"]
        said.add(end(events).reason)
        assert bool(calls_of(events)) != is_valid(text(events) or "0", PLACE)
    assert said == {"stop", "tool_calls"}


def test_a_text_that_is_held_to_a_grammar_has_no_call_within(llama):
    """Where a model has no tokens for the marks of calls, its texts may speak of them."""
    engine = engine_over(llama, tool_dialect="mistral_args")
    words = "[TOOL_CALLS]add[ARGS]{}"
    answer = Grammar("json_schema", json.dumps({"const": words}))
    said = set()
    for seed in range(6):
        either = Tools(TOOLS, ("add",), is_parallel=False)
        asking = asked(engine, tools=either, answer=answer, seed=seed, temperature=3)
        events = run(engine, asking)["a"]
        said.add(end(events).reason)
        assert text(events) == ("" if calls_of(events) else json.dumps(words))
    assert said == {"stop", "tool_calls"}


def test_a_closed_thought_has_no_logprobs(llama):
    engine = engine_over(thinking(llama))
    asking = asked(engine, thinking=Thinking("thinking", max_tokens=5), logprobs=1)
    with pytest.raises(BadRequest, match="logprobs: a thought that is closed by force"):
        engine.check(asking)


def test_neither_others_nor_preemption_change_what_is_called_and_thought(llama):
    model = thinking(llama)
    wanted = Tools(TOOLS, NAMES, is_required=True)
    spent = Thinking("reasoning.max_tokens", max_tokens=9)

    def all_of(engine):
        shape = {"tools": wanted, "thinking": spent, "temperature": 1, "max_tokens": 200}
        return [asked(engine, str(i), seed=i, said="hi" * i, **shape) for i in range(5)]

    def told(events):
        return tokens(events), thought_of(events), calls_of(events), end(events).reason

    crowded = engine_over(model, num_pages=24, max_running=4, step_tokens=16)
    together = run(crowded, *all_of(crowded))
    for one in all_of(engine_over(model)):
        alone = run(engine_over(model, prefix_cache=False), one)[one.id]
        assert told(together[one.id]) == told(alone)


@pytest.mark.models
def test_smollm2_calls_what_it_must(smollm2_path):
    from octavo.config import Config
    from octavo.engine.engine import Engine

    engine = Engine(Config(str(smollm2_path), max_context=4096))
    wanted = Tools(TOOLS, NAMES, is_required=True)
    requests = [
        asked(engine, f"{seed}", tools=wanted, seed=seed, temperature=1, said="Weather in Rome?")
        for seed in range(20)
    ]
    for events in run(engine, *requests).values():
        calls = calls_of(events)
        whole = calls if end(events).reason == "tool_calls" else calls[:-1]
        assert whole
        assert all(is_valid(arguments, SCHEMAS[name]) for _, name, arguments in whole)
