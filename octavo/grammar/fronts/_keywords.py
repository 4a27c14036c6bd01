"""JSON Schema's keywords: which are enforced, which say nothing about an answer, and where schemas
lie within schemas. Everything else is refused, so that a misspelt keyword is not an answer without
its constraint.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from octavo.errors import BadRequest
from octavo.grammar.fronts import _patterns
from octavo.types import Json

ONE: Final = ("items", "additionalItems", "additionalProperties")  # each is a schema
SEVERAL: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")  # a list of them
NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")  # by name

# fmt: off
ENFORCED: Final = frozenset({
    "type", "enum", "const", "allOf", "anyOf", "oneOf",
    "$ref", "$defs", "definitions", "$id", "$anchor", "$schema",
    "properties", "required", "additionalProperties", "patternProperties",
    "minProperties", "maxProperties",
    "items", "prefixItems", "additionalItems", "minItems", "maxItems",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "format",
})
ANNOTATIONS: Final = frozenset({  # and all that begin with x-
    "$comment", "title", "description", "default", "example", "examples", "deprecated",
    "readOnly", "writeOnly", "discriminator", "externalDocs", "xml",
})
# fmt: on
NEUTRAL: Final[Json] = {  # the value that allows everything
    "uniqueItems": False,
    "nullable": False,
    "unevaluatedProperties": True,
    "unevaluatedItems": True,
}
FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
_CONTROL: Final = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
MOST_OPTIONAL = 400  # properties of an object: any of those left may come next
MOST_DIVISOR = 1e15
MOST_STATES = 10_000  # of an automaton that counts modulo all of `multipleOf`


def subschemas(schema: Json) -> Iterator[tuple[str, Any]]:
    """(the step there, what lies there)."""
    for keyword in ONE:
        if keyword in schema and not isinstance(schema[keyword], list):
            yield f".{keyword}", schema[keyword]
    for keyword in SEVERAL:
        if isinstance(schema.get(keyword), list):
            yield from ((f".{keyword}[{i}]", part) for i, part in enumerate(schema[keyword]))
    for keyword in NAMED:
        if isinstance(schema.get(keyword), dict):
            for name, part in schema[keyword].items():
                yield f".{keyword}{_step(name)}", part


def _step(name: str) -> str:
    """Whole: no two names have the same."""
    return f".{name}" if re.fullmatch(r"[\w-]{1,80}", name) else f"[{json.dumps(name)}]"


class Reader:
    """One schema, on its way to what is enforced of it."""

    def __init__(self, root: Json, field: str) -> None:
        self._root, self._field = root, field
        self._divisors: set[Decimal] = set()

    def read(self, schema: Any, path: str = "$") -> Any:
        """Without what says nothing. Raises BadRequest."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise BadRequest(f"{path} is not a schema: give an object, true or false", self._field)
        kept = {word: value for word, value in schema.items() if self._matters(word, value, path)}
        self._check(kept, path)
        parts = {step: self.read(part, path + step) for step, part in subschemas(kept)}
        kept = _with_patterns(_replaced(kept, parts))
        if "anyOf" not in kept and self._are_apart(kept.get("oneOf")):
            kept["anyOf"] = kept.pop("oneOf")
        return kept

    def _matters(self, word: str, value: Any, path: str) -> bool:
        if word in ENFORCED:
            return True
        if word in ANNOTATIONS or word.startswith("x-"):
            return False
        if word in NEUTRAL and value is NEUTRAL[word]:
            return False
        raise self._refusal(word, path, "is not enforced, leave it out")

    def _refusal(self, word: str, path: str, problem: str) -> BadRequest:
        return BadRequest(f"{word[:80]!r} at {path} {problem}", self._field)

    def _check(self, schema: Json, path: str) -> None:
        """What llguidance takes and does not hold, or takes all too long over."""
        if "format" in schema and str(schema["format"]) not in FORMATS:
            known = ", ".join(sorted(FORMATS))
            problem = f"is {str(schema['format'])[:40]!r}, of which none is enforced but {known}"
            raise self._refusal("format", path, problem)
        required = schema.get("required", ())
        least = schema.get("minProperties", 0)
        if isinstance(least, int) and isinstance(required, list | tuple):
            most = len({str(name) for name in required}) + 1
            if least > most:  # of two equal keys, which count once, nobody would know
                raise self._refusal("minProperties", path, f"is enforced up to {most} here")
            named = schema.get("properties")
            optional = set(named if isinstance(named, dict) else ()) - set(map(str, required))
            if len(optional) > MOST_OPTIONAL:
                problem = f"has {len(optional)} that are not required, more than {MOST_OPTIONAL}"
                raise self._refusal("properties", path, problem)
        for word in ("const", "enum", "properties", "required"):
            value = schema.get(word)
            said = list(value) if word == "properties" and isinstance(value, dict) else value
            if _has_control_character(said):  # llguidance would leave it out
                raise self._refusal(word, path, "has a control character, which no answer may")
        divisor = schema.get("multipleOf")
        if isinstance(divisor, int | float) and not isinstance(divisor, bool):
            self._divide(divisor, path)

    def _divide(self, divisor: float, path: str) -> None:
        if not 0 < divisor <= MOST_DIVISOR:
            problem = f"is not a number above 0 and up to {MOST_DIVISOR:g}"
            raise self._refusal("multipleOf", path, problem)
        self._divisors.add(Decimal(str(divisor)).normalize())
        finest = min(int(one.as_tuple().exponent) for one in self._divisors)
        whole = [int(one.scaleb(-finest)) for one in self._divisors] if finest > -30 else [10**30]
        if math.lcm(*whole) > MOST_STATES and (len(whole) > 1 or _digits(divisor) > MOST_STATES):
            problem = f"needs more than {MOST_STATES} remainders to be told apart"
            raise self._refusal("multipleOf", path, problem)

    def _are_apart(self, branches: Any) -> bool:
        """No two of them hold at once, because a required property tells them apart."""
        if not isinstance(branches, list) or len(branches) > 1000:
            return False
        tags = [self._tags(branch) for branch in branches]
        names = set.intersection(*map(set, tags)) if tags else set()
        return any(_no_text_twice([tag[name] for tag in tags]) for name in names)

    def _tags(self, branch: Any) -> dict[str, frozenset[str]]:
        """Of an object: what its required properties may be, where they are listed texts."""
        for _ in range(8):  # references to references
            if isinstance(branch, dict) and isinstance(branch.get("$ref"), str):
                branch = self._at(branch["$ref"])
        if not isinstance(branch, dict) or branch.get("type") != "object":
            return {}
        properties, required = branch.get("properties"), branch.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return {}
        listed = {name: _texts(properties.get(name)) for name in required if isinstance(name, str)}
        return {name: texts for name, texts in listed.items() if texts}

    def _at(self, reference: str) -> Any:
        here: Any = self._root
        for name in reference.removeprefix("#/").split("/"):
            here = here.get(name) if isinstance(here, dict) else None
        return here


def _no_text_twice(texts: Sequence[frozenset[str]]) -> bool:
    return len(frozenset().union(*texts)) == sum(map(len, texts))


def _has_control_character(value: Any) -> bool:
    """Of those that JSON has no letter for, in a text or a name."""
    if isinstance(value, str):
        return _CONTROL.search(value) is not None
    if isinstance(value, dict):
        return any(map(_has_control_character, [*value, *value.values()]))
    return isinstance(value, list) and any(map(_has_control_character, value))


def _digits(divisor: float) -> int:
    """7 of 0.007: the remainders an automaton for it alone tells apart."""
    return int("".join(map(str, Decimal(str(divisor)).normalize().as_tuple().digits)))


def _texts(schema: Any) -> frozenset[str]:
    if not isinstance(schema, dict):
        return frozenset()
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return frozenset()
    return frozenset(values)


def _with_patterns(schema: Json) -> Json:
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = _patterns.translated(pattern)
    if isinstance(named := schema.get("patternProperties"), dict):
        schema["patternProperties"] = {_patterns.translated(name): named[name] for name in named}
    if schema.get("format") in _patterns.OF_FORMATS:
        ours = {"pattern": _patterns.OF_FORMATS[schema.pop("format")]}
        others = schema.get("allOf", [])
        if "pattern" not in schema:
            schema |= ours
        elif isinstance(others, list):
            schema["allOf"] = [*others, ours]
    return schema


def _replaced(schema: Json, parts: Json) -> Json:
    """The schema, with these parts for its own."""
    out = dict(schema)
    for keyword in ONE:
        if f".{keyword}" in parts:
            out[keyword] = parts[f".{keyword}"]
    for keyword in SEVERAL:
        if isinstance(schema.get(keyword), list):
            out[keyword] = [parts[f".{keyword}[{i}]"] for i in range(len(schema[keyword]))]
    for keyword in NAMED:
        if isinstance(named := schema.get(keyword), dict):
            out[keyword] = {name: parts[f".{keyword}{_step(name)}"] for name in named}
    return out
