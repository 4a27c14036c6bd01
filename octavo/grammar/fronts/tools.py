"""Lark as engine/call_grammar.py writes it, each schema in it checked for itself already.

So that what is wrong with one of many tools is told of that tool, and is looked for once.
"""

from llguidance import LLMatcher

FIELD = "tools"
EXAMPLE = ('start: "call " %json {"type": "integer"}', "call 12", "call x")


def read(text: str) -> str:
    return LLMatcher.grammar_from_lark(text)
