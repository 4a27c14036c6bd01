"""Q6_K: 256 weights in 210 bytes, in 16 groups of 16 with 8-bit signed scales.

    0                 128             192          208      210
    | 128 low nibbles | 64 upper bits | 16 scales  | scale  |

Both parts are two halves, of 128 weights each: 64 bytes whose low nibbles are the first 64
weights and whose high nibbles the others, and 32 bytes whose four 2-bit planes are 4 x 32.

    weight = scale * sub_scale * (code - 32)
"""

import numpy as np

from octavo.quant._blocks import blocks, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 256, 210


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 210] bytes -> [rows, blocks * 256] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    rows, block = len(packed), blocks(packed, BYTES)
    factors = np.ascontiguousarray(block[..., 192:208])
    return Codes(
        bits=6,
        group=16,
        offset=32,
        planes=(
            plane(block[..., :128], bits=4, run=64),
            plane(block[..., 128:192], bits=2, run=32),
        ),
        scale=half(block, 208),
        sub_scale=factors.reshape(rows, -1).view(np.int8),
    )


def tiny() -> Bytes:
    return noise(BYTES, halves=(208,))
