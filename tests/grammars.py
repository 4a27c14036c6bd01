"""Grammars over bytes: what they allow is told without a model.

from grammars import allows, grammars, written     (tests/ is on the path)
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


def written(grammar, chance, most=40):
    """An answer that a model without a mind gives; None for one that found no end."""
    matcher, said = grammars().compile(grammar).matcher(), bytearray()
    while not matcher.is_complete:
        mask = matcher.mask()
        allowed = [i for i in range(END + 1) if is_allowed(mask, i)]
        if END in allowed and chance.random() < 0.3:
            break
        if len(said) == most:
            return None
        said.append(chance.choice([i for i in allowed if i != END]))
        matcher.consume(said[-1])
    return said.decode()
