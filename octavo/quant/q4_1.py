"""Q4_1: 32 weights in 20 bytes, a half-precision scale, a half-precision minimum, 32 nibbles.

0        2      4                    20
| scale  | min  | 16 bytes           |     byte j = weight j (low), weight j+16 (high)

weight = scale * nibble + min
"""

from octavo.quant._blocks import blocks, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 32, 20


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 20] bytes -> [rows, blocks * 32] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    block = blocks(packed, BYTES)
    return Codes(
        bits=4,
        group=32,
        offset=0,
        planes=(plane(block[..., 4:], bits=4, run=16),),
        scale=half(block, 0),
        min=half(block, 2),
    )


def tiny() -> Bytes:
    return noise(BYTES, halves=(0, 2))
