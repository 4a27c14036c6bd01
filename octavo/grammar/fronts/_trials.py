"""What llguidance makes of a schema: nothing wrong, or one sentence."""

import json
from typing import Any, Final

from llguidance import LLMatcher, LLTokenizer

from octavo.grammar.fronts._checked import compiled, problem_of
from octavo.grammar.matcher import Compiled

OPTIONS: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": '"\\bfnrt',
    "coerce_one_of": False,
    "lenient": False,
}
_BYTES: Final = LLTokenizer("byte")


def grammar_of(schema: Any) -> str:
    return LLMatcher.grammar_from_json_schema(json.dumps(schema | {"x-guidance": OPTIONS}))


def problem_with(schema: Any) -> str | None:
    """Answers are begun, too, since some costs show only there, and that there are none."""
    grammar = grammar_of(schema)
    return problem_of(grammar) or Compiled(compiled(grammar, _BYTES), _BYTES).problem()
