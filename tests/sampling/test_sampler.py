"""The native sampler against the same choice written in NumPy as the formulas read (choices.py)."""

import numpy as np
import pytest
from choices import choice, logits_of, one
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from octavo.kernels import _cpu, cpu
from octavo.kernels.reference import with_maxima
from octavo.sampling.sampler import Row, sample, score
from octavo.types import SamplingParams

SAME_SET = examples(  # the instruction set stays through all examples of one test
    150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VOCABULARIES = (1, 7, 8, 9, 64, 65, 1000)
LARGE = 5001  # enough for short cuts that a small vocabulary never takes


@pytest.fixture(params=_cpu.instruction_sets(), autouse=True)
def instruction_set(request, monkeypatch):
    monkeypatch.setattr(cpu, "INSTRUCTION_SET", request.param)


@SAME_SET
@given(
    vocabulary=st.sampled_from([*VOCABULARIES, LARGE]),
    content=st.integers(0, 9999),
    shift=st.sampled_from([0, -60, 200]),
    temperature=st.sampled_from([0, 0.01, 0.7, 1, 1.5, 100]),
    top_k=st.none() | st.sampled_from([1, 2, 5, 64, 65, 512, 513, 2000]),
    top_p=st.sampled_from([1, 0.999, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0, 1e-9, 0.05, 0.9, 1]),
    seed=st.integers(-(2**63), 2**64 - 1),
    position=st.integers(0, 2**20),
)
def test_cuts_and_noise_choose_as_the_formulas_do(
    vocabulary, content, shift, temperature, top_k, top_p, min_p, seed, position
):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits, row = logits_of(vocabulary, content) + np.float32(shift), Row(params, seed, position)
    assert one(logits, row).token_id == choice(logits, row)


@SAME_SET
@given(
    apart=st.sampled_from([1, 40]),  # the same tokens, in one block or in six
    content=st.integers(0, 9999),
    temperature=st.sampled_from([0, 0.8]),
    repetition=st.sampled_from([1, 1.3, 0.5]),
    presence=st.sampled_from([0, 0.6, -2]),
    frequency=st.sampled_from([0, 0.3, -1]),
    bias=st.dictionaries(st.integers(0, 8), st.floats(-100, 100, width=32), max_size=4),
    prompt=st.lists(st.integers(0, 8), max_size=6),
    output=st.lists(st.integers(0, 8), max_size=12),
)
def test_penalties_and_biases_are_applied_once_and_in_order(
    apart, content, temperature, repetition, presence, frequency, bias, prompt, output
):
    params = SamplingParams(
        temperature=temperature,
        repetition_penalty=repetition,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias={token * apart: value for token, value in bias.items()},
    )
    logits = logits_of(8 * apart + 1, content)
    prompt, output = ([token * apart for token in tokens] for tokens in (prompt, output))
    row = Row(params, content, len(prompt) + len(output), prompt, output)
    assert one(logits, row).token_id == choice(logits, row)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_ties_go_to_the_lower_id(vocabulary):
    flat = np.full(vocabulary, -3, np.float32)
    assert one(flat, Row(SamplingParams(temperature=0), 0, 0)).token_id == 0
    flat[vocabulary // 2 :] = 2
    assert one(flat, Row(SamplingParams(temperature=0), 0, 0)).token_id == vocabulary // 2
    near = SamplingParams(temperature=1, top_p=1e-9)
    assert one(flat, Row(near, 0, 0)).token_id == vocabulary // 2


@pytest.mark.parametrize(
    "params",
    [
        {"top_k": 1},
        {"top_p": 1e-9},
        {"temperature": 1e-6},
        {"temperature": 1e-39},
        {"temperature": 1e-39, "top_p": 0.9},
        {"temperature": 1e-50},
    ],
)
def test_what_leaves_one_token_is_greedy(params):
    for content in range(50):
        logits = np.random.default_rng(content).normal(0, 3, 1000).astype(np.float32)
        row = Row(SamplingParams(**params), content, content)
        assert one(logits, row).token_id == np.argmax(logits)


def test_tokens_masked_by_infinity_are_never_chosen():
    logits = np.zeros(100, np.float32)
    logits[:90] = -np.inf
    rows = [Row(SamplingParams(temperature=100, top_k=95), seed, 3) for seed in range(200)]
    chosen = {one(logits, row).token_id for row in rows}
    assert chosen == set(range(90, 100))
    lone = np.full(131, -np.inf, np.float32)
    lone[130] = -5
    for params in PLAIN:
        assert one(lone, Row(SamplingParams(**params), 1, 1)).token_id == 130


PLAIN = ({}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}, {"logprobs": 20})


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("vocabulary", [1, 8, 65, 1000])
def test_a_row_that_is_not_all_numbers_holds_no_choice(bad, vocabulary):
    for place in {0, vocabulary // 2, vocabulary - 1}:
        logits = logits_of(vocabulary, 0)
        logits[place] = bad
        for params in PLAIN:
            asked = SamplingParams(**params)
            assert one(logits, Row(asked, 0, 0)) is None
            assert one(logits, Row(asked, 0, 0, output_ids=[place])) is None
        assert score(with_maxima(logits[None]), [0], 5) == [None]
    nothing = np.full(vocabulary, -np.inf, np.float32)
    assert one(nothing, Row(SamplingParams(), 0, 0)) is None
    assert score(with_maxima(nothing[None]), [0], 5) == [None]


@pytest.mark.parametrize("spread", [0, 0.01, 4])
def test_every_top_k_keeps_as_many(spread):
    """At a temperature at which the one too many would be chosen."""
    for top_k in (*range(1, 90), 1000, 4000, LARGE - 1, LARGE):
        logits = np.random.default_rng(top_k).normal(0, spread, LARGE).astype(np.float32)
        row = Row(SamplingParams(temperature=100, top_k=top_k), top_k, 1)
        assert one(logits, row).token_id == choice(logits, row)
        if top_k < 90:
            (scored,) = score(with_maxima(logits[None]), [0], top_k)
            assert [token for token, _ in scored.top] == np.argsort(-logits, kind="stable")[
                :top_k
            ].tolist()


@pytest.mark.parametrize("spread", [0, 0.3, 4])
def test_a_large_vocabulary_is_raced_over_as_a_small_one(spread):
    """Here most winners are found from the noise. One logit leads, so that not all is noise."""
    size = 150_001
    logits = np.random.default_rng(5).normal(0, spread, size).astype(np.float32)
    logits[777] = 11
    ways = ({}, {"temperature": 2.5}, {"top_p": 0.6}, {"top_k": 60_000}, {"min_p": 0.0001})
    for seed, way in enumerate(ways):
        row = Row(SamplingParams(**way), seed, 9)
        assert one(logits, row).token_id == choice(logits, row)


@pytest.mark.parametrize("top_k", [70, 4000])
def test_of_equal_logits_the_lowest_ids_are_kept(top_k):
    """More than a cut keeps, in blocks that it keeps in part."""
    logits = np.zeros(5000, np.float32)
    logits[[3, 4500]] = 2
    kept = {one(logits, Row(SamplingParams(temperature=50, top_k=top_k), s, 1)).token_id
            for s in range(500)}  # fmt: skip
    assert kept <= {4500, *range(top_k)}
    assert max(kept - {4500}) > top_k * 0.9


def test_extreme_but_finite_logits_choose_the_largest():
    logits = np.array([-3e38, 3e38, 1e38, 0], np.float32)
    for params in ({}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 2}, {"temperature": 0}):
        assert one(logits, Row(SamplingParams(**params), 5, 5)).token_id == 1


def test_the_same_seed_and_position_choose_the_same_token_among_any_neighbours():
    logits = np.random.default_rng(0).normal(0, 2, (17, 999)).astype(np.float32)
    rows = [Row(SamplingParams(top_p=0.95), seed=i, position=100 - i) for i in range(17)]
    alone = [one(line, row).token_id for line, row in zip(logits, rows, strict=True)]
    order = np.random.default_rng(1).permutation(17)
    together = sample(with_maxima(logits[order]), [rows[i] for i in order])
    assert [s.token_id for s in together] == [alone[i] for i in order]


@pytest.mark.parametrize("by", ["seed", "position"])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (2.0, 5)])
def test_tokens_are_as_frequent_as_they_are_likely(by, temperature, top_k):
    logits = np.array([2, 1.5, 1, 0.5, 0, -0.5, -1, -3], np.float32)
    params, draws = SamplingParams(temperature=temperature, top_k=top_k), 6000
    rows = [Row(params, *((i, 7) if by == "seed" else (7, i))) for i in range(draws)]
    lines = with_maxima(np.tile(logits, (draws, 1)))
    tokens = np.array([s.token_id for s in sample(lines, rows)])
    weights = np.exp(logits.astype(float) / temperature)[:top_k]
    share = weights / weights.sum()
    # Chi-square with at most 7 degrees of freedom exceeds 40 once in a million. With neighbouring
    # seeds or positions in pairs there are at most 63, which exceed 130 as rarely.
    assert chi_square(np.bincount(tokens, minlength=len(share)), share * draws) < 40
    pairs = tokens[::2] * len(share) + tokens[1::2]
    expected = np.outer(share, share).ravel() * (draws // 2)
    assert chi_square(np.bincount(pairs, minlength=len(expected)), expected) < 130


def test_seed_and_position_do_not_stand_in_for_each_other():
    """Neither swapped nor where both are the same is the noise that of another pair."""
    flat, params = np.zeros(997, np.float32), SamplingParams()
    tokens = np.array(
        [[one(flat, Row(params, s, p)).token_id for p in range(40)] for s in range(40)]
    )
    # By chance 1600 pairs of draws from 997 agree 1.6 times, and 12 times once in a million.
    assert np.count_nonzero(tokens == tokens.T) - 40 < 12
    assert np.count_nonzero(np.diag(tokens) == tokens[0, 0]) < 12


def chi_square(seen, expected):
    assert len(seen) == len(expected)
    return float(np.sum((seen - expected) ** 2 / expected))


# ---- logprobs


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("spread", [0, 1, 30])
def test_logprobs_are_those_of_the_softmax(vocabulary, spread):
    logits = logits_of(vocabulary, 0, spread)
    exact = log_softmax(logits)
    # e^x is within 4 ulps, the sum of a block's 64 within 11, and what is left out as too light
    # within one; their logarithm turns that share into a difference. It, the largest logit, the sum
    # of the two and the final difference are rounded once each.
    allowed = (4 + 11 + 1 + 4 * np.abs(logits).max() + np.log(vocabulary)) * 2.0**-24
    scored = score(with_maxima(np.tile(logits, (vocabulary, 1))), range(vocabulary), 0)
    assert [s.token_id for s in scored] == list(range(vocabulary))
    np.testing.assert_allclose([s.logprob for s in scored], exact, rtol=2.0**-23, atol=allowed)


def log_softmax(logits):
    wide = logits.astype(float) - logits.max()
    return wide - np.log(np.exp(wide).sum())


@pytest.mark.parametrize("count", [1, 5, 20])
def test_alternatives_come_best_first_and_ties_by_id(count):
    for vocabulary in VOCABULARIES:
        logits = logits_of(vocabulary, 3, spread=1)
        (scored,) = score(with_maxima(logits[None]), [0], count)
        order = np.lexsort((np.arange(vocabulary), -logits))[:count]
        assert [token for token, _ in scored.top] == order.tolist()
        wanted = log_softmax(logits)[order]
        np.testing.assert_allclose([p for _, p in scored.top], wanted, atol=1e-5, rtol=0)


def test_logprobs_are_the_models_own_whatever_is_penalised():
    logits = logits_of(9, 1)
    plain = SamplingParams(temperature=0, logprobs=3)
    bent = SamplingParams(
        temperature=0.5, logprobs=3, logit_bias={4: 100}, repetition_penalty=2, presence_penalty=1
    )
    first = one(logits, Row(plain, 0, 0))
    second = one(logits, Row(bent, 0, 0, prompt_ids=(0, 1), output_ids=(2, 2)))
    assert second.token_id == 4
    assert second.logprob.top == first.logprob.top
    assert second.logprob.logprob == score(with_maxima(logits[None]), [4], 0)[0].logprob
    assert first.logprob.token_id == first.token_id
    assert one(logits, Row(SamplingParams(), 0, 0)).logprob is None
    assert one(logits, Row(SamplingParams(logprobs=0), 0, 0)).logprob.top == ()


# ---- the native door

GOOD = {
    "instruction_set": "generic",
    "logits": np.zeros(65, np.float32),
    "maxima": np.zeros(2, np.float32),
    "temperature": 1,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "repetition_penalty": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "seed": 0,
    "position": 0,
    "prompt": [],
    "output": [],
    "bias_ids": [],
    "biases": [],
}
BAD = {
    "no logits": {"logits": np.zeros(0, np.float32), "maxima": np.zeros(0, np.float32)},
    "too few maxima": {"maxima": np.zeros(1, np.float32)},
    "too many maxima": {"maxima": np.zeros(3, np.float32)},
    "a prompt's token past the end": {"prompt": [65]},
    "a negative token": {"output": [-1]},
    "a bias past the end": {"bias_ids": [65], "biases": [1]},
    "a bias for nobody": {"biases": [1]},
    "a mask that is too short": {"allowed": np.zeros(2, np.uint32)},
    "an unknown instruction set": {"instruction_set": "mmx"},
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_that_do_not_hold_together_are_refused(case):
    assert _cpu.sample(**GOOD) in range(65)
    with pytest.raises(ValueError, match=r".+"):
        _cpu.sample(**GOOD | BAD[case])
