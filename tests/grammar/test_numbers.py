"""Bounds and constants of numbers: whatever may be written satisfies them, judged by Decimals."""

import json
from decimal import Decimal
from random import Random

import pytest
from examples import examples
from grammars import END, allows, grammars, is_allowed
from hypothesis import given
from hypothesis import strategies as st

from octavo import BadRequest
from octavo.types import Grammar

KINDS = ("integer", "number")
FIXED = [
    {"exclusiveMinimum": 0, "maximum": 0.5},
    {"exclusiveMinimum": 1, "maximum": 1.5},
    {"exclusiveMinimum": 20, "maximum": 20.5},
    {"minimum": -0.5, "exclusiveMaximum": 0},
    {"minimum": -20.5, "exclusiveMaximum": -20},
    {"exclusiveMinimum": 0, "exclusiveMaximum": 1e-10},
    {"exclusiveMinimum": -1e-16, "maximum": 0.9999999999999999},
    {"exclusiveMinimum": -1e16, "maximum": -9999999999999998.0},
    {"minimum": 2**63 - 5000, "maximum": 2**63 - 1},
]


def written(schema, seed, length=40):
    """A number that a random walk over the bytes allowed writes; None if it does not end."""
    matcher, random, said = grammars().compile(schema).matcher(), Random(seed), b""
    while len(said) < length:
        mask = matcher.mask()
        may = [byte for byte in range(257) if is_allowed(mask, byte)]
        assert may, said
        chosen = END if END in may and random.random() < 0.5 else random.choice(may)
        if chosen == END:
            return Decimal(said.decode())
        said += bytes([chosen])
        matcher.consume(chosen)
        if matcher.is_complete:
            return Decimal(said.decode())
    return None


def holds(schema, number):
    exact = {word: Decimal(repr(value)) for word, value in schema.items() if word != "type"}
    return (
        number >= exact.get("minimum", number)
        and number <= exact.get("maximum", number)
        and number > exact.get("exclusiveMinimum", number - 1)
        and number < exact.get("exclusiveMaximum", number + 1)
        and (schema["type"] == "number" or number == number.to_integral_value())
    )


def check(schema, seeds):
    grammar = Grammar("json_schema", json.dumps(schema))
    try:
        grammars().compile(grammar)
    except BadRequest:
        return False
    for seed in seeds:
        number = written(grammar, seed)
        assert number is None or holds(schema, number), (schema, number)
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bounds", FIXED)
def test_what_is_near_a_bound_is_within(kind, bounds):
    check({"type": kind} | bounds, range(12))


BOUND = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**70), 2**70),
    st.floats(-30, 30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 0.1, -0.1, 1e-16, 1e16, 2**53, 2**63, -(2**63), 0.5, 20.5]),
)


@examples(60)
@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(["minimum", "exclusiveMinimum"]), BOUND, max_size=1),
    st.dictionaries(st.sampled_from(["maximum", "exclusiveMaximum"]), BOUND, max_size=1),
)
def test_whatever_the_bounds_what_is_written_is_within(kind, least, most):
    check({"type": kind} | least | most, range(3))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"exclusiveMinimum": 20, "maximum": 20.5}, "20.01 20.5 20.25", "20 20.0 21"),
        ({"minimum": -0.5, "exclusiveMaximum": 0}, "-0.5 -0.01", "0 -0 -0.0 -0.51"),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1e-10}, "0.00000000001", "0 0.0000000001"),
        ({"minimum": 5, "exclusiveMinimum": True}, "5.1 6", "5 4"),
        ({"minimum": 0, "maximum": 1.7976931348623157e308}, "0 1.5 123456789012", "-1"),
        ({"minimum": 0, "maximum": 2**64 - 1}, "0 9007199254740993", "-1 18446744073709551616"),
    ],
)
def test_bounds_leave_ordinary_numbers(schema, good, bad):
    grammar = Grammar("json_schema", json.dumps({"type": "number"} | schema))
    assert [text for text in good.split() if not allows(grammar, text)] == []
    assert [text for text in bad.split() if allows(grammar, text)] == []


@examples(60)
@given(BOUND)
def test_a_constant_is_written_as_itself(number):
    grammar = Grammar("json_schema", json.dumps({"const": number}))
    try:
        said = written(grammar, 0)
    except BadRequest:
        return
    assert said in (None, Decimal(repr(number)))


def test_the_ranges_that_generators_write_are_taken():
    assert check({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, range(5))
    assert check({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, range(5))
    schema = Grammar("json_schema", '{"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}')
    assert allows(schema, "0.25")
    assert allows(schema, "0.5")
    assert not allows(schema, "0")


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "integer", "minimum": 10**30}, "'minimum' at $"),
        ({"minimum": 2**63, "maximum": 2**64}, "'minimum' at $"),
        ({"exclusiveMinimum": float("inf")}, "'exclusiveMinimum' at $ is no number"),
        ({"maximum": None}, "'maximum' at $ is no number"),
        ({"exclusiveMaximum": True}, "'exclusiveMaximum' at $ is true beside no 'maximum'"),
        ({"items": {"const": 10**30}}, "'const' at $.items"),
        ({"const": -(2**63)}, "'const' at $ has -9223372036854775808"),
        ({"const": [{"a": 0.1 + 0.2}]}, "'const' at $ has 0.30000000000000004"),
        ({"prefixItems": [{}], "additionalItems": False}, "'additionalItems' at $"),
        ({"prefixItems": [{}], "items": [{}]}, "'items' at $"),
        ({"type": "string", "pattern": "^a\x01b$"}, "'pattern' at $"),
        ({"type": "string", "pattern": r"^a\vb$"}, "'pattern' at $"),
    ],
)
def test_what_is_not_held_exactly_is_refused(schema, place):
    with pytest.raises(BadRequest) as refused:
        grammars().compile(Grammar("json_schema", json.dumps(schema)))
    assert place in str(refused.value)


@pytest.mark.parametrize("pattern", [r"^[\x00-\x1f]$", r"^[^\x20-\x7e]$", r"^[\0-\x1f]{2}$"])
def test_no_class_of_control_characters_is_one_of_quotes(pattern):
    schema = Grammar("json_schema", json.dumps({"type": "string", "pattern": pattern}))
    for said in ('"\\""', '"\\"\\""', '"\\\\"', '"\\\\\\""'):
        assert not allows(schema, said)
