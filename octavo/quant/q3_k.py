"""Q3_K: 256 weights in 110 bytes, in 16 groups of 16 with 6-bit scales.

    0             32                96            108      110
    | third bits  | 64 bytes        | 12 scales   | scale  |

The 64 bytes are two halves of 32; the four 2-bit planes of a half, the lowest first, are 4 x 32
weights. Bit i of the byte j of `third bits` belongs to weight 32 * i + j. The scales' low nibbles
are in their first 8 bytes (groups 0-7 low, 8-15 high), their upper two bits are the 2-bit planes
of the other 4.

    weight = scale * (sub_scale - 32) * (code - 4)
"""

import numpy as np

from octavo.quant._blocks import blocks, cut, half, noise, on_top
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 256, 110


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 110] bytes -> [rows, blocks * 256] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    block = blocks(packed, BYTES)
    factors = on_top(cut(block[..., 96:104], 4), cut(block[..., 104:108], 2), 4)
    return Codes(
        bits=3,
        group=16,
        offset=4,
        planes=(plane(block[..., 32:96], bits=2, run=32), plane(block[..., :32], bits=1, run=32)),
        scale=half(block, 108),
        sub_scale=factors.view(np.int8) - np.int8(32),
    )


def tiny() -> Bytes:
    return noise(BYTES, halves=(108,))
