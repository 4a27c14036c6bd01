"""How much text one piece of a grammar makes come at most, in bytes, or characters of a pattern.

    "so it goes on"    13          /[0-9]{4}-(0|1){2}/    7         {"const": "red"}    5

llguidance goes through all text that must come at once, and no other thread runs meanwhile. How
many pieces that may be (texts, terminals, keys) is limited, and here it is told how long one is: of
a choice the longest, of what repeats as often as it must. What must hold at once, or must not, has
no end that is known.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from octavo.grammar.fronts._form import grammars_in, lexemes
from octavo.grammar.fronts._places import subschemas
from octavo.grammar.fronts._regexes import of_pattern, of_regex, times_of
from octavo.grammar.fronts._rows import OPS, UNKNOWN, Part, Term, longest
from octavo.types import Json

_APART: Final = ("$defs", "definitions", "$schema", "x-guidance")  # say nothing of the value
_JOINING: Final = ("allOf", "anyOf", "oneOf")
_OF_TEXTS: Final = ("pattern", "patternProperties", "minLength", "$ref")  # or may lead to such
UNDEFINED: Final = Term(1)  # a name that is imported


def reach(grammar: str, joined: float) -> float:
    """`grammar` is in llguidance's form, and one that it takes. `joined` is what is counted in Lark
    for what must hold at once, or must not."""
    return max(_of_grammar(one, joined) for one in grammars_in(grammar))


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
        around = within[outer][0]
        if of_texts[i] and keyword in _JOINING and _says_several(around):
            return True
        if of_texts[i] and keyword == "patternProperties" and "properties" in around:
            return True
    return any("$ref" in schema and _says_several(schema) for schema, _, _ in within)


def _says_several(schema: Json) -> bool:
    """At once, of the same value."""
    return sum(word not in _APART for word in schema) > 1 or len(schema.get("allOf", ())) > 1


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


class _Lark:
    """Terminals, and rules that have attributes, are one piece each; of other rules each text and
    each regular expression is. What is ignored may come again and again."""

    def __init__(self, text: str, joined: float) -> None:
        self._joined = Term(joined)
        self._definitions: dict[str, list[list[Part | _Name]]] = defaultdict(list)
        self._pieces: list[str] = []  # names
        self._known: dict[str, Term] = {}
        self.reach = 0.0  # of the longest piece
        self._read(text)
        try:
            self.reach = max(self.reach, *(self._named(one).length for one in self._pieces), 0.0)
        except RecursionError:
            self.reach = inf

    def _read(self, text: str) -> None:
        parts: list[Part | _Name] = []  # of the definition that is read
        name, name_at = "", 0  # the last one outside of brackets: before a colon, the next's
        depth = 0
        for found, value, _ in lexemes(text):
            if found.lastgroup == "ignore":
                parts = self._begin("%ignore", is_piece=False)
                name_at = 0
            elif found.lastgroup == "is" and not depth:
                has_attributes = len(parts) > name_at + 1
                del parts[name_at:]
                is_terminal = name.lstrip("_")[:1].isupper()
                parts = self._begin(name, is_piece=is_terminal or has_attributes)
                name_at = 0
            else:
                depth += {"open": 1, "close": -1}.get(str(found.lastgroup), 0)
                if found.lastgroup == "name" and not depth:
                    name, name_at = found[0], len(parts)
                parts += self._parts(found, value)
        if "%ignore" in self._definitions:
            self._begin("%ignored", is_piece=True).extend([_Name("%ignore"), OPS["+"]])

    def _begin(self, name: str, *, is_piece: bool) -> list[Part | _Name]:
        if is_piece:
            self._pieces.append(name)
        parts: list[Part | _Name] = []
        self._definitions[name].append(parts)
        return parts

    def _parts(self, found: re.Match[str], value: Any) -> Iterator[Part | _Name]:
        match found.lastgroup:
            case "name":
                yield _Name(found[0])
            case "open" | "or":
                yield "|" if found[0] == "|" else "("
            case "close":
                yield ")"
                yield from [OPS["?"]] * (found[0] == "]")
            case "times":
                yield times_of(found["amounts"])
            case "op":
                yield OPS[found[0]]
            case "text" | "regex" | "word" | "joins":
                term = self._joined if found.lastgroup == "joins" else _term(found, value)
                self.reach = max(self.reach, term.length)
                yield term

    def _named(self, name: str) -> Term:
        if name not in self._known:
            self._known[name] = UNKNOWN  # where it leads to itself
            several = self._definitions.get(name, ())
            told = [longest(map(self._told, one), ends=False) for one in several] or [UNDEFINED]
            most, are_open = max(one.length for one in told), all(one.is_open for one in told)
            self._known[name] = Term(most, are_open)
        return self._known[name]

    def _told(self, part: Part | _Name) -> Part:
        return self._named(part.name) if isinstance(part, _Name) else part


def _term(found: re.Match[str], value: Any) -> Term:
    match found.lastgroup:
        case "text":
            return Term(len(found[0][1 : found[0].rindex('"')].encode()))
        case "regex":
            pattern, flags = found[0][1:].rsplit("/", 1)
            return UNKNOWN if "x" in flags else of_regex(pattern)  # with comments
    match found["word"]:
        case "%json":
            return Term(_of_schema(value))
        case "%llguidance":
            return Term(0)
    return UNKNOWN
