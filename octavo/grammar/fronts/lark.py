"""A context-free grammar in llguidance's dialect of Lark, which begins at `start`.

    start: "call " <|tool|> %json {"type": "object"}

A schema within (%json) is held to the same rules as one that stands alone. Control tokens are
written <|name|> as the model's vocabulary spells them, or <[id]>.
"""

import json
from collections.abc import Iterable, Sequence

from llguidance import LLMatcher

from octavo.errors import BadRequest
from octavo.grammar.fronts import json_schema
from octavo.grammar.fronts._amounts import excess_of
from octavo.grammar.fronts._checked import checked
from octavo.grammar.fronts._form import Lexeme, lexemes

FIELD = "grammar"
EXAMPLE = ('start: "x" word+\nword: " " /[a-z]+/', "x one two", "x 1")

MOST_OF_REGEX = 100_000  # characters that all %regex take: each is a state of its own
MOST_WORDS = 500  # %json and the like: each schema takes three milliseconds or more


def read(text: str) -> str:
    if text.lstrip().startswith("{"):  # llguidance would take it for grammars of its own, unchecked
        raise BadRequest("it begins with {, give rules, of which one is `start`", FIELD)
    if problem := excess_of(text):
        raise BadRequest(problem, FIELD)
    try:
        words = [one for one in lexemes(text) if one[0]["word"]]
    except ValueError as error:
        raise BadRequest(str(error), FIELD) from None
    if problem := _excess(words):
        raise BadRequest(problem, FIELD)
    return checked(LLMatcher.grammar_from_lark(_with_schemas(text, words)), FIELD)


def _excess(words: Sequence[Lexeme]) -> str | None:
    """In one sentence."""
    if len(words) > MOST_WORDS:
        most = f"more than {MOST_WORDS}"
        return f"{len(words)} %json, %regex and %llguidance are {most}: give fewer"
    num_of_regex = sum(end - found.end() for found, _, end in words if found["word"] == "%regex")
    if num_of_regex > MOST_OF_REGEX:
        return f"more than {MOST_OF_REGEX} characters stand in %regex: give fewer"
    return None


def _with_schemas(text: str, words: Iterable[Lexeme]) -> str:
    """As they are enforced. Raises BadRequest."""
    parts: list[str] = []
    copied = 0
    for found, value, end in words:
        if found["word"] == "%json":
            schema = json_schema.enforceable(value, FIELD)
            parts += text[copied : found.end()], json.dumps(schema)
            copied = end
    return "".join([*parts, text[copied:]])
