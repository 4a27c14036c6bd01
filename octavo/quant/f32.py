"""F32: single-precision floats, little-endian."""

import numpy as np

from octavo.types import Bytes, Tensor

BLOCK, BYTES = 1, 4


def dequantize(packed: Bytes) -> Tensor:
    """[rows, k * 4] bytes -> [rows, k], the same memory"""
    return packed.view(np.float32)


def tiny() -> Bytes:
    return np.random.default_rng(0).normal(0, 1, (5, 96)).astype(np.float32).view(np.uint8)
