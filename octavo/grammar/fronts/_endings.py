"""References to what has no end: no finite answer fits a schema that always requires itself.

    {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}}}

They are refused wherever they stand, since an answer that chose one could only be cut off. What
else nothing fits, `false` or two numbers at once, is llguidance's to know, which leaves it out.
"""

from collections import defaultdict
from typing import Any, Final

from octavo.errors import BadRequest
from octavo.grammar.fronts._places import by_keyword, found, references, shown
from octavo.types import Json

KINDS: Final = ("null", "boolean", "string", "integer", "object", "array")
MOST_SEEN = 300_000  # schemas, each as often as it is looked at, in 3 us


def check_endings(root: Json, field: str) -> None:
    """`root` is located (_references.py). Raises BadRequest that names who refers."""
    references_of_root = list(references(root))
    endings = _Endings(root, {pointer for _, pointer in references_of_root}, field)
    for names, pointer in references_of_root:
        if not endings.kinds[pointer]:
            problem = "leads to what no finite answer fits: let something be left out there"
            raise BadRequest(f"'$ref' at ${shown(names)} {problem}", field)


class _Endings:
    """Which kinds of values may be finite where a reference leads, as the least fixed point."""

    def __init__(self, root: Json, pointers: set[str], field: str) -> None:
        self.kinds: dict[str, set[str]] = {pointer: set() for pointer in pointers}
        self._field, self._num_seen = field, 0
        targets = {pointer: found(root, pointer) for pointer in pointers}
        users: dict[str, set[str]] = defaultdict(set)
        for pointer, schema in targets.items():
            for _, used in references(schema):
                users[used].add(pointer)
        waiting = set(pointers)
        while waiting:
            pointer = waiting.pop()
            kinds = {kind for kind in KINDS if self._may_be(targets[pointer], kind)}
            if kinds != self.kinds[pointer]:
                self.kinds[pointer] = kinds
                waiting |= users[pointer]

    def _may_end(self, schema: Any) -> bool:
        return any(self._may_be(schema, kind) for kind in KINDS)

    def _may_be(self, schema: Any, kind: str) -> bool:
        """Whether a finite value of this kind may fit, by the references that are known to end."""
        self._num_seen += 1
        if self._num_seen > MOST_SEEN:
            problem = "it refers to itself in too many ways to see where they end: give fewer $refs"
            raise BadRequest(problem, self._field)
        if not isinstance(schema, dict):
            return True
        if kind not in str(schema.get("type", kind)).replace("number", "integer"):
            return False
        parts = by_keyword(schema)
        branches = [parts[word].values() for word in ("anyOf", "oneOf") if parts[word]]
        return (
            ("$ref" not in schema or kind in self.kinds[schema["$ref"]])
            and all(self._may_be(part, kind) for part in parts["allOf"].values())
            and all(any(self._may_be(part, kind) for part in some) for some in branches)
            and (kind != "object" or self._may_be_object(schema, parts))
            and (kind != "array" or self._may_be_array(schema, parts))
        )

    def _may_be_object(self, schema: Json, parts: dict[str, dict[str, Any]]) -> bool:
        named, required = parts["properties"], schema.get("required")
        others = [*parts["patternProperties"].values(), schema.get("additionalProperties", True)]
        asked = set(map(str, required)) if isinstance(required, list) else set()
        needed = [[named[name]] if name in named else others for name in asked]
        if _count(schema, "minProperties") > len(asked):
            needed.append([*(named[name] for name in named if name not in asked), *others])
        return all(any(map(self._may_end, some)) for some in needed)

    def _may_be_array(self, schema: Json, parts: dict[str, dict[str, Any]]) -> bool:
        is_list = isinstance(schema.get("items"), list)  # as in draft 7
        first = [*(parts["items"] if is_list else parts["prefixItems"]).values()]
        rest = schema.get("additionalItems" if is_list else "items", True)
        least = _count(schema, "minItems")
        needed = first[:least] + [rest] * (least > len(first))
        return all(map(self._may_end, needed))


def _count(schema: Json, word: str) -> int:
    count = schema.get(word, 0)
    return count if isinstance(count, int) else 0
