"""Bounds of numbers against `jsonschema`, which counts in decimals here: what is written is within
them, and a number well within may be written."""

import json
import random
from decimal import Decimal

import pytest
from grammars import allows, grammars, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemas import is_valid

from octavo import BadRequest
from octavo.types import Grammar

NEAR_ENDS = [2**53 - 1, 2**53 + 1, 10**18, 2**63 - 1025, 2**63 - 1, 2**63, 2**64 - 1, 10**30]
NUMBERS = st.one_of(
    st.integers(-30, 30),
    st.sampled_from([*NEAR_ENDS, *(-number for number in NEAR_ENDS), 1e16, -1e16, 1e25, 1.7e308]),
    st.sampled_from([1e-7, 1e-16, 5e-324, 1e-300, 0.1 + 0.2, 1 / 3, 0.9999999999999999]),
    st.sampled_from([-1e-10, -1e-16, -5e-324, -1 / 3, -9999999999999998.0, -0.0]),
    st.floats(-30, 30),
    st.decimals(-30, 30, places=2).map(float),
)
GAPS = st.sampled_from([0, 1e-9, 0.001, 0.5, 1, 2])
LOW, HIGH = ["minimum", "exclusiveMinimum"], ["maximum", "exclusiveMaximum"]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def schema_of(value):
    return Grammar("json_schema", json.dumps(value))


@st.composite
def bounds(draw):
    low = draw(NUMBERS)
    high = draw(st.one_of(NUMBERS, GAPS.map(lambda gap: low + gap)))
    low, high = sorted([low, high])
    drawn = {draw(st.sampled_from(LOW)): low, draw(st.sampled_from(HIGH)): high}
    kept = {word: value for word, value in drawn.items() if draw(st.integers(0, 3))}
    return {"type": draw(st.sampled_from(["integer", "number"]))} | kept


@FEW
@given(bounds(), st.lists(st.integers(0, 999), min_size=3, max_size=3))
def test_what_is_written_is_within_its_bounds(schema, seeds):
    try:
        grammars().compile(schema_of(schema))
    except BadRequest:
        return
    for seed in seeds:
        text = written(schema_of(schema), random.Random(seed), most=60)
        assert text is None or is_valid(text, schema)


@FEW
@given(bounds(), st.decimals(-31, 31, places=2))
def test_nothing_beyond_its_bounds_may_be_written(schema, number):
    text = f"{number:f}".rstrip("0").rstrip(".")
    near = {text, *(str(schema[word]) for word in LOW + HIGH if word in schema)}
    try:
        assert all(is_valid(one, schema) for one in near if allows(schema_of(schema), one))
    except BadRequest:
        return


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"exclusiveMinimum": 0, "maximum": 0.5}, "0.1 0.0001 0.5 0.499", "0 0.0 -0.1 0.51"),
        ({"exclusiveMinimum": 20, "maximum": 20.5}, "20.01 20.5 20.25", "20 20.0 21"),
        ({"minimum": -0.5, "exclusiveMaximum": 0}, "-0.5 -0.01", "0 -0 -0.0 -0.51"),
        ({"minimum": -20.5, "exclusiveMaximum": -20}, "-20.5 -20.01", "-20 -20.0 -21"),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1e-10}, "0.00000000001", "0 0.0000000001"),
        ({"minimum": 5, "exclusiveMinimum": True}, "5.1 6", "5 4"),
        ({"minimum": 0, "maximum": 1.7976931348623157e308}, "0 1.5 123456789012", "-1"),
    ],
)
def test_bounds_leave_ordinary_numbers(schema, good, bad):
    grammar = schema_of({"type": "number"} | schema)
    assert [text for text in good.split() if not allows(grammar, text)] == []
    assert [text for text in bad.split() if allows(grammar, text)] == []


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize("bits", [63, 64])
def test_the_integers_of_a_machine_are_taken(kind, bits):
    low = -(2**63) if bits == 63 else 0
    grammar = schema_of({"type": kind, "minimum": low, "maximum": 2**bits - 1})
    assert allows(grammar, "9007199254740993")
    assert allows(grammar, "-9007199254740993") == (bits == 63)
    assert not allows(grammar, str(2**bits))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"minimum": 10**30, "maximum": 10**30 + 5}, "'minimum' at $ is further than"),
        ({"minimum": -(2**63), "maximum": -(2**63)}, "'maximum' at $ is further than"),
        ({"exclusiveMinimum": -1e25, "maximum": -(2**63)}, "'maximum' at $ is further than"),
        ({"exclusiveMinimum": float("inf")}, "'exclusiveMinimum' at $ is no number, or none"),
        ({"maximum": float("nan")}, "'maximum' at $ is no number, or none"),
        ({"maximum": None}, "'maximum' at $ is no number, or none"),
        ({"exclusiveMaximum": True}, "'exclusiveMaximum' at $ is true beside no 'maximum'"),
        ({"const": -(2**63)}, "'const' at $ has -9223372036854775808"),
        ({"enum": [1, 2**53 + 1]}, "'enum' at $ has 9007199254740993"),
        ({"const": [{"a": 10**400}]}, "'const' at $ has 1000"),
        ({"const": 0.1 + 0.2}, "'const' at $ has 0.30000000000000004"),
        ({"const": float("inf")}, "'const' at $ has inf"),
    ],
)
def test_what_no_double_holds_is_refused(schema, problem):
    with pytest.raises(BadRequest) as refusal:
        grammars().compile(schema_of({"type": "integer"} | schema))
    assert problem in str(refusal.value)


@given(st.one_of(NUMBERS, st.floats(allow_nan=False, allow_infinity=False)))
@FEW
def test_a_constant_is_written_as_itself(number):
    grammar = schema_of({"const": number})
    try:
        text = written(grammar, random.Random(0), most=60)
    except BadRequest:
        return
    assert text is None or Decimal(text) == Decimal(str(number))
