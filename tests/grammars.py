"""Grammars over bytes: what they allow is told without a model.

from grammars import allows, grammars              (tests/ is on the path)
"""

from functools import cache

import numpy as np

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


def allowed_in(mask):
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


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


def answer(grammar, random, most=500):
    """One that is allowed, byte by byte; None where it was cut off."""
    matcher, said = grammars().compile(grammar).matcher(), bytearray()
    while not matcher.is_complete:
        mask = matcher.mask()
        allowed = [byte for byte in range(END) if is_allowed(mask, byte)]
        if is_allowed(mask, END) and (not allowed or random.random() < 0.5):
            break
        closing = [byte for byte in allowed if byte in b'"}]'] if random.random() < 0.3 else []
        usual = [byte for byte in allowed if byte < 128 and byte not in b"eE"]  # no huge exponents
        said.append(random.choice(closing or usual or allowed))
        matcher.consume(said[-1])
        if len(said) == most:
            return None
    return said.decode()
