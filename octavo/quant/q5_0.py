"""Q5_0: 32 weights in 22 bytes, a half-precision scale, 32 fifth bits and 32 nibbles.

    0        2        6                    22
    | scale  | fifths | 16 bytes           |     byte j = weight j (low), weight j+16 (high)

Bit j of `fifths`, read as a little-endian integer, is the fifth bit of weight j.

    weight = scale * (code - 16)
"""

from octavo.quant._blocks import blocks, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 32, 22


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 22] bytes -> [rows, blocks * 32] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    block = blocks(packed, BYTES)
    return Codes(
        bits=5,
        group=32,
        offset=16,
        planes=(plane(block[..., 6:], bits=4, run=16), plane(block[..., 2:6], bits=1, run=1)),
        scale=half(block, 0),
    )


def tiny() -> Bytes:
    return noise(BYTES, halves=(0,))
