"""What all integer formats have in common: small codes in groups, each group scaled.

    weight = scale * (code - offset) + min

`scale` and `min` are half-precision numbers, one per `span` columns; the K-quants multiply them
by small integers, one per `group` columns:

    weight = scale * sub_scale * (code - offset) - min * sub_min
"""

from dataclasses import dataclass

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
