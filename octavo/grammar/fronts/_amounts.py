"""How much a grammar holds, counted before llguidance reads it: it looks at its own limits after
most of the work, which grows with the square of some amounts and the cube of others.

At each limit one grammar costs two seconds at most, whether it is then taken or refused.
"""

import re
from collections import Counter
from typing import Any, Final

from octavo.grammar.fronts._form import COMMENT, REGEX, SPECIAL, TEXT
from octavo.types import Json

PARTS: Final = "texts, patterns, names and comments"  # each is looked for among all before it
CLASSES: Final = "classes such as \\w"  # each takes 6 kB while they are read
ALTERNATIVES: Final = "alternatives"
JOINED: Final = "patterns and schemas that must hold at once"
MEMBERS: Final = "characters in sets such as [a-z]"  # in up to 200 us each
PAIRS: Final = "pairs of 'patternProperties'"  # it is proven that none overlaps
MOST: Final = {
    PARTS: 15_000,
    CLASSES: 20_000,
    ALTERNATIVES: 25_000,
    JOINED: 100,
    MEMBERS: 10_000,
    PAIRS: 10_000,
}
# As JSON, Lark and GBNF are cut.
_PART: Final = re.compile(
    rf"(?P<joins>&) | {COMMENT} | {TEXT} | {REGEX} | {SPECIAL} | [\w.+-]+", re.VERBOSE
)
_SET: Final = re.compile(r"\[(?:\\.|[^\]\\])*", re.DOTALL)
_MEMBER: Final = re.compile(r"\\(?:x\{\w*\}|.)|.", re.DOTALL)
_CLASS: Final = re.compile(r"\\[wWdDsSpP]")


def excess_of(text: str) -> str | None:
    """What a grammar, or a schema's JSON, has too much of, in one sentence."""
    kinds, num_members = Counter[str | None](), 0
    for part in _PART.finditer(text):
        kinds[part.lastgroup] += 1
        num_members += _num_members(part[0]) if part[0][0] == "/" else 0
    classes, alternatives = len(_CLASS.findall(text)), text.count("|")
    return _excess(
        {
            PARTS: kinds[None],
            JOINED: kinds["joins"],
            CLASSES: classes,
            ALTERNATIVES: alternatives,
            MEMBERS: num_members,
        }
    )


def excess_in(schema: Any) -> str | None:
    """What a schema joins, or has in patterns, too much of, in one sentence."""
    counts = Counter[str]()
    left = [schema]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            counts.update(_counts(value))
            left += value.values()
        elif isinstance(value, list):
            left += value
    return _excess(counts)


def _counts(schema: Json) -> dict[str, int]:
    """Where names of properties are taken for keywords, the count is too high by as much."""
    joined = int("$ref" in schema and len(schema) > 1)
    if isinstance(every := schema.get("allOf"), list):
        joined += len(every) - 1
    named = schema.get("patternProperties")
    patterns = [*named] if isinstance(named, dict) else []
    num_pairs = len(patterns) * (len(patterns) - 1) // 2
    if isinstance(pattern := schema.get("pattern"), str):
        patterns.append(pattern)
    return {JOINED: joined, PAIRS: num_pairs, MEMBERS: sum(map(_num_members, patterns))}


def _num_members(pattern: str) -> int:
    return sum(len(_MEMBER.findall(one)) for one in _SET.findall(pattern))


def _excess(counts: dict[str, int] | Counter[str]) -> str | None:
    over = next((what for what, count in counts.items() if count > MOST[what]), None)
    return over and f"{counts[over]} {over} are more than {MOST[over]}: give fewer"
