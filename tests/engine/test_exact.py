"""The tokens of an answer depend on the weights and the request, on nothing else.

Every answer is held against that of the same request alone, cold, its prompt in one chunk, on one
thread. Compared are the tokens and, as exact floats, the logprobs of the prompt and of each token
with its rivals: they are differences of logits, so a logit that is off by a bit shows.
"""

from dataclasses import replace

import pytest
from checkpoints import write_tiny
from engines import asked, end, engine_over, logprobs, run, text, tokens
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from octavo.config import Config
from octavo.engine.loading import load
from octavo.kernels import cpu

LIMITS = {"max_running": 17, "step_tokens": 768}  # the most any engine of this file asks for
LONG = 700  # tokens: many spans of keys
COMMON = [(7 * i * i + 3 * i) % 297 + 5 for i in range(LONG)]  # what prompts begin with alike

# Formats whose kernels differ: with and without minimum and sub-scales, every width, floats.
TINY = {
    "llama": ("llama", ["q4_1", "q4_k", "q6_k"]),
    "gemma": ("gemma3", ["q5_0", "q4_0", "q5_k", "bf16"]),
    "other formats": ("llama", ["q8_0", "q5_1", "q3_k", "f16", "q2_k", "f32"]),
}
GENERIC = "llama without vector instructions"
REAL = [pytest.param(name, marks=pytest.mark.models) for name in ("smollm2", "gemma3-270m")]


class Subject:
    """A model and a kind of pages, on one and on two threads."""

    def __init__(self, model: str, kind: str):
        self.one, self.two = (
            load(Config(model, **LIMITS, threads=n, kv_dtype=kind)) for n in (1, 2)
        )
        self._alone = {}

    def alone(self, one):
        key = repr(one)
        if key not in self._alone:
            engine = engine_over(self.one, **LIMITS, prefix_cache=False)
            self._alone[key] = told(run(engine, one)[one.id])
        return self._alone[key]


def told(events):
    last = end(events)
    return tokens(events), text(events), logprobs(events), last.reason, last.stop, last.seed


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """By name and kind of pages; each made when first asked for."""
    made = {}

    def subject(name, kind="float16"):
        if (name, kind) not in made:
            path = tmp_path_factory.mktemp("models") / "tiny.gguf"
            with pytest.MonkeyPatch.context() as patch:
                if name == GENERIC:
                    patch.setattr(cpu, "INSTRUCTION_SET", "generic")
                is_real = name not in (*TINY, GENERIC)
                model = name if is_real else write_tiny(path, *TINY.get(name, TINY["llama"]))
                made[name, kind] = Subject(str(model), kind)
        return made[name, kind]

    return subject


def prompt(common, tail):
    return COMMON[:common] + tail


RECORD = {
    "type": "object",
    "properties": {
        "the_name_of_the_thing": {"type": "string", "maxLength": 3},
        "and_its_kind": {"enum": ["one of these", "one of those"]},
    },
    "required": ["the_name_of_the_thing", "and_its_kind"],
}
# Much, little or nothing of what they allow is forced.
CONSTRAINTS = [{}, {}, {"schema": RECORD}, {"regex": "the (cat|car) [a-z ]*"}, {"choice": ("in",)}]


def asked_under(constraint, **wanted):
    return asked(**wanted, **constraint)


REQUESTS = st.builds(
    asked_under,
    prompt=st.builds(
        prompt, st.integers(0, 80), st.lists(st.integers(5, 300), min_size=1, max_size=20)
    ),
    priority=st.integers(0, 1),
    constraint=st.sampled_from(CONSTRAINTS),
    max_tokens=st.sampled_from([*range(1, 13), 40]),
    temperature=st.sampled_from([0, 0.7, 1.5]),
    top_p=st.sampled_from([1, 0.9]),
    repetition_penalty=st.sampled_from([1, 1.3]),
    seed=st.integers(0, 2**64 - 1),
    ignore_eos=st.booleans(),
    logprobs=st.sampled_from([20, 20, None]),  # who asks for them is told each token by itself
    prompt_logprobs=st.sampled_from([None, None, 20]),
)
# How many steps pass before each is asked.
ARRIVALS = st.lists(st.tuples(st.integers(0, 4), REQUESTS), min_size=1, max_size=17)


@st.composite
def engines(draw):
    """Options: any batch, any chunks, pages for all or hardly for one (100 tokens and 40 more),
    prefixes kept or not."""
    max_running = draw(st.integers(1, 17))
    return {
        "max_running": max_running,
        "step_tokens": draw(st.integers(max_running, 90)),
        "num_pages": draw(st.sampled_from([9, 10, 20, 512])),
        "prefix_cache": draw(st.booleans()),
    }


def check(subject, arrivals, options, num_threads):
    engine = engine_over(subject.one if num_threads == 1 else subject.two, **options)
    heard = {}
    requests = [replace(one, id=str(i)) for i, (_, one) in enumerate(arrivals)]
    for (delay, _), one in zip(arrivals, requests, strict=True):
        for _ in range(delay):
            hear(engine, heard)
        engine.add(one)
    while engine.has_work:
        hear(engine, heard)
    for one in requests:
        assert told(heard[one.id]) == subject.alone(one)


def hear(engine, heard):
    for id, event in engine.step():
        heard.setdefault(id, []).append(event)


CASES = given(
    arrivals=ARRIVALS,
    options=engines(),
    num_threads=st.sampled_from([1, 2]),
    kind=st.sampled_from(["float16", "int8"]),
)


@pytest.mark.parametrize("name", TINY)
@examples(10, suppress_health_check=list(HealthCheck))
@CASES
def test_nothing_that_happens_to_a_request_changes_its_answer(
    subjects, name, arrivals, options, num_threads, kind
):
    check(subjects(name, kind), arrivals, options, num_threads)


@pytest.mark.parametrize("name", REAL)
@examples(3, suppress_health_check=list(HealthCheck))
@CASES
def test_nothing_changes_an_answer_of_a_real_model(
    subjects, name, arrivals, options, num_threads, kind
):
    check(subjects(name, kind), arrivals, options, num_threads)


def test_nothing_changes_an_answer_without_vector_instructions(subjects):
    arrivals = [(i, asked(prompt=COMMON[: 9 + 8 * i], seed=i, logprobs=20)) for i in range(4)]
    options = {"max_running": 3, "step_tokens": 11, "num_pages": 5}
    check(subjects(GENERIC), arrivals, options, num_threads=2)


def long_request(id="a", length=LONG, **params):
    wanted = {"max_tokens": 10, "logprobs": 20, "seed": 3, "temperature": 0.8, **params}
    return asked(id, COMMON[:length], **wanted)


@pytest.fixture(params=["llama", "gemma", *REAL])
def subject(subjects, request):
    return subjects(request.param, "int8" if request.param == "gemma" else "float16")


@pytest.mark.parametrize(("length", "step_tokens"), [(150, 1), (LONG, 17), (LONG, 300)])
def test_a_long_prompt_may_come_in_any_chunks(subject, length, step_tokens):
    one = long_request(length=length, prompt_logprobs=20)
    engine = engine_over(subject.two, max_running=1, step_tokens=step_tokens)
    assert told(run(engine, one)["a"]) == subject.alone(one)


def test_a_prefix_may_be_found_at_any_length(subject):
    one = long_request()
    for length, found in ((15, 0), (16, 16), (350, 336), (LONG, 688)):
        engine = engine_over(subject.two, **LIMITS)
        run(engine, asked("before", COMMON[:length], max_tokens=1))
        events = run(engine, one)["a"]
        assert told(events) == subject.alone(one)
        assert end(events).usage.cached_tokens == found


def test_preemption_changes_nothing(subject):
    requests = [long_request(id, 400 + 7 * i, seed=i, max_tokens=40) for i, id in enumerate("abc")]
    engine = engine_over(subject.two, num_pages=81, prefix_cache=False, step_tokens=300)
    heard = run(engine, *requests)
    assert sum(end(heard[id]).timing.preemptions for id in "abc") > 0
    for one in requests:
        assert told(heard[one.id]) == subject.alone(one)


@pytest.mark.thorough
def test_preemption_changes_nothing_under_a_grammar(subject):
    records = {"type": "array", "items": RECORD, "minItems": 4}
    wanted = {"max_tokens": 200, "schema": records, "logprobs": None}
    requests = [long_request(id, 400 + 7 * i, seed=i, **wanted) for i, id in enumerate("abc")]
    engine = engine_over(subject.two, num_pages=81, prefix_cache=False, step_tokens=300)
    heard = run(engine, *requests)
    assert sum(end(heard[id]).timing.preemptions for id in "abc") > 0
    for one in requests:
        assert told(heard[one.id]) == subject.alone(one)


def test_sixteen_others_change_nothing(subject):
    requests = [long_request(str(i), 5 + 20 * i, seed=i) for i in range(17)]
    heard = run(engine_over(subject.two, **LIMITS), *requests)
    for one in requests:
        assert told(heard[one.id]) == subject.alone(one)


def test_pages_that_others_took_meanwhile_are_not_found_again(subject):
    requests = [asked(str(i), COMMON[90 * i :][:90], seed=i, logprobs=20) for i in range(4)]
    engine = engine_over(subject.two, num_pages=8)
    for one in requests * 2:
        assert told(run(engine, one)[one.id]) == subject.alone(one)
