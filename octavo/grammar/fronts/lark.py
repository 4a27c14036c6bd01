"""A context-free grammar in llguidance's dialect of Lark, which begins at `start`.

    start: "call " <|tool|> %json {"type": "object"}

A schema within (%json) is held to the same rules as one that stands alone. Control tokens are
written <|name|> as the model's vocabulary spells them, or <[id]>.
"""

import json
import re

from llguidance import LLMatcher

from octavo.errors import BadRequest
from octavo.grammar.fronts import json_schema
from octavo.grammar.fronts._amounts import excess_of
from octavo.grammar.fronts._checked import checked

FIELD = "grammar"
EXAMPLE = ('start: "x" word+\nword: " " /[a-z]+/', "x one two", "x 1")

MOST_OF_REGEX = 100_000  # characters that all %regex take: each is a state of its own
MOST_WORDS = 500  # %json and the like: each schema takes three milliseconds or more

# As llguidance cuts a grammar, in which only a word of its own is one.
_LEXEME = re.compile(
    r"""(?P<word>%(?:json|regex|llguidance))[ \t\r\n]*
      | (?:\#|//)[^\n]*
      | "(?:\\.|[^"\\])*"
      | /(?:\\.|[^/\\])+/
      | <[^<>\s]+>""",
    re.VERBOSE,
)


def read(text: str) -> str:
    if text.lstrip().startswith("{"):  # llguidance would take it for grammars of its own, unchecked
        raise BadRequest("it begins with {, give rules, of which one is `start`", FIELD)
    if problem := excess_of(text):
        raise BadRequest(problem, FIELD)
    if (
        num_words := sum(found["word"] is not None for found in _LEXEME.finditer(text))
    ) > MOST_WORDS:
        problem = f"{num_words} %json, %regex and %llguidance are more than {MOST_WORDS}"
        raise BadRequest(f"{problem}: give fewer", FIELD)
    return checked(LLMatcher.grammar_from_lark(_with_schemas(text)), FIELD)


def _with_schemas(text: str) -> str:
    parts: list[str] = []
    copied = at = num_of_regex = 0
    while found := _LEXEME.search(text, at):
        at = found.end()
        if word := found["word"]:
            try:
                value, end = json.JSONDecoder().raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                raise BadRequest(f"what follows a {word} is not JSON: {error}", FIELD) from None
            if word == "%json":
                parts += text[copied:at], json.dumps(json_schema.enforceable(value, FIELD))
                copied = end
            elif word == "%regex" and (num_of_regex := num_of_regex + end - at) > MOST_OF_REGEX:
                problem = f"more than {MOST_OF_REGEX} characters stand in %regex: give fewer"
                raise BadRequest(problem, FIELD)
            at = end
    return "".join([*parts, text[copied:]])
