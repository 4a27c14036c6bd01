"""What all integer formats have in common: small codes in groups, each group scaled.

    weight = scale * (code - offset) + min

`scale` and `min` are half-precision numbers, one per `span` columns; the K-quants multiply them
by small integers, one per `group` columns:

    weight = scale * sub_scale * (code - offset) - min * sub_min
"""

from dataclasses import dataclass

import numpy as np

from octavo.types import Bytes, Ints, Tensor


@dataclass(frozen=True, slots=True)
class Codes:
    bits: int  # 2, 3, 4, 5, 6 or 8
    group: int  # 16 or 32 columns share a scale
    offset: int  # subtracted from every code; 8-bit codes are signed and have none
    codes: Bytes  # uint8 (int8 for 8 bits) [rows, k]
    scale: Tensor  # float16 [rows, k / span]; span is 32, or 256 where there are sub-scales
    min: Tensor | None = None  # float16 [rows, k / span]
    sub_scale: Ints | None = None  # int8 [rows, k / group]
    sub_min: Ints | None = None  # uint8 [rows, k / group], where both min and sub_scale are


def expand(c: Codes) -> Tensor:
    """float32 [rows, k], each product and sum rounded in the order the formula is read."""
    rows, k = c.codes.shape
    scale = _per_group(c.scale, c.sub_scale)
    weights = c.codes.reshape(rows, -1, c.group).astype(np.float32) - np.float32(c.offset)
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
