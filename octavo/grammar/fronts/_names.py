"""Names that are left to an object, whatever is said of it at once.

    {"required": ["a"], "$ref": "#/$defs/b"}
    {"$defs": {"b": {"patternProperties": {"^a$": {}}, "additionalProperties": false}}}

llguidance makes one object of both. Since there is a pattern it lets a comma follow `a`, and no
name could come behind that.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

from octavo.grammar.compiled import NO_ANSWER
from octavo.grammar.fronts._places import by_keyword, found, references
from octavo.grammar.fronts._trials import Trials
from octavo.types import Json

_Said: TypeAlias = dict[int, Json]  # schemas that hold at once, by their ids

_OF_OBJECTS: Final = ("properties", "required", "patternProperties", "additionalProperties")
_PLAIN: Final = frozenset({"type", "properties", "items"})  # these alone leave something that fits
MOST_SAID = 100_000  # what is said at once, of all objects, in 2 us


class NamesLeft:
    """Of all objects of a schema."""

    def __init__(self, root: Json) -> None:
        """`root` is what is enforced (_keywords.py)."""
        self._root, self._trials, self._num_said = root, Trials(), 0

    def are_there(self, schema: Json) -> bool:
        """For each object that fits. Raises ValueError where that takes too long to tell."""
        return all(map(self._is_one_there, self._said_of(schema, frozenset())))

    def _said_of(self, schema: Any, within: frozenset[str]) -> list[_Said]:
        """Of each object that fits; `within` what these references lead to."""
        if not isinstance(schema, dict):
            return [{}] if schema else []
        if "object" not in schema.get("type", "object") or "const" in schema or "enum" in schema:
            return []  # no name can be added to a constant
        parts = by_keyword(schema)
        several = [[part] for part in parts["allOf"].values()]
        several += [[*parts[word].values()] for word in ("anyOf", "oneOf") if word in schema]
        also = [
            self._distinct(chain(*(self._said_of(part, within) for part in branches)))
            for branches in several
        ]
        if (pointer := schema.get("$ref")) is not None:
            is_loop = pointer in within
            target = found(self._root, pointer)
            also.append([] if is_loop else self._said_of(target, within | {pointer}))
        said: list[_Said] = [{id(schema): schema} if any(w in schema for w in _OF_OBJECTS) else {}]
        for some in also:
            said = self._distinct(one | other for one in said for other in some)
        return said

    def _distinct(self, several: Iterable[_Said]) -> list[_Said]:
        out: dict[tuple[int, ...], _Said] = {}
        for said in several:
            self._num_said += 1
            if self._num_said > MOST_SAID:
                raise ValueError("leads to too many objects with 'patternProperties': give fewer")
            out[tuple(sorted(said))] = said
        return list(out.values())

    def _is_one_there(self, said: _Said) -> bool:
        taken = dict.fromkeys(chain(*map(_named, said.values())), False)
        others = list(map(_others, said.values()))
        patterns = dict.fromkeys(chain(*(one["patternProperties"] for one in others)))
        if not (taken and patterns) or self._is_longer_one(patterns, taken, others):
            return True
        tried = {"type": "object", "minProperties": 1, "properties": taken, "allOf": others}
        return self._trials.problem_with(tried, patterns) != NO_ANSWER

    def _is_longer_one(
        self, patterns: Iterable[str], taken: Iterable[str], others: Sequence[Json]
    ) -> bool:
        """Than all that are taken: what most objects of a schema have in common."""
        least = 1 << max(map(len, taken)).bit_length()
        for pattern in patterns:
            tried = {"type": "string", "pattern": pattern, "minLength": least}
            if _is_open(pattern, others) and self._trials.problem_with(tried, [pattern]) is None:
                return True
        return False


def _named(schema: Json) -> Iterable[str]:
    required = schema.get("required")
    return chain(
        by_keyword(schema)["properties"], map(str, required if isinstance(required, list) else ())
    )


def _others(schema: Json) -> Json:
    """What is said of other names. Something fits what refers (_endings.py)."""
    parts = by_keyword(schema)
    every = parts["additionalProperties"] or {"": True}
    named = {
        pattern: part if next(references(part), None) is None else True
        for pattern, part in parts["patternProperties"].items()
    }
    return {"patternProperties": named, "additionalProperties": every[""]}


def _is_open(pattern: str, others: Sequence[Json]) -> bool:
    """Something fits it wherever it names a property."""
    parts = [one["patternProperties"].get(pattern, one["additionalProperties"]) for one in others]
    parts = [part for part in parts if part not in (True, {})] or [{}]
    return len(parts) == 1 and isinstance(parts[0], dict) and parts[0].keys() <= _PLAIN
