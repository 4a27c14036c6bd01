"""Schemas at random, of the keywords that are enforced, and `jsonschema`'s word on an answer.

from schemas import is_valid, schemas              (tests/ is on the path)
"""

import json
from decimal import Decimal, localcontext
from types import SimpleNamespace

import hypothesis_jsonschema._from_schema as values
import jsonschema
from hypothesis import strategies as st
from hypothesis.internal.conjecture import utils
from hypothesis_jsonschema import from_schema

__all__ = ["from_schema", "is_valid", "schemas", "several_of_an_object"]

NAMES = st.sampled_from(["a", "b", "name", "größe", "x y"])
SMALL = st.integers(0, 4)


class Many(utils.many):
    """hypothesis-jsonschema 0.23 asks for `more` elements, which Hypothesis offers no more."""

    def more(self):
        if self._depth is None:
            self.__enter__()
            self._each = iter(self)
        if next(self._each, self) is not self:
            return True
        self.__exit__(None, None, None)
        return False


if not hasattr(utils.many, "more"):
    values.cu = SimpleNamespace(**vars(utils) | {"many": Many})


def is_valid(text, schema):
    """Decimals, as the grammar counts: 0.3 is a multiple of 0.1."""
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    value = json.loads(text, parse_float=Decimal)
    kind = jsonschema.validators.validator_for(exact, jsonschema.Draft202012Validator)
    with localcontext(prec=1000):  # digits, more than an answer's numbers have
        return kind(exact, format_checker=kind.FORMAT_CHECKER).is_valid(value)


def range_of(low, high, numbers=SMALL):
    """{low: n, high: m}, n <= m, either may be absent."""

    def made(pair, keeps):
        first, last = sorted(pair)
        return {name: n for name, n, k in zip((low, high), (first, last), keeps, strict=True) if k}

    return st.builds(made, st.tuples(numbers, numbers), st.tuples(st.booleans(), st.booleans()))


def typed(kind, *parts):
    def joined(drawn):
        out = {"type": kind}
        for part in drawn:
            out |= part
        return out

    return st.tuples(*parts).map(joined)


def maybe(keyword, values):
    return st.one_of(st.just({}), values.map(lambda value: {keyword: value}))


def objects(inner):
    def made(properties, keeps, rest):
        required = [name for name, keep in zip(properties, keeps, strict=False) if keep]
        return {"type": "object", "properties": properties, "required": required} | rest

    rest = maybe("additionalProperties", st.one_of(st.booleans(), inner))
    shapes = st.dictionaries(NAMES, inner, max_size=3)
    return st.builds(made, shapes, st.lists(st.booleans(), min_size=3, max_size=3), rest)


LEAVES = st.one_of(
    typed("string", range_of("minLength", "maxLength")),
    typed("string", st.sampled_from([{"pattern": p} for p in ("^a+b?$", "[0-9]", "^[^x]{2}$")])),
    typed("string", st.sampled_from([{"format": f} for f in ("date", "ipv4", "uuid", "time")])),
    typed("integer", range_of("minimum", "maximum", st.integers(-30, 30))),
    typed("number", range_of("minimum", "exclusiveMaximum", st.sampled_from([-1.5, 0, 2, 7.25]))),
    typed("number", st.sampled_from([{"multipleOf": n} for n in (3, 0.5, 0.1)])),
    st.lists(st.sampled_from([1, "a", None, True, [1], {"a": "é"}]), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": "x\n"}, {}]),
)


def several_of_an_object():
    """What is said of one object in several places, whole names by patterns among it."""
    fits = st.sampled_from([{}, {"type": "integer"}, {"const": "a"}, False])
    parts = st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), fits, min_size=1),
            "required": st.just(["a"]),
            "patternProperties": st.dictionaries(
                st.sampled_from(["^a$", "^(a|b)$", "b$"]), fits, min_size=1, max_size=1
            ),
            "additionalProperties": st.just(False),
            "$ref": st.just("#/$defs/one"),
        },
    )
    several = st.tuples(st.sampled_from(["allOf", "anyOf"]), st.lists(parts, min_size=1))
    return st.builds(
        lambda here, word_and_more, one: here | dict([word_and_more]) | {"$defs": {"one": one}},
        parts.map(lambda part: {"type": "object"} | part),
        several,
        parts.filter(lambda part: "$ref" not in part),
    )


def schemas():
    return st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            objects(inner),
            typed("array", range_of("minItems", "maxItems"), maybe("items", inner)),
            typed(
                "array", st.lists(inner, min_size=1, max_size=2).map(lambda x: {"prefixItems": x})
            ),
            st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
            st.tuples(inner, inner).map(lambda pair: {"allOf": list(pair)}),
        ),
        max_leaves=5,
    )
