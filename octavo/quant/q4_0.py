"""Q4_0: 32 weights in 18 bytes, one half-precision scale and 32 nibbles.

0        2                    18
| scale  | 16 bytes           |     byte j = weight j (low nibble), weight j+16 (high nibble)

weight = scale * (nibble - 8)
"""

from octavo.quant._blocks import blocks, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 32, 18


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 18] bytes -> [rows, blocks * 32] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    block = blocks(packed, BYTES)
    codes = plane(block[..., 2:], bits=4, run=16)
    return Codes(bits=4, group=32, offset=8, planes=(codes,), scale=half(block, 0))


def tiny() -> Bytes:
    return noise(BYTES, halves=(0,))
