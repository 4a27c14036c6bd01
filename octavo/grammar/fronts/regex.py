"""A regular expression, which the whole answer matches: Rust's syntax, no look-around."""

from llguidance import LLMatcher

from octavo.grammar.fronts._checked import checked

FIELD = "regex"
EXAMPLE = ("[a-c]+(1|2)", "abca2", "ab")


def read(text: str) -> str:
    return checked(LLMatcher.grammar_from_regex(text), FIELD)
