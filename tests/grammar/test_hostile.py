"""Grammars that lead deeper than a stack usually is: refused or compiled, and the process lives."""

import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, tempfile
from pathlib import Path
from checkpoints import write_tiny
from octavo import BadRequest
from octavo.engine.loading import _tokenizer
from octavo.grammar.fronts._checked import MOST_DEEPER
from octavo.grammar.fronts._amounts import MOST, PARTS
from octavo.grammar.matcher import Grammars
from octavo.loader.checkpoint import open_checkpoint
from octavo.types import Grammar

def chain(count, link, last):
    links = {f"a{i}": link({"$ref": f"#/$defs/a{i + 1}"}) for i in range(count)}
    return json.dumps({"$ref": "#/$defs/a0", "$defs": {**links, f"a{count}": last}})

def rules(count, name):
    links = "".join(f"{name}{i}: {name}{i + 1}\\n" for i in range(count))
    return f'start: {name}0\\n{links}{name}{count}: "x"'

def one(ref):
    return {"type": "array", "items": ref, "minItems": 1, "maxItems": 1}

def nested(count):
    return "start: " + "(" * count + '"x"' + ")" * count

HOSTILE = {
    "refs": ("json_schema", chain(4000, dict, {"type": "null"})),
    "arrays": ("json_schema", chain(2000, one, {"type": "null"})),
    "rules": ("lark", rules(4000, "a")),
    "as many rules as may be": ("lark", rules(MOST[PARTS] // 2 - 2, "a")),
    "more": ("lark", nested(MOST_DEEPER)),
    "terminals": ("lark", rules(7000, "A")),
    "groups": ("lark", nested(MOST_DEEPER - 2)),
}
path = write_tiny(Path(tempfile.mkdtemp()) / "tiny.gguf")
tokenizer = _tokenizer(open_checkpoint(path))
kind, text = HOSTILE[sys.argv[1]]
try:
    Grammars(tokenizer, tokenizer.vocab_size).compile(Grammar(kind, text)).matcher().mask()
    print("compiled")
except BadRequest as error:
    print("refused:", str(error)[:200])
"""


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("rules", ""),
        ("more", "refused: grammar: 50001 rules, groups and schemas are more than 50000"),
        *(
            pytest.param(which, "", marks=pytest.mark.thorough)
            for which in ("refs", "arrays", "as many rules as may be", "terminals", "groups")
        ),
    ],
)
def test_no_grammar_is_too_deep_for_the_process(which, said):
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tests')\n{PROGRAM}", which]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-500:]
    assert ran.stdout.startswith(said or ("compiled", "refused"))
