"""What llguidance makes of a schema: nothing wrong, or one sentence."""

import json
from collections.abc import Iterable
from typing import Any, Final

from llguidance import LLMatcher, LLTokenizer

from octavo.grammar.compiled import Compiled
from octavo.grammar.fronts._checked import answered, problem_of
from octavo.grammar.fronts._regexes import of_pattern
from octavo.types import Json

OPTIONS: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": '"\\bfnrt',
    "coerce_one_of": False,
    "lenient": False,
}
MOST_TRIED = 200  # parts of a schema, in 1 to 3 ms each
MOST_CHARACTERS = 1 << 17  # of them and of what they make come, in 2 to 12 us each
_BYTES: Final = LLTokenizer("byte")


def grammar_of(schema: Any) -> str:
    return LLMatcher.grammar_from_json_schema(json.dumps(schema | {"x-guidance": OPTIONS}))


def problem_with(schema: Any) -> str | None:
    """Answers are begun, too, since some costs show only there, and that there are none."""
    grammar = grammar_of(schema)
    return problem_of(grammar) or Compiled(answered(grammar), _BYTES).problem()


class Trials:
    """Of parts of one schema, which are told what llguidance would find out within an answer."""

    def __init__(self) -> None:
        self._problems: dict[str, str | None] = {}
        self._left = float(MOST_CHARACTERS)

    def problem_with(self, part: Json, patterns: Iterable[str]) -> str | None:
        """As the function. `patterns` are those of `part`. Raises ValueError where too many are
        tried."""
        text = json.dumps(part)
        if text not in self._problems:
            self._left -= len(text) + sum(map(of_pattern, patterns))
            if self._left < 0 or len(self._problems) == MOST_TRIED:
                raise ValueError(
                    f"is one of more than {MOST_TRIED} parts to be tried, or of fewer that make "
                    f"{MOST_CHARACTERS} characters come: give fewer, or shorter ones"
                )
            self._problems[text] = problem_with(part)
        return self._problems[text]
