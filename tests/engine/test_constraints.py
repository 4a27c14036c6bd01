"""Answers under a grammar: the same with forced text as with masks alone, whole or said to be cut,
and at nobody else's cost."""

import dataclasses
import json
import re
import sys
import threading
import time
from typing import ForwardRef, Literal

import pytest
from engines import answer, asked, end, engine_over, logprobs, run, text, tokens
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from schemas import is_valid, schemas

from octavo import LLM, BadRequest, StepFailed
from octavo.engine import constraints
from octavo.grammar.compiled import Compiled, Matcher
from octavo.types import Delta, Finished, Grammar, SamplingParams

RECORD = {
    "type": "object",
    "properties": {
        "the_name_of_the_thing": {"type": "string", "maxLength": 8},
        "and_then_its_kind": {"enum": ["one of these", "one of those"]},
    },
    "required": ["the_name_of_the_thing", "and_then_its_kind"],
    "additionalProperties": False,
}


@pytest.fixture(params=["llama", "gemma"])
def loaded(request):
    return request.getfixturevalue(request.param)


EXTREMES = [pytest.param(temperature, marks=pytest.mark.thorough) for temperature in (0, 3)]


@pytest.mark.parametrize("temperature", [1, *EXTREMES])
@pytest.mark.parametrize(
    "constraint", [{"schema": RECORD}, {"regex": "(forced text ){3}[a-z]{4}!"}]
)
def test_forced_text_is_what_masks_alone_give(loaded, constraint, temperature):
    wanted = constraint | {"max_tokens": 200, "temperature": temperature, "seed": 5}
    engine = engine_over(loaded)
    forced = answer(engine, **wanted)
    scored = answer(engine, **wanted, logprobs=2)
    engine.constraints.forces_text = False
    masked = answer(engine, **wanted)
    for other in (scored, masked):
        assert tokens(other) == tokens(forced)
        assert text(other) == text(forced)
        assert end(other).usage.completion_tokens == end(forced).usage.completion_tokens
    steps = [sum(isinstance(event, Delta) for event in events) for events in (forced, masked)]
    assert steps[1] == len(tokens(masked)) > 1.4 * steps[0]
    assert len(logprobs(scored)) == len(tokens(scored))


@pytest.mark.thorough
def test_no_more_is_forced_than_a_step_may_cost(loaded, monkeypatch):
    """However long the text that must come: little more than the answer is given."""
    engine, num_consumed, consume = engine_over(loaded), 0, Matcher.consume

    def counted(self, token_id):
        nonlocal num_consumed
        num_consumed += 1
        consume(self, token_id)

    wanted = {"grammar": "start: " + '"so it goes on, " ' * 2000, "seed": 1}
    kept = engine.compile(SamplingParams(**wanted))
    monkeypatch.setattr(Matcher, "consume", counted)
    short = answer(engine, **wanted, max_tokens=10)
    assert num_consumed <= 1 + constraints.MOST_FORCED
    long = answer(engine, **wanted, max_tokens=400)
    engine.constraints.forces_text = False
    masked = answer(engine, **wanted, max_tokens=400)
    assert tokens(long) == tokens(masked)
    assert tokens(short) == tokens(masked)[:10]
    assert kept is engine.compile(SamplingParams(**wanted))


def test_an_answer_ends_where_its_grammar_does(loaded):
    events = answer(engine_over(loaded), schema=RECORD, max_tokens=200)
    assert end(events).reason == "stop"
    assert end(events).stop is None
    assert is_valid(text(events), RECORD)
    assert end(events).usage.completion_tokens == len(tokens(events))


def test_a_grammar_that_ends_with_the_last_token_is_whole(loaded):
    engine, wanted = engine_over(loaded), {"choice": ("a long one", "a long two"), "seed": 1}
    whole = answer(engine, **wanted, max_tokens=50)
    count = len(tokens(whole))
    assert end(answer(engine, **wanted, max_tokens=count)).reason == "stop"
    cut = answer(engine, **wanted, max_tokens=count - 1)
    assert end(cut).reason == "length"
    assert tokens(cut) == tokens(whole)[:-1]


@pytest.mark.parametrize("limit", range(1, 9))
def test_forced_text_may_be_cut_anywhere(loaded, limit):
    engine = engine_over(loaded)
    whole = answer(engine, schema=RECORD, max_tokens=200, seed=1)
    cut = answer(engine, schema=RECORD, max_tokens=limit, seed=1)
    assert tokens(cut) == tokens(whole)[:limit]
    assert end(cut).reason == "length"
    assert end(cut).usage.completion_tokens == limit


def test_a_stop_string_may_end_in_forced_text(loaded):
    events = answer(engine_over(loaded), schema=RECORD, stop=("e_of_the",), max_tokens=200)
    assert text(events) == '{"the_nam'
    assert end(events).stop == "e_of_the"
    assert end(events).usage.completion_tokens == len(tokens(events)) < 20


def test_a_full_context_ends_in_forced_text(loaded):
    prompt = [5 + i % 200 for i in range(150)]
    events = answer(engine_over(loaded, max_context=160), prompt=prompt, schema=RECORD)
    assert end(events).reason == "length"


def test_the_model_may_end_its_turn_where_the_grammar_may_end(loaded):
    engine = engine_over(loaded)
    (eos, *_) = loaded.tokenizer.eos_ids
    wanted = {"regex": "a+", "logit_bias": {eos: 100}, "max_tokens": 30, "temperature": 0}
    events = answer(engine, **wanted, ignore_eos=False)
    assert text(events) == "a"
    assert end(events).reason == "stop"
    events = answer(engine, **wanted)
    assert end(events).reason == "length"
    assert set(text(events)) == {"a"}
    events = answer(engine, **wanted | {"regex": "aaa?"})
    assert text(events) == "aaa"
    assert end(events).reason == "stop"


def test_parsed_is_absent_rather_than_wrong(llama_path):
    with LLM(llama_path, memory=64 << 20) as llm:
        whole = llm.generate("x", SamplingParams(schema=RECORD, max_tokens=200, seed=1))
        assert whole.parsed == json.loads(whole.text)
        cut = llm.generate("x", SamplingParams(schema=RECORD, max_tokens=12, seed=1))
        assert (cut.parsed, cut.finish_reason) == (None, "length")
        stopped = llm.generate("x", SamplingParams(schema={"const": "ab"}, stop=("b",)))
        assert (stopped.parsed, stopped.finish_reason) == (None, "stop")
        assert llm.generate("x", SamplingParams(regex="12", seed=1)).parsed is None


def test_a_pydantic_model_is_a_schema(llama_path):
    from pydantic import BaseModel

    class Point(BaseModel, extra="forbid"):
        across: Literal[12, 345]
        is_far: bool

    with LLM(llama_path, memory=64 << 20) as llm:
        said = llm.generate("x", SamplingParams(schema=Point, max_tokens=60, seed=1))
        assert list(Point.model_validate(said.parsed).model_dump()) == ["across", "is_far"]


def test_whatever_pydantic_describes_is_a_schema(monkeypatch):
    from pydantic import TypeAdapter

    numbers = Grammar("json_schema", '{"items": {"type": "integer"}, "type": "array"}')
    for kind in (list[int], TypeAdapter(list[int])):
        assert SamplingParams(schema=kind).constraint == numbers
    point = dataclasses.make_dataclass("Point", [("across", int)])
    assert '"across": {' in SamplingParams(schema=point).constraint.text
    for other in (object(), [], b"{}", list[ForwardRef("NoTypeOfThatName")]):
        with pytest.raises(BadRequest, match=r"^schema: .*a type that pydantic knows"):
            SamplingParams(schema=other)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(BadRequest, match="pydantic 2 is not installed"):
        SamplingParams(schema=list[int])


def test_what_cannot_be_held_to_is_refused_before_it_is_queued(loaded):
    engine = engine_over(loaded)
    with pytest.raises(BadRequest, match="'not' at"):
        engine.add(asked(schema={"items": {"not": {}}}))
    assert not engine.has_work


def failing(matcher, **how):
    raise StepFailed("the grammar cannot be followed within its limits: too much")


def test_a_grammar_that_fails_ends_its_own_answer_only(loaded, monkeypatch):
    engine = engine_over(loaded)
    alone = tokens(answer(engine, "b", max_tokens=20, seed=1))
    kept = engine.compile(SamplingParams(regex="a+"))
    monkeypatch.setattr(Matcher, "mask", failing)
    told = run(engine, asked("a", regex="a+"), asked("b", max_tokens=20, seed=1))
    assert kept is engine.compile(SamplingParams(regex="a+"))
    assert end(told["a"]).reason == "error"
    assert "within its limits" in end(told["a"]).error
    assert tokens(told["b"]) == alone


CROWD = [
    asked("slow", regex="[a-z]{9}", seed=1),
    asked("plain", max_tokens=30, seed=2),
    asked("quick", regex="[0-9]{30}", max_tokens=30, seed=3),
]


class Steps:
    """A program that remembers how many sequences each step was of."""

    def __init__(self, program):
        self._program, self.sizes = program, []

    def __getattr__(self, name):
        return getattr(self._program, name)

    def run(self, batch):
        self.sizes.append(len(batch.starts) - 1)
        self._program.run(batch)


def told_of(told, id):
    return [event for other, event in told if other == id]


@pytest.mark.parametrize("other", CROWD[1:], ids=lambda other: other.id)
def test_nobody_waits_for_a_grammar_that_takes_long(loaded, monkeypatch, other):
    """What another gets, and in how many steps, is as if the slow one were not there; whether it
    has a grammar, too, or not."""
    program, slow = Steps(loaded.program), CROWD[0]
    engine = engine_over(loaded, program=program)
    alone = {one.id: run(engine, one)[one.id] for one in (slow, other)}
    program.sizes.clear()
    run(engine, other)
    num_steps = len(program.sizes)
    program.sizes.clear()
    made, gate = Matcher.mask, threading.Event()
    first = engine.compile(slow.params).matcher().mask().copy()

    def mask(self, **how):
        out = made(self, **how)
        assert not (out == first).all() or gate.wait(10)
        return out

    monkeypatch.setattr(Matcher, "mask", mask)
    monkeypatch.setattr(constraints, "PATIENCE", 10)  # whoever waited in vain would fail
    engine.add(slow)
    engine.add(other)
    told = []
    while not any(isinstance(event, Finished) for _, event in told):
        told += engine.step()
    assert {id for id, _ in told} == {other.id}
    assert program.sizes == [2] + [1] * (num_steps - 1)
    gate.set()
    while engine.has_work:
        told += engine.step()
    for one in (slow, other):
        assert tokens(told_of(told, one.id)) == tokens(alone[one.id])


def test_where_all_wait_for_masks_nothing_is_computed_and_nothing_spins(loaded, monkeypatch):
    program = Steps(loaded.program)
    engine = engine_over(loaded, program=program)
    alone = run(engine, CROWD[2])["quick"]
    program.sizes.clear()
    made, gate = Matcher.mask, threading.Event()
    kept = [engine.compile(one.params) for one in CROWD]  # whose first masks are made beforehand
    monkeypatch.setattr(Matcher, "mask", lambda self, **how: gate.wait(60) and made(self, **how))
    for one in (CROWD[0], CROWD[2]):
        engine.add(one)
    engine.step()
    began, num_steps = time.monotonic(), 0
    while num_steps < 5:
        assert engine.step() == []
        num_steps += 1
    assert time.monotonic() - began >= num_steps * constraints.PATIENCE
    assert program.sizes == [2]
    engine.add(CROWD[1])  # whoever comes meanwhile is served
    told = []
    while not any(isinstance(event, Finished) for _, event in told):
        told += engine.step()
    assert {id for id, _ in told} == {"plain"}
    engine.cancel("slow")
    gate.set()
    while engine.has_work:
        told += engine.step()
    assert end(told_of(told, "slow")).reason == "cancelled"
    assert tokens(told_of(told, "quick")) == tokens(alone)
    assert kept[0] is engine.compile(CROWD[0].params)


def test_heavy_masks_have_one_thread_among_them(loaded, monkeypatch):
    """More grammars than there are threads: each is found out once, then they share one."""
    monkeypatch.setattr(constraints, "HEAVY", 0)
    engine, made, threads = engine_over(loaded), Matcher.mask, []

    def mask(self, **how):
        threads.append(threading.current_thread().name)
        return made(self, **how)

    wanted = [asked(str(i), regex="[a-z]{9}", seed=i, logprobs=0) for i in range(8)]
    engine.compile(wanted[0].params)
    monkeypatch.setattr(Matcher, "mask", mask)
    told = run(engine, *wanted)
    heavy = [name for name in threads if "heavy" in name]
    assert len(threads) == sum(len(tokens(told[one.id])) for one in wanted)
    assert len(heavy) == len(threads) - len(wanted)
    assert len(set(heavy)) == 1


def test_grammars_that_are_compiled_anew_hold_up_no_other(loaded, monkeypatch):
    """More answers that fill theirs than there are threads."""
    engine = engine_over(loaded)
    slow = [asked(str(i), regex="[a-z]{9}", seed=i) for i in range(constraints.THREADS + 1)]
    other = asked("other", regex="[0-9]{30}", max_tokens=30, seed=3)
    alone = {one.id: tokens(run(engine, one)[one.id]) for one in (*slow, other)}
    full = engine.compile(slow[0].params)._prototype
    made, gate = Compiled.renewed, threading.Event()

    def renewed(self, *args, **how):
        assert gate.wait(10)
        return made(self, *args, **how)

    monkeypatch.setattr(Compiled, "is_full", lambda _, prototype: prototype is full)
    monkeypatch.setattr(Compiled, "renewed", renewed)
    told = []
    for one in (*slow, other):
        engine.add(one)
    while not any(isinstance(event, Finished) for _, event in told):
        told += engine.step()
    assert {id for id, _ in told} == {other.id}
    gate.set()
    while engine.has_work:
        told += engine.step()
    assert {id: tokens(told_of(told, id)) for id in alone} == alone


class Turns:
    """Masks that are there so many steps after they were asked for."""

    def __init__(self, delays):
        self._delays, self._steps = iter(delays), 0
        self._changed = threading.Condition()

    def mask(self, matcher, made, **how):
        with self._changed:
            until = self._steps + next(self._delays, 0)
            assert self._changed.wait_for(lambda: self._steps >= until, 10)
        return made(matcher, **how)

    def step(self):
        with self._changed:
            self._steps += 1
            self._changed.notify_all()


@examples(15, suppress_health_check=list(HealthCheck))
@given(
    delays=st.lists(st.integers(0, 4), max_size=60),
    options=st.sampled_from(
        [{}, {"max_running": 2, "num_pages": 9}, {"step_tokens": 5, "max_running": 3}]
    ),
)
def test_late_masks_change_no_answer(llama, delays, options):
    wanted = [
        asked("a", regex="[a-z]{9}", seed=1, max_tokens=20),
        asked("b", schema=RECORD, seed=2, max_tokens=40, logprobs=2),
        asked("c", seed=3, max_tokens=12),
        asked("d", prompt=range(5, 60), choice=("a long one", "a long two"), seed=4),
    ]
    alone = {one.id: run(engine_over(llama), one)[one.id] for one in wanted}
    engine, told = engine_over(llama, **options), []
    kept = [engine.compile(one.params) for one in wanted]  # not late: it is not beside a step
    turns, made = Turns(delays), Matcher.mask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constraints, "PATIENCE", 0.0005)
        patch.setattr(Matcher, "mask", lambda self, **how: turns.mask(self, made, **how))
        for one in wanted:
            engine.add(one)
        while engine.has_work:
            told += engine.step()
            turns.step()
    assert len(kept) == len(wanted)
    for one in wanted:
        assert tokens(told_of(told, one.id)) == tokens(alone[one.id])
        assert logprobs(told_of(told, one.id)) == logprobs(alone[one.id])


def test_a_cancelled_answer_leaves_nothing_behind(loaded):
    engine = engine_over(loaded)
    engine.add(asked("a", regex="[a-z]{900}", max_tokens=900))
    engine.step()
    engine.cancel("a")
    assert not engine.constraints._held


BETWEEN = re.compile(r'"([^"\\]|\\.)*("|$)|[,:] ')  # texts, and the white space that is not free


@examples(12, suppress_health_check=list(HealthCheck))
@given(schema=schemas(), seed=st.integers(0, 2**32))
def test_whatever_a_model_says_under_a_schema_is_valid(llama, schema, seed):
    engine = engine_over(llama)
    bias = {llama.tokenizer.encode(mark)[0]: 4 for mark in '"}]'}
    try:
        events = answer(engine, schema=schema, seed=seed, logit_bias=bias, max_tokens=300)
    except BadRequest:
        return
    told = text(events)
    assert not set(BETWEEN.sub("", told)) & set(" \t\r\n"), "also of what is cut off"
    if end(events).reason == "stop":
        assert is_valid(told, schema)
