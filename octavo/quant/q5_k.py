"""Q5_K: 256 weights in 176 bytes, in 8 groups of 32 with 6-bit scales and minimums.

    0        2      4            16           48                176
    | scale  | min  | 12 factors | fifth bits | 128 bytes       |

Byte j of the i-th 32 bytes is weight j of group 2i (low nibble) and of group 2i+1 (high nibble);
bit g of the byte j of `fifth bits` belongs to weight j of group g. The factors are as in q4_k.py.

    weight = scale * sub_scale * code - min * sub_min
"""

import numpy as np

from octavo.quant._blocks import blocks, factors_of_6_bits, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 256, 176


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 176] bytes -> [rows, blocks * 256] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    block = blocks(packed, BYTES)
    sub_scale, sub_min = factors_of_6_bits(block[..., 4:16])
    return Codes(
        bits=5,
        group=32,
        offset=0,
        planes=(plane(block[..., 48:], bits=4, run=32), plane(block[..., 16:48], bits=1, run=32)),
        scale=half(block, 0),
        min=half(block, 2),
        sub_scale=sub_scale.view(np.int8),
        sub_min=sub_min,
    )


def tiny() -> Bytes:
    return noise(BYTES, halves=(0, 2))
