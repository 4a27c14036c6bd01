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
from octavo.grammar.fronts._checked import checked

FIELD = "grammar"
EXAMPLE = ('start: "x" word+\nword: " " /[a-z]+/', "x one two", "x 1")

_SCHEMA = re.compile(r"%json\s*(?=\{)")


def read(text: str) -> str:
    if text.lstrip().startswith("{"):  # llguidance would take it for grammars of its own, unchecked
        raise BadRequest("it begins with {, give rules, of which one is `start`", FIELD)
    return checked(LLMatcher.grammar_from_lark(_with_schemas(text)), FIELD)


def _with_schemas(text: str) -> str:
    parts: list[str] = []
    end = 0
    while found := _SCHEMA.search(text, end):
        parts.append(text[end : found.end()])
        try:
            schema, end = json.JSONDecoder().raw_decode(text, found.end())
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the schema after a %json is not JSON: {error}", FIELD) from None
        parts.append(json.dumps(json_schema.enforceable(schema, FIELD)))
    return "".join([*parts, text[end:]])
