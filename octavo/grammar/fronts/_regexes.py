"""How much text a regular expression in Rust's syntax makes come at most (_rows.py)."""

import re
from collections.abc import Iterator
from math import inf
from typing import Final

from octavo.grammar.fronts._rows import OPS, UNKNOWN, Part, Term, Times, longest

_SET: Final = r"\[\^?\]?(?:\\.|[^\[\]\\]{})*\]"  # of characters
_PART: Final = re.compile(
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
# Sets whose members are told apart: of letters, ranges of them, and classes.
_TOLD: Final = re.compile(
    r"\[(?P<not>\^?)(?P<members>(?:[ -Z^-~]|\\x[0-7][0-9A-Fa-f]|\\[dDsSwWnrtfv!-/:-@\[-`{-~])+)\]"
)
_MEMBER: Final = re.compile(r"\\x..|\\.|.")
_OPERATORS: Final = ("&&", "--", "~~")  # of two sets
MOST_TOLD = 1_000  # characters of a set: as long as people write them


def of_pattern(pattern: str) -> float:
    """In characters, within JSON's quotes."""
    return longest(_parts(pattern), ends=True).length


def of_regex(pattern: str) -> Term:
    return longest(_parts(pattern), ends=False)


def times_of(amounts: str) -> Times:
    """`3`, `3,`, `3,5` or `3..5`."""
    least, to, most = amounts.replace("..", ",").partition(",")
    at_least = float(least.strip() or 0)
    return Times(at_least, float(most.strip() or inf) if to else at_least)


def _parts(pattern: str) -> Iterator[Part]:
    at = 0
    while at < len(pattern):
        if (found := _PART.match(pattern, at)) is None:
            yield UNKNOWN
            return
        at = found.end()
        if found.lastgroup != "none":
            yield _part(found)


def _part(found: re.Match[str]) -> Part:
    match found.lastgroup:
        case "open" | "close" | "or":
            return found[0][0]
        case "times":
            return times_of(found["amounts"])
        case "op":
            return OPS[found[0]]
        case "run":
            return Term(len(found[0]))
        case "set":
            return Term(1, _is_open(found[0]))
    return Term(1, is_open=found.lastgroup == "any")


def _is_open(characters: str) -> bool:
    """Whether it is certain that the set has several."""
    found = _TOLD.fullmatch(characters) if len(characters) <= MOST_TOLD else None
    if found is None or any(operator in characters for operator in _OPERATORS):
        return False
    members = set(_MEMBER.findall(found["members"]))
    classes = [one for one in members if one[1:] in tuple("dDsSwW")]
    if found["not"]:
        return not any(one[1].isupper() for one in classes)
    told = {one.lstrip("\\") for one in members if one[:2] not in ("\\x", "\\\\")} - {"-"}
    return len(told) > 1 or bool(classes)
