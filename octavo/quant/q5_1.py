"""Q5_1: 32 weights in 24 bytes: a scale and a minimum in half precision, fifth bits, nibbles.

    0        2      4        8                    24
    | scale  | min  | fifths | 16 bytes           |     byte j = weight j (low), j+16 (high)

Bit j of `fifths`, read as a little-endian integer, is the fifth bit of weight j.

    weight = scale * code + min
"""

from octavo.quant._blocks import blocks, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 32, 24


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 24] bytes -> [rows, blocks * 32] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    block = blocks(packed, BYTES)
    return Codes(
        bits=5,
        group=32,
        offset=0,
        planes=(plane(block[..., 8:], bits=4, run=16), plane(block[..., 4:8], bits=1, run=1)),
        scale=half(block, 0),
        min=half(block, 2),
    )


def tiny() -> Bytes:
    return noise(BYTES, halves=(0, 2))
