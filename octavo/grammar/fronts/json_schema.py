"""JSON Schema, draft 2020-12 as far as llguidance enforces it; the rest is refused by name.

    schema ──_references.py──▶ one document ──_keywords.py──▶ what is enforced ──▶ grammar

Answers are written on one line, `{"a": 1, "b": [2, 3]}`, properties in the schema's order: no
white space is left to choose, so none can be endless. Strings escape what they must and nothing
else, so that no key has two spellings, of which a pattern, or the exclusion of the keys that have
a schema of their own, would see but one.
"""

import json
from time import monotonic
from typing import Any

from octavo.errors import BadRequest
from octavo.grammar.fronts._checked import answered
from octavo.grammar.fronts._endings import check_endings
from octavo.grammar.fronts._keywords import Reader
from octavo.grammar.fronts._places import shown, subschemas
from octavo.grammar.fronts._references import located
from octavo.grammar.fronts._trials import OPTIONS, grammar_of, problem_with
from octavo.types import Json

FIELD = "schema"
EXAMPLE = (
    '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}',
    '{"a": 12, "b": "x"}',
    '{"b": 12}',
)

MOST_BLAMING = 0.5  # seconds for finding what is at fault; then its surroundings are named

OF_ONE = (
    "it is enforced only where types, or a required property of listed texts, tell its schemas "
    "apart: give anyOf"
)


def read(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}", FIELD) from None
    return answered(grammar_of(enforceable(schema, FIELD)))


def enforceable(schema: Any, field: str) -> Json:
    """The schema as llguidance is to read it. Raises BadRequest that names the keyword and where
    it stands, from `$` on."""
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise BadRequest("a schema is an object or true", field)
    try:
        schema = located(schema, field)
        kept = Reader(schema, field).read()
        check_endings(schema, field)
    except RecursionError:
        raise BadRequest("it is nested too deeply", field) from None
    if problem := problem_with(kept):
        place = _blamed(kept, problem)
        raise BadRequest(place + OF_ONE if "coerce_one_of" in problem else place + problem, field)
    return kept | {"x-guidance": OPTIONS}


def _blamed(schema: Json, problem: str) -> str:
    """The deepest place that has the same problem by itself, and the keyword without which it has
    none."""
    shared: Json = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    path, here = "$", schema
    until = monotonic() + MOST_BLAMING
    while (inner := _worst(here, shared, problem, until)) is not None:
        path, here = path + inner[0], inner[1]
    for keyword in sorted(here, key=lambda word: (word not in problem, word == "type")):
        if monotonic() > until:
            break
        rest = {name: value for name, value in here.items() if name != keyword}
        if keyword not in shared and problem_with(shared | rest) != problem:
            return f"{keyword!r} at {path}: "
    return f"{path}: "


def _worst(schema: Json, shared: Json, problem: str, until: float) -> tuple[str, Json] | None:
    """None also when the time is over."""
    parts = sorted(subschemas(schema), key=lambda part: part[0][0] not in ("$defs", "definitions"))
    for names, part in parts:  # first what others refer to
        if monotonic() > until:
            return None
        if isinstance(part, dict) and problem_with(shared | part) == problem:
            return shown(names), part
    return None
