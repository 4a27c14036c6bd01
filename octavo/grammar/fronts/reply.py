"""A reply that may be more than text, as engine/reply_grammar.py writes it.

    {"lark": LARK, "answer": [KIND, TEXT] or null}

The Lark names the answer's own grammar, of any other kind, `@answer`. Each schema in the Lark was
checked for itself already, so that what is wrong with one of many tools is told of that tool.
"""

import json

from octavo.grammar.fronts._checked import answered
from octavo.grammar.fronts._form import grammars_in
from octavo.registry import entry
from octavo.types import Grammar

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
    grammars = [{"name": "reply", "lark_grammar": said["lark"]}]
    if said["answer"] is not None:
        kind, inner = said["answer"]
        first, *others = grammars_in(entry("octavo.grammar.fronts", kind).read(inner))
        grammars += first | {"name": "answer"}, *others
    # Where its own Lark says & and ~, calls are kept out of prose, and nothing is made to come.
    return answered(json.dumps({"grammars": grammars}), joined=0)
