"""A grammar that llguidance takes, or one sentence about why it does not.

Owns the limits, whether text is forced, and the stack on which llguidance reads grammars: it calls
itself as deeply as rules, groups and schemas lead into each other, and a stack that is full ends
the process. Knows no notation but llguidance's form (_form.py).
"""

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import TypeVar

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from octavo.errors import BadRequest
from octavo.grammar.fronts._amounts import excess_in, excess_of
from octavo.grammar.fronts._form import grammars_in, unforced
from octavo.grammar.fronts._reach import reach
from octavo.types import Json

# Each costs its sender a fraction of a second at most. Lexer fuel counts expressions; items are
# Earley's, two or three for each piece of text that must come, one after the other, so that 1,000
# to 1,500 may; a lexer's state takes about 1 kB.
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=50_000,
    step_max_items=3_000,
    max_lexer_states=20_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)

# Bytes of one piece of text that must come (_reach.py). One that is longer than the first is
# refused, since each takes a lexer's state; where one may be longer than the second no text is
# forced, since llguidance goes through all in a row at 20 MB/s, and no other thread runs meanwhile.
LONGEST_PIECE, LONGEST_FORCED = 10_000, 256

# Whatever leads deeper is written with one of these. Each takes at most 4 KB of the stack (Lark's
# `a: b` 3.1, its parentheses 2.4, `{"items": {` 2.1, `{"$ref": ...}` 1.1), so all of them 200 MB;
# what is not used of a stack costs nothing, and all is given back with its thread.
DEEPER, MOST_DEEPER = ":([{", 50_000
STACK = 512 << 20  # bytes
_STARTING = threading.Lock()  # the size of stacks is the process's

_Made = TypeVar("_Made")

_PLACE = re.compile(r"^(?:at )?\d+\(\d+\): (?:invalid regex .* \(in regex\): )?")


def checked(grammar: str, field: str) -> str:
    """The grammar as answers are to follow it. Raises BadRequest."""
    if problem := problem_of(grammar):
        raise BadRequest(problem, field)
    return answered(grammar)


def answered(grammar: str, *, joined: float = inf) -> str:
    """A grammar that was checked as answers are to follow it: nobody waits for its text. `joined`
    as in `reach`."""
    return unforced(grammar) if reach(grammar, joined) > LONGEST_FORCED else grammar


def problem_of(grammar: str) -> str | None:
    """What keeps it from being taken, in one sentence."""
    if (num_deeper := sum(map(grammar.count, DEEPER))) > MOST_DEEPER:
        return f"{num_deeper} rules, groups and schemas are more than {MOST_DEEPER}: give fewer"
    if problem := next(filter(None, map(_excess, grammars_in(grammar))), None):
        return problem
    is_bad, said = _deeply(lambda: LLMatcher.validate_grammar_with_warnings(grammar, limits=LIMITS))
    if is_bad:
        return sentence(said[0])
    if LONGEST_PIECE < (longest := reach(grammar, inf)) < inf:
        most = f"more than {LONGEST_PIECE}"
        return f"a text or pattern makes {longest:.0f} bytes come, {most}: shorten it"
    return None


def _excess(grammar: Json) -> str | None:
    if (schema := grammar.get("json_schema")) is None:
        return excess_of(grammar["lark_grammar"])
    return excess_of(json.dumps(schema)) or excess_in(schema)


def compiled(grammar: str, vocabulary: LLTokenizer) -> LLMatcher:
    """Of one that was checked, or of such that were."""
    return _deeply(lambda: LLMatcher(vocabulary, grammar, log_level=0, limits=LIMITS))


def _deeply(work: Callable[[], _Made]) -> _Made:
    with ThreadPoolExecutor(1, "octavo-grammar") as pool:
        with _STARTING:
            usual = threading.stack_size(STACK)
            try:
                made = pool.submit(work)  # which starts the thread
            finally:
                threading.stack_size(usual)
        return made.result()


def sentence(problem: str) -> str:
    """What llguidance says in several lines, with pictures."""
    causes = re.findall(r"^error: (.+)$", problem, re.MULTILINE)
    first = _PLACE.sub("", problem.strip().split("\n")[0])
    return (causes[-1] if causes else first).rstrip(": ")
