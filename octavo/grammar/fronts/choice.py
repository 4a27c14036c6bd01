"""One of several texts, as a JSON list of them."""

import json

from llguidance import LLMatcher

from octavo.errors import BadRequest
from octavo.grammar.fronts._checked import checked

FIELD = "choice"
EXAMPLE = ('["red", "green"]', "green", "gre")


def read(text: str) -> str:
    texts = json.loads(text)
    if not texts or not all(isinstance(one, str) and one for one in texts):
        raise BadRequest("give at least one text, and none that is empty", FIELD)
    "".join(texts).encode()  # JSON would let half of a surrogate pair through
    literals = " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
    literals = literals.replace("\x7f", r"\u007f")  # Lark takes no control characters
    # One terminal: as alternatives of a rule each would cost by itself, and 2,000 be too many.
    return checked(LLMatcher.grammar_from_lark(f"start: TEXT\nTEXT: {literals}"), FIELD)
