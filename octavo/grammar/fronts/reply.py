"""A reply that may be more than text, as engine/reply_grammar.py writes it.

    {"lark": LARK, "answer": [KIND, TEXT] or null}

The Lark names the answer's own grammar, of any other kind, `@answer`. Each schema in the Lark was
checked for itself already, so that what is wrong with one of many tools is told of that tool.
"""

import json

from octavo.registry import entry
from octavo.types import Grammar, Json

FIELD = "tools"
EXAMPLE = (
    '{"lark": "start: \\"call\\" | @answer", "answer": ["regex", "[0-9]+"]}',
    "call",
    "call 1",
)


def write(lark: str, answer: Grammar | None) -> Grammar:
    inner = None if answer is None else [answer.kind, answer.text]
    return Grammar("reply", json.dumps({"lark": lark, "answer": inner}))


def read(text: str) -> str:
    said = json.loads(text)
    if said["answer"] is None:
        return str(said["lark"])
    kind, inner = said["answer"]
    first, *others = _grammars(entry("octavo.grammar.fronts", kind).read(inner))
    outer = {"name": "reply", "lark_grammar": said["lark"]}
    return json.dumps({"grammars": [outer, first | {"name": "answer"}, *others]})


def _grammars(read: str) -> list[Json]:
    """A front gives Lark as it is, all else in llguidance's envelope."""
    if not read.lstrip().startswith("{"):
        return [{"lark_grammar": read}]
    grammars: list[Json] = json.loads(read)["grammars"]
    return grammars
