"""How much a grammar holds, counted before llguidance reads it: it looks at its own limits after
most of the work, which grows with the square of some amounts and the cube of others.

At each limit one grammar costs two seconds at most, whether it is then taken or refused.
"""

import re
from collections import Counter
from typing import Any, Final

from octavo.types import Json

PARTS: Final = "texts, patterns, names and comments"  # each is looked for among all before it
CLASSES: Final = "classes such as \\w"  # each takes 6 kB while they are read
ALTERNATIVES: Final = "alternatives"
JOINED: Final = "patterns and schemas that must hold at once"
PAIRS: Final = "pairs of 'patternProperties'"  # it is proven that none overlaps
MOST: Final = {
    PARTS: 15_000,
    CLASSES: 20_000,
    ALTERNATIVES: 25_000,
    JOINED: 100,
    PAIRS: 10_000,
}
# As JSON, Lark and GBNF are cut. What is not closed is looked through once: whatever might begin
# within it has a backslash before it.
_PART: Final = re.compile(
    r"""(?P<joins>&) | (?:\#|//)[^\n]* | (?<!\\)"(?:\\.|[^"\\])*" | (?<!\\)/(?:\\.|[^/\\])+/
      | <[^<>\s]+>
      | [\w.+-]+""",
    re.VERBOSE,
)
_CLASS: Final = re.compile(r"\\[wWdDsSpP]")


def excess_of(text: str) -> str | None:
    """What a grammar, or a schema's JSON, has too much of, in one sentence."""
    kinds = Counter(part.lastgroup for part in _PART.finditer(text))
    classes, alternatives = len(_CLASS.findall(text)), text.count("|")
    return _excess(
        {PARTS: kinds[None], JOINED: kinds["joins"], CLASSES: classes, ALTERNATIVES: alternatives}
    )


def excess_joined(schema: Any) -> str | None:
    """What a schema joins too much of, in one sentence."""
    counts = Counter[str]()
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            counts.update(_joined(value))
            left += value.values()
        elif isinstance(value, list):
            left += value
    return _excess(counts)


def _joined(schema: Json) -> dict[str, int]:
    """Where names of properties are taken for keywords, the count is too high by as much."""
    joined = int("$ref" in schema and len(schema) > 1)
    if isinstance(every := schema.get("allOf"), list):
        joined += len(every) - 1
    num_patterns = 0
    if isinstance(patterns := schema.get("patternProperties"), dict):
        num_patterns = len(patterns)
    return {JOINED: joined, PAIRS: num_patterns * (num_patterns - 1) // 2}


def _excess(counts: dict[str, int] | Counter[str]) -> str | None:
    over = next((what for what, count in counts.items() if count > MOST[what]), None)
    return over and f"{counts[over]} {over} are more than {MOST[over]}: give fewer"
