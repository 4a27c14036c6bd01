r"""How much text one piece of a grammar makes come at most, in bytes, or characters of a pattern.

    "so it goes on"    13          /[0-9]{4}-(0|1){2}/    7         {"const": "red"}    5

llguidance goes through all text that must come at once, and no other thread runs meanwhile. How
many pieces that may be (texts, terminals, keys) is limited, and here it is told how long one is: of
a choice the longest, of what repeats as often as it must. What must hold at once, or must not, has
no end that is known.

    T: /a+/        U: "ab"        start: T U

A lexer takes the longest match, so U never begins, and a's come without end: so it is with all that
may repeat, unless a character of it is open each time, or it stands in JSON's quotes, which end it.
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

# ( ) and | as they stand, * with how often at least and whether more may be, a name, or "" with a
# length and whether others may be there.
_Part: TypeAlias = tuple[str, float, bool]

_SET: Final = r"\[\^?\]?(?:\\.|[^\[\]\\]{})*\]"  # of characters
_IN_REGEX: Final = re.compile(
    rf"""(?P<open> \( (?: \?[imsU-]*: | \?P?<\w+> )? (?!\?) )
      | (?P<close> \) )
      | (?P<or> \| )
      | (?P<times> \{{(?P<amounts>[\s0-9,]*)\}} )
      | (?P<op> [*+?] )
      | (?P<none> [\^$] | \(\?[imsU-]+\) )
      | (?P<any> \. | \\[dDsSwW] )
      | (?P<run> [^\\()\[{{}}|*+?.^$]+ (?![*+?{{]) )
      | \\[pPuUx]\{{\w*\}} | \\x[0-9A-Fa-f]{{2}} | \\. | [^\\(\[]
      | (?P<set> {_SET.format("|" + _SET.format(""))} )""",
    re.VERBOSE | re.DOTALL,
)
_MARKS: Final = {"open": "(", "close": ")", "or": "|"}
_OPS: Final = {"*": (0, True), "+": (1, True), "?": (0, False)}
_CLASS: Final = r"\\[dDsSwW]"
_MEMBERS: Final = re.compile(  # of a set, where they are told apart
    r"\[(?P<not>\^?)(?P<members>(?:[ -Z^-~]|\\x[0-7][0-9A-Fa-f]|\\[dDsSwWnrtfv!-/:-@\[-`{-~])+)\]"
)
_APART: Final = ("$defs", "definitions", "$schema", "x-guidance")  # say nothing of the value
_JOINING: Final = ("allOf", "anyOf", "oneOf")
_OF_TEXTS: Final = ("pattern", "patternProperties", "minLength", "$ref")  # or may lead to such


def reach(grammar: str, joined: float) -> float:
    """`grammar` is in llguidance's form, and one that it takes. `joined` is what is counted in Lark
    for what must hold at once, or must not."""
    return max(_of_grammar(one, joined) for one in grammars_in(grammar))


def of_pattern(pattern: str) -> float:
    """Of a regular expression in Rust's syntax, within JSON's quotes."""
    return _longest(_parts_of(pattern), ends=True)[0]


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


class _Lark:
    """Terminals, and rules that have attributes, are one piece each; of other rules each text and
    each regular expression is."""

    def __init__(self, text: str, joined: float) -> None:
        self._joined = joined
        self.reach = 0.0  # of the longest piece
        self._definitions: dict[str, list[list[_Part]]] = defaultdict(list)
        self._known: dict[str, tuple[float, bool]] = {}
        pieces = self._read(text)
        try:
            self.reach = max(self.reach, *(self._of_name(one)[0] for one in pieces), 0.0)
        except RecursionError:
            self.reach = inf

    def _read(self, text: str) -> list[str]:
        """The names of what is one piece."""
        pieces: list[str] = []
        parts: list[_Part] = []
        name_at = num_open = 0
        for found, value, _ in lexemes(text):
            if found.lastgroup == "ignore":
                self._definitions["%ignore"].append(parts := [])
                self._definitions["%ignored"] = [[("%ignore", 0, False), ("*", 1, True)]]
                pieces.append("%ignored")
                name_at = 0
            elif found.lastgroup == "is" and not num_open:
                (name, *attributes), parts[name_at:] = parts[name_at:] or [("", 0, False)], []
                self._definitions[name[0]].append(parts := [])
                if attributes or name[0].lstrip("_")[:1].isupper():
                    pieces.append(name[0])
                name_at = 0
            elif (part := _marked(found) or _term(found, value, self._joined)) is not None:
                num_open += {"(": 1, ")": -1}.get(part[0], 0)
                if found.lastgroup == "name" and not num_open:
                    name_at = len(parts)
                self.reach = max(self.reach, part[1] if not part[0] else 0)
                parts.append(part)
                if found[0] == "]":
                    parts.append(("*", *_OPS["?"]))
        return pieces

    def _of_name(self, name: str) -> tuple[float, bool]:
        if name not in self._known:
            self._known[name] = inf, True  # where it leads to itself
            several = self._definitions.get(name, ())
            told = [_longest(map(self._told, one), ends=False) for one in several]
            lengths, are_open = zip(*told, strict=True) if told else ((1.0,), (False,))
            self._known[name] = max(lengths), all(are_open)
        return self._known[name]

    def _told(self, part: _Part) -> _Part:
        mark, *_ = part
        return part if mark in ("", "(", ")", "|", "*") else ("", *self._of_name(mark))


def _marked(found: re.Match[str]) -> _Part | None:
    match found.lastgroup:
        case "times":
            least, to, most = found["amounts"].replace("..", ",").partition(",")
            at_least = float(least.strip() or 0)
            return "*", at_least, bool(to) and float(most.strip() or inf) > max(at_least, 1)
        case "op":
            return "*", *_OPS[found[0]]
    return (_MARKS[found.lastgroup], 0, False) if found.lastgroup in _MARKS else None


def _term(found: re.Match[str], value: Any, joined: float) -> _Part | None:
    match found.lastgroup:
        case "name":
            return found[0], 0, False
        case "text":
            return "", len(found[0][1 : found[0].rindex('"')].encode()), False
        case "regex":
            pattern, flags = found[0][1:].rsplit("/", 1)
            if "x" in flags:  # with comments
                return "", inf, False
            return "", *_longest(_parts_of(pattern), ends=False)
        case "word" if found["word"] == "%json":
            return "", _of_schema(value), False
        case "word" if found["word"] == "%regex":
            return "", inf, False
        case "joins":
            return "", joined, False
    return None


def _parts_of(pattern: str) -> Iterator[_Part]:
    at = 0
    while at < len(pattern):
        if (found := _IN_REGEX.match(pattern, at)) is None:
            yield "", inf, False
            return
        at = found.end()
        if found.lastgroup != "none":
            yield _marked(found) or _characters(found)


def _characters(found: re.Match[str]) -> _Part:
    match found.lastgroup:
        case "run":
            return "", len(found[0]), False
        case "set":
            return "", 1, _is_open(found[0])
    return "", 1, found.lastgroup == "any"


def _is_open(characters: str) -> bool:
    """Whether it is certain that the set has several."""
    found = _MEMBERS.fullmatch(characters[:1000])  # as long as people write them
    if found is None or any(operator in characters for operator in ("&&", "--", "~~")):
        return False
    members = set(re.findall(r"\\x..|\\.|.", found["members"]))
    classes = [one for one in members if re.fullmatch(_CLASS, one)]
    if found["not"]:
        return not any(one[1].isupper() for one in classes)
    told = {one.lstrip("\\") for one in members if one[:2] not in ("\\x", "\\\\")} - {"-"}
    return len(told) > 1 or bool(classes)


def _longest(parts: Iterable[_Part], *, ends: bool) -> tuple[float, bool]:
    """(of what comes in a row, some of it in groups; whether some character of it is always open).
    `ends`: after what repeats, as often as it must, something else may always come."""
    # Of each group that is open: the longest choice, the one that is read, how many are open in it,
    # whether some was in each before, or one was nothing else.
    rows: list[list[float]] = [[0, 0, 0, True, False]]
    last, is_open = 0.0, False
    for mark, amount, is_more in parts:
        if mark == "(":
            rows.append([0, 0, 0, True, False])
        elif mark == "|":
            longest, length, num_open, were_open, was_one = rows[-1]
            was_one = was_one or num_open == length == 1
            rows[-1] = [max(longest, length), 0, 0, were_open and num_open > 0, was_one]
        elif mark == "*":
            if is_more and last and not (ends or is_open):
                return inf, False
            more = last * (amount - 1) if amount > 1 else 0
            last, rows[-1][1] = last + more, rows[-1][1] + more
            if not amount:  # it may be left out
                rows[-1][2] -= is_open
                is_open = False
        else:
            last, is_open = _choice(rows.pop()) if mark else (amount, is_more)
            if not rows:
                return inf, False
            rows[-1][1] += last
            rows[-1][2] += is_open
    return _choice(rows[0]) if len(rows) == 1 else (inf, False)


def _choice(row: Sequence[float]) -> tuple[float, bool]:
    longest, length, num_open, were_open, was_one = row
    is_open = was_one or num_open == length == 1 or (were_open and num_open > 0)
    return max(longest, length), bool(is_open)
