"""What an engine promises for every request it takes, over tiny models and the real kernels."""

import dataclasses

import numpy as np
import pytest
from engines import answer, asked, end, engine_over, logprobs, run, text, tokens
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import octavo
from octavo.config import Config
from octavo.engine.engine import Engine
from octavo.engine.loading import load
from octavo.errors import BadCheckpoint, BadConfig, BadRequest, QueueFull
from octavo.types import Delta, Finished, Logits, PromptScored, Usage

THE, ON = 265, 264  # tokens of the tiny llama: " the" and "on"
FOREVER = {"max_tokens": None}


def always(token):
    """Parameters with which every token chosen is this one."""
    return {"temperature": 0, "logit_bias": {token: 100}}


@pytest.fixture
def engine(llama):
    return engine_over(llama)


def test_it_stops_at_the_end_of_turn(engine):
    eos = max(engine.tokenizer.eos_ids)
    events = answer(engine, **always(eos), ignore_eos=False)
    assert (text(events), tokens(events)) == ("", [eos])
    assert (end(events).reason, end(events).stop) == ("stop", None)


def test_it_goes_on_after_the_end_of_turn_where_told(engine):
    eos = max(engine.tokenizer.eos_ids)
    events = answer(engine, **always(eos), max_tokens=3)
    assert (tokens(events), end(events).reason) == ([eos] * 3, "length")


def test_it_stops_at_a_stop_token_and_names_it(engine):
    events = answer(engine, **always(THE), stop_token_ids=(ON, THE))
    assert (text(events), tokens(events)) == ("", [THE])
    assert (end(events).reason, end(events).stop) == ("stop", THE)


def test_it_stops_at_a_stop_string_that_spans_tokens_and_never_shows_it(engine):
    events = answer(engine, **always(THE), stop=("e the t",))
    assert (text(events), tokens(events)) == (" th", [THE] * 3)
    assert (end(events).reason, end(events).stop) == ("stop", "e the t")


def test_it_stops_at_max_tokens_and_shows_what_it_held_back(engine):
    events = answer(engine, **always(THE), stop=("the the the the",), max_tokens=3)
    assert text(events) == " the the the"
    assert (end(events).reason, end(events).usage) == ("length", Usage(3, 3, 0))


def test_it_stops_when_the_context_is_full(llama):
    engine = engine_over(llama, max_context=40)
    events = answer(engine, prompt=[5] * 30, **FOREVER)
    assert (end(events).reason, end(events).usage) == ("length", Usage(30, 10, 0))


def test_it_stops_when_the_pages_are_full(llama):
    engine = engine_over(llama, num_pages=2)
    events = answer(engine, prompt=[5] * 31, **FOREVER)
    assert (end(events).reason, end(events).usage) == ("length", Usage(31, 1, 0))


def test_half_a_character_at_the_end_is_shown_as_such(engine):
    (first_byte,) = engine.tokenizer.encode("é")[:1]
    assert text(answer(engine, **always(first_byte), max_tokens=1)) == "\N{REPLACEMENT CHARACTER}"


def test_one_delta_for_each_token_and_its_logprob(engine):
    *deltas, _ = answer(engine, temperature=0, logprobs=2)
    assert len(deltas) == 8
    for delta in deltas:
        (token,), (scored,) = delta.token_ids, delta.logprobs
        assert (scored.token_id, scored.top[0]) == (token, (token, scored.logprob))
        assert len(scored.top) == 2


@pytest.mark.parametrize(("home", "kind"), [("cpu", "float16"), ("reference", "float32")])
def test_prompt_logprobs_are_those_of_asking_token_by_token(llama_path, home, kind):
    engine = Engine(Config(str(llama_path), home=home, kv_dtype=kind, step_tokens=16))
    prompt = [5, 99, 200, 7, 7, 31, 150, 12, 64, 18, 4, 265, 280, 9, 9, 101, 33, 77, 100, 290, 3]
    scored, *_ = answer(engine, prompt=prompt, prompt_logprobs=3, max_tokens=1)
    assert isinstance(scored, PromptScored)
    assert len(scored.logprobs) == len(prompt) - 1
    for place, found in enumerate(scored.logprobs, 1):
        forced = always(prompt[place])
        (direct,) = logprobs(
            answer(engine, prompt=prompt[:place], **forced, logprobs=3, max_tokens=1)
        )
        assert found.token_id == direct.token_id == prompt[place]
        if home == "cpu":
            assert found == direct
        else:  # its sums depend on the shape of the batch
            assert found.logprob == pytest.approx(direct.logprob, abs=1e-4)


def test_a_prompt_of_one_token_has_no_logprobs(engine):
    scored, *_ = answer(engine, prompt=[5], prompt_logprobs=3, max_tokens=1)
    assert scored == PromptScored(())


def test_a_seed_is_drawn_and_named_and_gives_the_same_tokens_again(engine):
    first = answer(engine)
    again = answer(engine, seed=end(first).seed)
    assert tokens(again) == tokens(first)
    assert tokens(answer(engine, seed=1)) != tokens(answer(engine, seed=2))
    others = {end(answer(engine, max_tokens=1)).seed for _ in range(10)}
    assert len(others) == 10


def test_a_second_request_finds_the_pages_of_the_first(engine):
    assert end(answer(engine, prompt=[5] * 40)).usage.cached_tokens == 0
    assert end(answer(engine, prompt=[5] * 40)).usage.cached_tokens == 32


def test_without_prefix_cache_it_finds_none(llama):
    engine = engine_over(llama, prefix_cache=False)
    for _ in range(2):
        assert end(answer(engine, prompt=[5] * 40)).usage.cached_tokens == 0


def test_times_add_up_to_less_than_the_clock(engine):
    timing = end(answer(engine, prompt=[5] * 40)).timing
    assert min(timing.waiting, timing.prefill, timing.decode) > 0
    assert timing.waiting + timing.prefill + timing.decode < 60
    assert timing.preemptions == 0


def test_preempted_requests_say_so_and_end_as_they_would_have(llama):
    requests = [
        asked(str(i), [5 + i] * 20, **FOREVER | {"max_tokens": 40}, seed=i, prompt_logprobs=0)
        for i in range(3)
    ]
    alone = [run(engine_over(llama), one)[one.id] for one in requests]
    told = run(engine_over(llama, num_pages=7), *requests)
    assert sum(end(told[one.id]).timing.preemptions for one in requests) > 0
    for one, events in zip(requests, alone, strict=True):
        assert tokens(told[one.id]) == tokens(events)
        assert logprobs(told[one.id]) == logprobs(events)
        assert sum(isinstance(event, PromptScored) for event in told[one.id]) == 1


BAD = {
    "prompt": asked(prompt=[]),
    "prompt: token 304": asked(prompt=[5, 304]),
    "prompt: token -1": asked(prompt=[-1]),
    "prompt: 64 tokens": asked(prompt=[5] * 64),
    "stop_token_ids": asked(stop_token_ids=(304,)),
    "logit_bias": asked(logit_bias={-1: 1.0}),
}


@pytest.mark.parametrize("field", BAD)
def test_what_cannot_be_served_is_refused_by_name(llama, field):
    engine = engine_over(llama, max_context=64)
    with pytest.raises(BadRequest, match=f"^{field}"):
        engine.add(BAD[field])
    assert not engine.has_work


def test_an_id_that_has_not_finished_is_refused(engine):
    engine.add(asked("a"))
    with pytest.raises(BadRequest, match="'a' has not finished"):
        engine.add(asked("a"))
    assert [end(events).reason for events in run(engine).values()] == ["length"]


def test_a_full_queue_refuses_and_goes_on(llama):
    engine = engine_over(llama, max_running=1, max_waiting=1)
    engine.add(asked("a"))
    engine.add(asked("b"))
    with pytest.raises(QueueFull, match="2 requests run or wait already"):
        engine.add(asked("c"))
    assert set(run(engine)) == {"a", "b"}
    assert set(run(engine, asked("c"))) == {"c"}


def test_a_cancelled_request_frees_its_pages_at_once(engine):
    for id in "ab":
        engine.add(asked(id, [5] * 20, **FOREVER))
    engine.step()
    engine.cancel("a")
    (held,) = (group.held for group in engine.pages)
    assert held == 2
    told = dict(event for event in engine.step() if isinstance(event[1], Finished))
    assert told["a"].reason == "cancelled"
    assert (told["a"].usage.prompt_tokens, told["a"].usage.completion_tokens) == (20, 1)
    engine.cancel("b")
    assert [end(events).reason for events in run(engine).values()] == ["cancelled"]


def test_a_salt_keeps_prefixes_apart_and_changes_no_bit(engine):
    cached, said = [], []
    for salt in (None, "ours", "ours", "theirs", None):
        one = asked(salt or "a", range(5, 75), seed=3, temperature=1, logprobs=2)
        (events,) = run(engine, dataclasses.replace(one, cache_salt=salt)).values()
        cached.append(end(events).usage.cached_tokens)
        said.append((tokens(events), logprobs(events)))
    assert cached == [0, 0, 64, 0, 64]
    assert said == said[:1] * 5


def test_cancelling_what_has_finished_or_never_was_does_nothing(engine):
    answer(engine)
    engine.cancel("a")
    engine.cancel("nobody")
    assert not engine.has_work


def test_a_request_ends_when_its_own_time_is_over_running_or_waiting(llama):
    engine = engine_over(llama, max_running=1)
    for id, timeout in (("a", 1e-9), ("b", 1e-9), ("c", None)):
        engine.add(dataclasses.replace(asked(id, [5] * 20, **FOREVER), timeout=timeout))
    told = dict(event for event in engine.step() if isinstance(event[1], Finished))
    assert [told[id].reason for id in "ab"] == ["timeout"] * 2
    assert told["b"].error.startswith("timeout: 1e-09 s have passed")
    assert engine.num_running == 1  # the one without
    engine.cancel("c")
    engine.step()
    assert not engine.has_work


def test_a_timeout_that_has_not_passed_changes_nothing(engine):
    (events,) = run(engine, dataclasses.replace(asked("a", [5] * 20), timeout=3600)).values()
    engine.add(dataclasses.replace(asked("b", [5] * 20), timeout=3600))
    (again,) = run(engine).values()
    assert end(events).reason == end(again).reason == "length"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1"])
def test_a_timeout_that_is_no_time_is_refused(timeout):
    with pytest.raises(BadRequest, match="timeout"):
        dataclasses.replace(asked("a", [5]), timeout=timeout)


class FailingProgram:
    """The program it is over, but for the steps it is told to fail."""

    def __init__(self, program):
        self._program, self.fails = program, False
        self.buffer_bytes = program.buffer_bytes

    def run(self, batch):
        if self.fails:
            raise RuntimeError("a cosmic ray")
        self._program.run(batch)

    def logits(self, first, last):
        return self._program.logits(first, last)


def test_a_failed_step_ends_its_requests_and_no_others(llama, caplog):
    program = FailingProgram(llama.program)
    engine = engine_over(llama, program=program, max_running=2)
    for id in "abc":
        engine.add(asked(id, [5] * 20, seed=1))
    engine.step()
    program.fails = True
    failed = dict(engine.step())
    program.fails = False
    assert set(failed) == {"a", "b"}
    for finished in failed.values():
        assert (finished.reason, finished.usage.completion_tokens) == ("error", 1)
        assert finished.error == "the step failed: RuntimeError: a cosmic ray"
    assert "a cosmic ray" in caplog.text
    told = run(engine, asked("d", [5] * 20, seed=1))
    assert (
        tokens(told["c"])
        == tokens(told["d"])
        == tokens(answer(engine_over(llama), "d", [5] * 20, seed=1))
    )
    assert [group.held for group in engine.pages] == [0]


class BrokenProgram(FailingProgram):
    """Gives some rows of logits that are not numbers."""

    broken = ()

    def logits(self, first, last):
        logits = self._program.logits(first, last)
        values, maxima = logits.values.copy(), logits.maxima.copy()
        for row in self.broken:
            values[row, 70] = maxima[row, 1] = np.nan
        return Logits(values, maxima)


def test_a_row_that_is_not_numbers_ends_its_request_and_no_other(llama):
    program = BrokenProgram(llama.program)
    engine = engine_over(llama, program=program)
    for id in "abc":
        engine.add(asked(id, [5] * 20, seed=1, temperature=1, max_tokens=4))
    engine.step()
    program.broken = (1,)
    broken = dict(engine.step())
    program.broken = ()
    assert (broken["b"].reason, broken["b"].usage.completion_tokens) == ("error", 1)
    assert broken["b"].error == (
        "no token can be chosen: the model's logits are not finite numbers"
    )
    assert isinstance(broken["a"], Delta)
    assert isinstance(broken["c"], Delta)
    told = run(engine)
    assert end(told["a"]).reason == end(told["c"]).reason == "length"
    alone = tokens(answer(engine_over(llama), "c", [5] * 20, seed=1, temperature=1, max_tokens=4))
    assert alone[2:] == tokens(told["a"]) == tokens(told["c"])
    assert [group.held for group in engine.pages] == [0]


def test_a_prompt_whose_logprobs_are_not_numbers_ends_its_request(llama):
    program = BrokenProgram(llama.program)
    engine = engine_over(llama, program=program)
    program.broken = (2,)
    (finished,) = answer(engine, "a", [5] * 20, prompt_logprobs=1, max_tokens=4)
    assert finished.reason == "error"
    assert "not finite" in finished.error


PROMPTS = st.integers(1, 45).map(lambda length: [5 + length % 3] * length)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), PROMPTS, st.integers(1, 12), st.integers(-1, 1)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("fail")),
        st.tuples(st.just("step")),
        st.tuples(st.just("step")),
        st.tuples(st.just("step")),
    ),
    max_size=40,
)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
@pytest.mark.parametrize("model", ["llama", "gemma"])
def test_every_accepted_request_ends_in_exactly_one_finished(request, caplog, model, acts):
    model = request.getfixturevalue(model)
    program = FailingProgram(model.program)
    engine = engine_over(
        model, num_pages=5, program=program, max_running=3, max_waiting=4, step_tokens=24
    )
    told = {}
    for act in acts:
        perform(act, engine, program, told)
    while engine.has_work:
        hear(engine, told)
    for events in told.values():
        assert [isinstance(event, Finished) for event in events] == [False] * (len(events) - 1) + [
            True
        ]
        produced = [event for event in events if isinstance(event, Delta)]
        assert end(events).usage.completion_tokens == len(produced)
    assert not any(group.held for group in engine.pages)


def perform(act, engine, program, told):
    match act:
        case ("add", prompt, max_tokens, priority):
            id = str(len(told))
            try:
                engine.add(asked(id, prompt, priority=priority, max_tokens=max_tokens))
                told[id] = []
            except QueueFull:
                assert engine.num_waiting >= 4
        case ("cancel", id):
            engine.cancel(str(id))
        case ("fail",):
            program.fails = True
            hear(engine, told)
            program.fails = False
        case ("step",):
            hear(engine, told)


def hear(engine, told):
    for id, event in engine.step():
        told[id].append(event)


def test_the_fingerprint_follows_the_weights_and_the_kernels(llama_path, llama, tmp_path):
    here = engine_over(llama).fingerprint
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(llama_path.read_bytes())
    assert Engine(Config(str(copy))).fingerprint == here
    data = bytearray(llama_path.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert Engine(Config(str(copy))).fingerprint != here
    other = dataclasses.replace(llama, kernels="other kernels")
    assert engine_over(other).fingerprint != here
    assert Engine(Config(str(llama_path), kv_dtype="int8")).fingerprint != here


def test_pages_of_a_kind_that_a_home_lacks_are_refused_by_name(llama_path):
    for kind, home in (("int4", "cpu"), ("float32", "cpu"), (8, "reference")):
        with pytest.raises(BadConfig, match=f"kv_dtype: the {home} home has no {kind!r} pages"):
            load(Config(str(llama_path), home=home, kv_dtype=kind))


def test_pages_of_bytes_take_about_half_the_memory(llama_path, llama):
    small = load(Config(str(llama_path), kv_dtype="int8"))
    (group,) = small.groups
    a_head = group.head_dim + 4  # a byte each, and a scale
    assert small.plan.num_pages == llama.plan.num_pages
    assert small.plan.page_bytes * 2 * group.head_dim == llama.plan.page_bytes * a_head


def test_the_contract_of_the_kernels_is_no_home(llama_path):
    with pytest.raises(BadConfig, match="home: 'ops' computes nothing"):
        load(Config(str(llama_path), home="ops"))


def test_a_file_of_a_vocabulary_alone_has_a_tokenizer_and_runs_nothing(llama_path, tmp_path):
    content = bytearray(llama_path.read_bytes())
    content[8:16] = bytes(8)  # the number of tensors
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="holds a vocabulary and no weights"):
        load(Config(str(path)))
    assert octavo.Tokenizer(str(path)).encode("the") == octavo.Tokenizer(llama_path).encode("the")
