"""A grammar that llguidance takes, or one sentence about why it does not."""

import re

from llguidance import LLMatcher, LLParserLimits

from octavo.errors import BadRequest

# Each costs its sender a fraction of a second at most. Lexer fuel counts expressions, items are
# Earley's, a lexer's state takes about 2 kB.
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=50_000,
    step_max_items=50_000,
    max_lexer_states=20_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)

_PLACE = re.compile(r"^(?:at )?\d+\(\d+\): (?:invalid regex .* \(in regex\): )?")


def checked(grammar: str, field: str) -> str:
    """The grammar itself. Raises BadRequest."""
    if problem := problem_of(grammar):
        raise BadRequest(problem, field)
    return grammar


def problem_of(grammar: str) -> str | None:
    """In one sentence."""
    is_bad, said = LLMatcher.validate_grammar_with_warnings(grammar, limits=LIMITS)
    return sentence(said[0]) if is_bad else None


def sentence(problem: str) -> str:
    """What llguidance says in several lines, with pictures."""
    causes = re.findall(r"^error: (.+)$", problem, re.MULTILINE)
    first = _PLACE.sub("", problem.strip().split("\n")[0])
    return (causes[-1] if causes else first).rstrip(": ")
