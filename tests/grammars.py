"""Grammars over bytes: what they allow is told without a model.

from grammars import allows, grammars              (tests/ is on the path)
"""

from functools import cache

from octavo.errors import StepFailed
from octavo.grammar.matcher import Grammars

END = 256


class Bytes:
    """A byte is a token, and 256 ends a turn."""

    vocab_size, bos_id = 257, None
    eos_ids = control_ids = frozenset({END})

    def token_bytes(self, token_id, *, special=False):
        return b"<end>" * special if token_id == END else bytes([token_id])

    def encode_within(self, text):
        return list(text.encode())


@cache
def grammars():
    return Grammars(Bytes(), 257)


def is_allowed(mask, token_id):
    return bool(mask[token_id // 32] >> token_id % 32 & 1)


def allows(grammar, answer):
    """Every byte in turn, and then the end."""
    matcher = grammars().compile(grammar).matcher()
    for byte in answer.encode():
        if matcher.is_complete or not is_allowed(matcher.mask(), byte):
            return False
        matcher.consume(byte)
    try:
        return matcher.is_complete or is_allowed(matcher.mask(), END)
    except StepFailed:
        return False
