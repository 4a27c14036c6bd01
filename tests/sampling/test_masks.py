"""Masks in the native sampler: as if the logits of what is not allowed were -inf from the start."""

import numpy as np
import pytest
from choices import choice, logits_of, one
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from octavo.kernels import _cpu, cpu
from octavo.sampling.sampler import Row
from octavo.types import SamplingParams

LARGE = 5001


@pytest.fixture(params=_cpu.instruction_sets(), autouse=True)
def instruction_set(request, monkeypatch):
    monkeypatch.setattr(cpu, "INSTRUCTION_SET", request.param)


def mask_of(vocabulary, content, share):
    """Each token with probability `share`, whole blocks all or nothing; one at least."""
    random = np.random.default_rng(content)
    chosen = random.random(vocabulary) < share
    for block in range(0, vocabulary, 64):
        if (fate := random.integers(4)) < 2:
            chosen[block : block + 64] = bool(fate)
    chosen[random.integers(vocabulary)] = True
    bits = np.zeros(-(-vocabulary // 32) * 32, bool)
    bits[:vocabulary] = chosen
    return np.packbits(bits, bitorder="little").view(np.uint32)


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vocabulary=st.sampled_from(
        [1, 7, 40, 64, 65, 100, 1000, LARGE]
    ),  # words and blocks cut anywhere
    content=st.integers(0, 9999),
    share=st.sampled_from([0, 0.01, 0.5, 1]),
    temperature=st.sampled_from([0, 0.01, 0.7, 1.5, 100]),
    top_k=st.none() | st.sampled_from([1, 2, 5, 64, 65, 512]),
    top_p=st.sampled_from([1, 0.9, 1e-6]),
    min_p=st.sampled_from([0, 0.05, 1]),
    repetition=st.sampled_from([1, 1.3]),
    bias=st.dictionaries(st.just(0), st.sampled_from([-100, 100])),
)
def test_a_mask_is_minus_infinity_before_everything_else(
    vocabulary, content, share, temperature, top_k, top_p, min_p, repetition, bias
):
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition,
        logit_bias=bias,
    )
    output = [content % vocabulary]
    allowed = mask_of(vocabulary, content, share)
    row = Row(params, content, 7, output_ids=output, allowed=allowed)
    logits = logits_of(vocabulary, content)
    assert one(logits, row).token_id == choice(logits, row)


@pytest.mark.parametrize("top_k", [2, 5, 40, 65])
def test_the_k_likeliest_are_counted_among_those_allowed(top_k):
    """Also where a block's largest logit is not allowed, and tells nothing of the k-th."""
    params = SamplingParams(temperature=100, top_k=top_k)
    for content in range(20):
        allowed = mask_of(LARGE, content, 0.05)
        logits, row = logits_of(LARGE, content), Row(params, content, 7, allowed=allowed)
        assert one(logits, row).token_id == choice(logits, row)


def test_a_mask_changes_no_logprob_and_may_leave_no_choice():
    logits = logits_of(1000, 5)
    params = SamplingParams(temperature=0, logprobs=3)
    free = one(logits, Row(params, 0, 0)).logprob
    held = one(logits, Row(params, 0, 0, allowed=mask_of(1000, 3, 0))).logprob
    assert held.top == free.top
    assert held.logprob < free.logprob
    nothing = np.zeros(32, np.uint32)
    for params in ({}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}):
        assert one(logits, Row(SamplingParams(**params), 0, 0, allowed=nothing)) is None


def test_a_mask_has_a_bit_for_each_logit():
    short = np.zeros(1000 // 32, np.uint32)
    with pytest.raises(ValueError, match="allowed: not a bit for each logit"):
        one(logits_of(1000, 5), Row(SamplingParams(), 0, 0, allowed=short))
