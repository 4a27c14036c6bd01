"""Q8_0: 32 weights in 34 bytes, one half-precision scale and 32 signed bytes.

0        2                    34
| scale  | 32 int8            |

weight = scale * byte
"""

from octavo.quant._blocks import blocks, half, noise
from octavo.quant._codes import Codes, expand, plane
from octavo.types import Bytes, Tensor

BLOCK, BYTES = 32, 34


def dequantize(packed: Bytes) -> Tensor:
    """[rows, blocks * 34] bytes -> [rows, blocks * 32] floats"""
    return expand(split(packed))


def split(packed: Bytes) -> Codes:
    block = blocks(packed, BYTES)
    codes = plane(block[..., 2:], bits=8, run=32)
    return Codes(bits=8, group=32, offset=0, planes=(codes,), scale=half(block, 0))


def tiny() -> Bytes:
    return noise(BYTES, halves=(0,))
