"""What all integer formats have in common: small codes in groups, each group scaled.

    weight = scale * (code - offset) + min

`scale` and `min` are half-precision numbers, one per `span` columns; the K-quants multiply them
by small integers, one per `group` columns:

    weight = scale * sub_scale * (code - offset) - min * sub_min
"""

from dataclasses import dataclass

import numpy as np

from octavo.quant._blocks import cut
from octavo.types import Bytes, Ints, Tensor


@dataclass(frozen=True, slots=True)
class Plane:
    """The same bits of every code. The lowest fields of a run of bytes belong to as many columns,
    the next fields to the columns behind them, and so on. A run of 1 is for single bits."""

    bits: int  # of a field: 1, 2, 4 or 8
    bytes: Bytes  # uint8 [rows, blocks, pieces, run], a view; a block is `span` columns


def plane(block: Bytes, bits: int, run: int) -> Plane:
    """Of [rows, blocks, bytes]."""
    return Plane(bits, block.reshape(*block.shape[:2], -1, run))


@dataclass(frozen=True, slots=True)
class Codes:
    bits: int  # 2, 3, 4, 5, 6 or 8
    group: int  # 16 or 32 columns share a scale
    offset: int  # subtracted from every code; 8-bit codes are signed and have none
    planes: tuple[Plane, ...]  # one or two, the lower bits of a code first
    scale: Tensor  # float16 [rows, k / span]; span is 32, or 256 where there are sub-scales
    min: Tensor | None = None  # float16 [rows, k / span]
    sub_scale: Ints | None = None  # int8 [rows, k / group]
    sub_min: Ints | None = None  # uint8 [rows, k / group], where both min and sub_scale are

    @property
    def codes(self) -> Bytes:
        """uint8 (int8 for 8 bits) [rows, k]"""
        low, *high = (cut(plane.bytes, plane.bits) for plane in self.planes)
        codes = low.reshape(len(low), -1)
        for more in high:
            codes |= more.reshape(codes.shape) << np.uint8(self.planes[0].bits)
        return codes.view(np.int8) if self.bits == 8 else codes


def expand(c: Codes) -> Tensor:
    """float32 [rows, k], each product and sum rounded in the order the formula is read."""
    codes = c.codes
    rows, k = codes.shape
    scale = _per_group(c.scale, c.sub_scale)
    weights = codes.reshape(rows, -1, c.group).astype(np.float32) - np.float32(c.offset)
    weights *= scale[..., None]
    if c.min is not None:
        low = _per_group(c.min, c.sub_min)[..., None]
        weights = weights + low if c.sub_min is None else weights - low
    return weights.reshape(rows, k)


def _per_group(halves: Tensor, factors: Ints | None) -> Tensor:
    values = halves.astype(np.float32)
    if factors is None:
        return values
    repeats = factors.shape[1] // max(1, values.shape[1])
    return np.repeat(values, repeats, axis=1) * factors.astype(np.float32)
