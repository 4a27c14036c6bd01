r"""How much text one piece of a grammar makes come at most, in bytes, or characters of a pattern.

    "so it goes on"    13          /[0-9]{4}-(0|1){2}/    7         {"const": "red"}    5

llguidance goes through all text that must come at once, and no other thread runs meanwhile. How
many pieces that may be (texts, terminals, keys) is limited, and here it is told how long one is: of
a choice the longest, of what repeats as often as it must. What must hold at once, or must not, has
no end that is known.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any, Final, TypeAlias

from octavo.grammar.fronts._form import grammars_in, lexemes
from octavo.grammar.fronts._places import subschemas
from octavo.types import Json

# ( ) and | as they stand, * with how often at least, a name, or "" with a length.
_Part: TypeAlias = tuple[str, float]

_SET: Final = r"\[\^?\]?(?:\\.|[^\[\]\\]{})*\]"  # of characters
_IN_REGEX: Final = re.compile(
    rf"""(?P<open> \( (?: \?[imsU-]*: | \?P?<\w+> )? (?!\?) )
      | (?P<close> \) )
      | (?P<or> \| )
      | (?P<times> \{{(?P<least>[0-9]{{1,9}})[0-9,]*\}} )
      | (?P<none> [*+?^$] | \(\?[imsU-]+\) )
      | \\[pPuUx]\{{\w*\}} | \\x[0-9A-Fa-f]{{2}} | \\. | [^\\(\[]
      | {_SET.format("|" + _SET.format(""))}""",
    re.VERBOSE | re.DOTALL,
)
_MARKS: Final = {"open": "(", "close": ")", "or": "|"}
_APART: Final = ("$defs", "definitions", "$schema", "x-guidance")  # say nothing of the value
_JOINING: Final = ("allOf", "anyOf", "oneOf")
_OF_TEXTS: Final = ("pattern", "patternProperties", "minLength", "$ref")  # or may lead to such


def reach(grammar: str, joined: float) -> float:
    """`grammar` is in llguidance's form, and one that it takes. `joined` is what is counted in Lark
    for what must hold at once, or must not."""
    return max(_of_grammar(one, joined) for one in grammars_in(grammar))


def of_pattern(pattern: str) -> float:
    """Of a regular expression in Rust's syntax."""
    return _longest(_parts_of(pattern))


def _of_grammar(grammar: Json, joined: float) -> float:
    if (schema := grammar.get("json_schema")) is not None:
        return _of_schema(schema)
    return _Lark(grammar["lark_grammar"], joined).reach


def _of_schema(root: Any) -> float:
    within = _schemas(root)
    longest, has_pattern = 0.0, False
    for schema, _, _ in within:
        texts = [*schema.get("properties", ()), *schema.get("required", ())]
        values = [schema["const"]] if "const" in schema else schema.get("enum", ())
        texts += [json.dumps(value, ensure_ascii=False) for value in values]
        patterns = [*schema.get("patternProperties", ())]
        if "pattern" in schema:
            patterns.append(schema["pattern"])
        has_pattern = has_pattern or bool(patterns)
        least = schema.get("minLength", 0) if "pattern" in schema else 0
        lengths = [len(text.encode()) for text in texts]
        longest = max(longest, *lengths, *(of_pattern(one) + least for one in patterns), 0.0)
    return inf if has_pattern and _joins_texts(within) else longest


def _schemas(root: Any) -> list[tuple[Json, int, str]]:
    """(each, the place of the one around it, by which keyword), outer ones first."""
    found = [(root, 0, "")] if isinstance(root, dict) else []
    for i, (schema, _, _) in enumerate(found):  # which grows
        parts = subschemas(schema)
        found += [(part, i, names[0]) for names, part in parts if isinstance(part, dict)]
    return found


def _joins_texts(within: Sequence[tuple[Json, int, str]]) -> bool:
    """Whether two schemas may say something of the same text, which then has to fit both."""
    # Of each, whether it says something of a text, or one within it does.
    of_texts = [any(word in schema for word in _OF_TEXTS) for schema, _, _ in within]
    for i in reversed(range(1, len(within))):  # inner ones first
        _, outer, keyword = within[i]
        of_texts[outer] = of_texts[outer] or of_texts[i]
        if of_texts[i] and keyword in _JOINING and _says_several(within[outer][0]):
            return True
    return any("$ref" in schema and _says_several(schema) for schema, _, _ in within)


def _says_several(schema: Json) -> bool:
    """At once, of the same value."""
    return sum(word not in _APART for word in schema) > 1 or len(schema.get("allOf", ())) > 1


class _Lark:
    """Terminals, and rules that have attributes, are one piece each; of other rules each text and
    each regular expression is."""

    def __init__(self, text: str, joined: float) -> None:
        self._joined = joined
        self.reach = 0.0  # of the longest piece
        self._definitions: dict[str, list[list[_Part]]] = defaultdict(list)
        self._known: dict[str, float] = {}
        pieces = self._read(text)
        try:
            self.reach = max(self.reach, *map(self._of_name, pieces), 0.0)
        except RecursionError:
            self.reach = inf

    def _read(self, text: str) -> list[str]:
        """The names of what is one piece."""
        pieces: list[str] = []
        parts: list[_Part] = []
        name_at = num_open = 0
        for found, value, _ in lexemes(text):
            if found.lastgroup == "is":
                (name, *attributes), parts[name_at:] = parts[name_at:] or [("", 0)], []
                self._definitions[name[0]].append(parts := [])
                if attributes or name[0].lstrip("_")[:1].isupper():
                    pieces.append(name[0])
                name_at = num_open = 0
            elif (part := _marked(found) or _term(found, value, self._joined)) is not None:
                num_open += {"(": 1, ")": -1}.get(part[0], 0)
                if found.lastgroup == "name" and not num_open:
                    name_at = len(parts)
                self.reach = max(self.reach, part[1] if not part[0] else 0)
                parts.append(part)
        return pieces

    def _of_name(self, name: str) -> float:
        if name not in self._known:
            self._known[name] = inf  # where it leads to itself
            several = self._definitions.get(name, ())
            self._known[name] = max((_longest(map(self._told, one)) for one in several), default=0)
        return self._known[name]

    def _told(self, part: _Part) -> _Part:
        mark, _ = part
        return ("", self._of_name(mark)) if mark[:1].isalpha() or mark[:1] == "_" else part


def _marked(found: re.Match[str]) -> _Part | None:
    if found.lastgroup == "times":
        return "*", int(found["least"])
    return (_MARKS[found.lastgroup], 0) if found.lastgroup in _MARKS else None


def _term(found: re.Match[str], value: Any, joined: float) -> _Part | None:
    match found.lastgroup:
        case "name":
            return found[0], 0
        case "text":
            return "", len(found[0].encode()) - 2
        case "regex":
            pattern, flags = found[0][1:].rsplit("/", 1)
            return "", inf if "x" in flags else of_pattern(pattern)  # with comments
        case "word" if found["word"] == "%json":
            return "", _of_schema(value)
        case "word" if found["word"] == "%regex":
            return "", inf
        case "joins":
            return "", joined
    return None


def _parts_of(pattern: str) -> Iterator[_Part]:
    at = 0
    while at < len(pattern):
        if (found := _IN_REGEX.match(pattern, at)) is None:
            yield "", inf
            return
        at = found.end()
        if found.lastgroup != "none":
            yield _marked(found) or ("", 1)


def _longest(parts: Iterable[_Part]) -> float:
    """Of what comes in a row, some of it in groups."""
    rows = [[0.0, 0.0]]  # of each group that is open: the longest choice, the one that is read
    last = 0.0
    for mark, amount in parts:
        if mark == "(":
            rows.append([0.0, 0.0])
        elif mark == "|":
            rows[-1] = [max(rows[-1]), 0.0]
        elif mark == "*":
            more = last * (amount - 1) if amount > 1 else 0
            last, rows[-1][1] = last + more, rows[-1][1] + more
        else:
            last = max(rows.pop()) if mark else amount
            if not rows:
                return inf
            rows[-1][1] += last
    return max(rows[0]) if len(rows) == 1 else inf
