"""Q2_K: 256 weights in 84 bytes, in 16 groups of 16 with 4-bit scales and minimums.

    0                   16                80       82       84
    | 16 scales         | 64 bytes        | scale  | min    |

A group's scale is a low nibble, its minimum the high one. The 64 bytes are two halves of 32; the
four 2-bit planes of a half, the lowest first, are 4 x 32 weights.

    weight = scale * sub_scale * code - min * sub_min
"""

import numpy as np

from octavo.quant._blocks import blocks, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 256, 84


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 84] bytes -> [rows, blocks * 256] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    rows, block = len(packed), blocks(packed, BYTES)
    factors = np.ascontiguousarray(block[..., :16]).reshape(rows, -1)
    return Codes(
        bits=2,
        group=16,
        offset=0,
        planes=(plane(block[..., 16:80], bits=2, run=32),),
        scale=half(block, 80),
        min=half(block, 82),
        sub_scale=(factors & np.uint8(15)).view(np.int8),
        sub_min=factors >> np.uint8(4),
    )


def tiny() -> Bytes:
    return noise(BYTES, halves=(80, 82))
