"""Grammars as llguidance takes them: Lark, or an envelope of grammars.

start: "a" b              {"grammars": [{"name": ..., "lark_grammar": ...}, ...]}
b: "c"
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from octavo.types import Json

# What is not closed is looked through once: whatever might begin within it has a backslash before.
TEXT: Final = r'(?<!\\)"(?:\\.|[^"\\])*"'
REGEX: Final = r"(?<!\\)/(?:\\.|[^/\\])+/"
COMMENT: Final = r"(?:\#|//)[^\n]*"
SPECIAL: Final = r"<[^<>\s]+>"
# As llguidance cuts Lark, in which only a word of its own is one. What is none of these says
# nothing to whoever asks here.
_LEXEME: Final = re.compile(
    rf"""(?P<word>%(?:json|regex|llguidance))[ \t\r\n]*
      | (?P<comment>{COMMENT})
      | (?P<ignore>%ignore)
      | ->[ \t]*[!?]*\w[\w-]*  # another name
      | (?P<text>{TEXT}i?)
      | (?P<regex>{REGEX}[a-z]*)
      | (?P<special>{SPECIAL})
      | (?P<name>[A-Za-z_][\w-]*)
      | (?P<times>[~{{](?P<amounts>[ \t]*(?:[+,][ \t]*)?[0-9][ \t0-9+.,]*))
      | (?P<op>[*+?])
      | (?P<open>[(\[])
      | (?P<close>[)\]])
      | (?P<or>\|)
      | (?P<joins>[~&]|%lark)
      | (?P<is>:(?!:)) | ::""",
    re.VERBOSE,
)
# What it is, the value after a word, where that ends.
Lexeme: TypeAlias = tuple[re.Match[str], Any, int]


def grammars_in(grammar: str) -> list[Json]:
    if not grammar.lstrip().startswith("{"):
        return [{"lark_grammar": grammar}]
    grammars: list[Json] = json.loads(grammar)["grammars"]
    return grammars


def unforced(grammar: str) -> str:
    """The same, of which no text is forced, so that none is gone through either."""
    first, *others = grammars_in(grammar)
    first = {"name": "whole"} | first
    outer = {"lark_grammar": f'%llguidance {{"no_forcing": true}}\nstart: @{first["name"]}'}
    return json.dumps({"grammars": [outer, first, *others]})


def lexemes(lark: str) -> Iterator[Lexeme]:
    """Raises ValueError that says after which word there is no JSON."""
    at = 0
    while found := _LEXEME.search(lark, at):
        value, at = None, found.end()
        if word := found["word"]:
            try:
                value, at = json.JSONDecoder().raw_decode(lark, at)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"what follows a {word} is not JSON: {error}") from None
        yield found, value, at
