"""How much text a row of terms makes come at most: a regular expression, or a terminal in Lark.

    T: /a+/        U: "ab"        start: T U

A lexer takes the longest match, so U never begins, and a's come without end. So what may repeat
without end has no length, unless each time there is a choice of characters: only the least number
of times makes one come then.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Term:
    """`is_open`: it is certain that there is a choice of characters somewhere in it."""

    length: float
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """How often the term before comes."""

    least: float
    most: float


Part: TypeAlias = Term | Times | str  # ( ) and | as they stand

OPS = {"*": Times(0, inf), "+": Times(1, inf), "?": Times(0, 1)}
UNKNOWN = Term(inf)


@dataclass(slots=True)
class _Group:
    """What is in parentheses, as far as it was read."""

    longest: float = 0  # of the choices before
    are_open: bool = True
    is_one_free: bool = False  # is nothing but one character of several: then each round has those
    length: float = 0  # of the choice that is read
    num_open: int = 0

    def choose(self) -> None:
        self.longest = max(self.longest, self.length)
        self.are_open = self.are_open and self.num_open > 0
        self.is_one_free = self.is_one_free or self.num_open == self.length == 1
        self.length = self.num_open = 0

    def add(self, term: Term) -> None:
        self.length += term.length
        self.num_open += term.is_open

    def drop(self, term: Term) -> None:
        self.length -= term.length
        self.num_open -= term.is_open

    def term(self) -> Term:
        self.choose()
        return Term(self.longest, self.are_open or self.is_one_free)


def longest(parts: Iterable[Part], *, ends: bool) -> Term:
    """`ends`: something else may always come after what repeats, as JSON's quotes do."""
    groups, last = [_Group()], Term(0)
    for part in parts:
        if part == "(":
            groups.append(_Group())
        elif part == "|":
            groups[-1].choose()
        elif isinstance(part, Times):
            if last.length == inf:
                return UNKNOWN
            groups[-1].drop(last)
            last = _repeated(last, part, ends=ends)
            groups[-1].add(last)
        else:
            last = part if isinstance(part, Term) else groups.pop().term()
            if not groups or last.length == inf:
                return UNKNOWN
            groups[-1].add(last)
    return groups[0].term() if len(groups) == 1 else UNKNOWN


def _repeated(term: Term, times: Times, *, ends: bool) -> Term:
    """What may be left out counts once."""
    num = max(times.least, 1) if ends or term.is_open else max(times.most, 1)
    length = term.length * num if term.length else 0
    return Term(length, term.is_open and times.least > 0)
