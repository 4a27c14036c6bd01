"""JSON Schema's keywords: which are enforced, and which say nothing about an answer. Everything
else is refused, so that a misspelt keyword is not an answer without its constraint.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from octavo.errors import BadRequest
from octavo.grammar.fronts import _ecma, _numbers, _patterns
from octavo.grammar.fronts._names import NamesLeft
from octavo.grammar.fronts._places import (
    Names,
    found,
    names_of,
    pointer,
    replaced,
    shown,
    subschemas,
)
from octavo.types import Json

# fmt: off
ENFORCED: Final = frozenset({
    "type", "enum", "const", "allOf", "anyOf", "oneOf",
    "$ref", "$defs", "definitions", "$schema",
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
MOST_OPTIONAL = 400  # properties of an object: any of those left may come next
MOST_DIVISOR = 1e15
MOST_STATES = 10_000  # of an automaton that counts modulo all of `multipleOf`


class Reader:
    """One schema, on its way to what is enforced of it."""

    def __init__(self, root: Json, field: str) -> None:
        """`root` is located (_references.py)."""
        self._root, self._field = root, field
        self._divisors: set[Decimal] = set()
        self._referring: list[Json] = []
        self._schemas: list[tuple[Names, Json]] = []  # as they are kept, those within others first
        self._renamed: dict[Names, str] = {}  # what becomes of the last of them

    def read(self) -> Json:
        """Without what says nothing. Raises BadRequest."""
        kept: Json = self._read(self._root, ())
        for schema in self._referring:
            names = names_of(schema["$ref"])
            now = (self._renamed.get(names[: i + 1], name) for i, name in enumerate(names))
            schema["$ref"] = pointer(now)
        if any("patternProperties" in schema for _, schema in self._schemas):
            left = NamesLeft(kept)
            for names, schema in self._schemas:
                self._check_names(left, schema, names)
        return kept

    def _read(self, schema: Any, names: Names) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            problem = f"${shown(names)} is not a schema: give an object, true or false"
            raise BadRequest(problem, self._field)
        kept = {word: value for word, value in schema.items() if self._matters(word, value, names)}
        self._check(kept, names)
        parts = {inner: self._read(part, names + inner) for inner, part in subschemas(kept)}
        kept = self._with_patterns(self._bounded(replaced(kept, parts), names), names)
        if "anyOf" not in kept and self._are_apart(kept.get("oneOf")):
            kept["anyOf"] = kept.pop("oneOf")
            self._renamed[*names, "oneOf"] = "anyOf"
        if "$ref" in kept:
            self._referring.append(kept)
        self._schemas.append((names, kept))
        return kept

    def _matters(self, word: str, value: Any, names: Names) -> bool:
        if word in ENFORCED:
            return True
        if word in ANNOTATIONS or word.startswith("x-"):
            return False
        if word in NEUTRAL and value is NEUTRAL[word]:
            return False
        raise self._refusal(word, names, "is not enforced, leave it out")

    def _refusal(self, word: str, names: Names, problem: str) -> BadRequest:
        return BadRequest(f"{word[:80]!r} at ${shown(names)} {problem}", self._field)

    def _check(self, schema: Json, names: Names) -> None:
        """What llguidance takes and does not hold, or takes all too long over."""
        if "format" in schema and str(schema["format"]) not in FORMATS:
            known = ", ".join(sorted(FORMATS))
            problem = f"is {str(schema['format'])[:40]!r}, of which none is enforced but {known}"
            raise self._refusal("format", names, problem)
        required = schema.get("required", ())
        least = schema.get("minProperties", 0)
        if isinstance(least, int) and isinstance(required, list | tuple):
            most = len({str(name) for name in required}) + 1
            if least > most:  # of two equal keys, which count once, nobody would know
                raise self._refusal("minProperties", names, f"is enforced up to {most} here")
            named = schema.get("properties")
            optional = set(named if isinstance(named, dict) else ()) - set(map(str, required))
            if len(optional) > MOST_OPTIONAL:
                problem = f"has {len(optional)} that are not required, more than {MOST_OPTIONAL}"
                raise self._refusal("properties", names, problem)
        self._check_spelling(schema, names)
        self._check_items(schema, names)
        divisor = schema.get("multipleOf")
        if isinstance(divisor, int | float) and not isinstance(divisor, bool):
            self._divide(divisor, names)

    def _check_spelling(self, schema: Json, names: Names) -> None:
        """Texts and numbers that llguidance would write as others."""
        for word in ("const", "enum", "properties", "required"):
            value = schema.get(word)
            said = list(value) if word == "properties" and isinstance(value, dict) else value
            if _has_control_character(said):  # llguidance would leave it out
                raise self._refusal(word, names, "has a control character, which no answer may")
        for word in ("const", "enum"):
            if (number := _numbers.misspelled(schema.get(word))) is not None:
                problem = f"has {str(number)[:40]}, which is not held exactly"
                raise self._refusal(word, names, problem)

    def _check_items(self, schema: Json, names: Names) -> None:
        """Words of two drafts, of which llguidance reads one."""
        if "prefixItems" not in schema:
            return
        if isinstance(schema.get("items"), list):
            raise self._refusal("items", names, "is a list beside 'prefixItems': give one of them")
        if "additionalItems" in schema:
            raise self._refusal("additionalItems", names, "says nothing beside 'prefixItems'")

    def _divide(self, divisor: float, names: Names) -> None:
        if not 0 < divisor <= MOST_DIVISOR:
            problem = f"is not a number above 0 and up to {MOST_DIVISOR:g}"
            raise self._refusal("multipleOf", names, problem)
        self._divisors.add(Decimal(str(divisor)).normalize())
        finest = min(int(one.as_tuple().exponent) for one in self._divisors)
        whole = [int(one.scaleb(-finest)) for one in self._divisors] if finest > -30 else [10**30]
        if math.lcm(*whole) > MOST_STATES and (len(whole) > 1 or _digits(divisor) > MOST_STATES):
            problem = f"needs more than {MOST_STATES} remainders to be told apart"
            raise self._refusal("multipleOf", names, problem)

    def _check_names(self, left: NamesLeft, schema: Json, names: Names) -> None:
        """llguidance would write a comma, and find no name to follow."""
        words = ("patternProperties", "allOf", "anyOf", "oneOf", "$ref")
        for word in [word for word in words if word in schema][:1]:
            try:
                problem = "has no name left beside 'properties' and 'required'"
                is_wrong = not left.are_there(schema)
            except ValueError as error:
                problem, is_wrong = str(error), True
            if is_wrong:
                raise self._refusal(word, names, f"{problem}: say it in 'properties'")

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
                branch = found(self._root, branch["$ref"])
        if not isinstance(branch, dict) or branch.get("type") != "object":
            return {}
        properties, required = branch.get("properties"), branch.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return {}
        listed = {name: _texts(properties.get(name)) for name in required if isinstance(name, str)}
        return {name: texts for name, texts in listed.items() if texts}

    def _bounded(self, schema: Json, names: Names) -> Json:
        try:
            return _numbers.bounded(schema)
        except ValueError as error:
            word, problem = error.args
            raise self._refusal(word, names, problem) from None

    def _with_patterns(self, schema: Json, names: Names) -> Json:
        if isinstance(pattern := schema.get("pattern"), str):
            schema["pattern"] = self._translated(pattern, "pattern", names)
        if isinstance(named := schema.get("patternProperties"), dict):
            word = "patternProperties"
            now = {name: self._translated(name, word, names) for name in named}
            schema[word] = {now[name]: part for name, part in named.items()}
            self._renamed |= {(*names, word, name): now[name] for name in now}
            if len(schema[word]) < len(named):
                raise self._refusal(word, names, "has two that say the same: give one of them")
        if schema.get("format") in _patterns.OF_FORMATS:
            ours = {"pattern": _patterns.OF_FORMATS[schema.pop("format")]}
            others = schema.get("allOf", [])
            if "pattern" not in schema:
                schema |= ours
            elif isinstance(others, list):
                schema["allOf"] = [*others, ours]
        return schema

    def _translated(self, pattern: str, word: str, names: Names) -> str:
        try:
            return _ecma.translated(pattern)
        except ValueError as error:
            raise self._refusal(word, names, str(error)) from None


def _no_text_twice(texts: Sequence[frozenset[str]]) -> bool:
    return len(frozenset().union(*texts)) == sum(map(len, texts))


def _has_control_character(value: Any) -> bool:
    """Of those that JSON has no letter for, in a text or a name."""
    if isinstance(value, str):
        return _ecma.CONTROL.search(value) is not None
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
