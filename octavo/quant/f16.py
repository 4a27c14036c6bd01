"""F16: half-precision floats, little-endian."""

import numpy as np

from octavo.types import Bytes, Tensor

BLOCK, BYTES = 1, 2


def dequantize(packed: Bytes) -> Tensor:
    """[rows, k * 2] bytes -> [rows, k] floats"""
    return packed.view(np.float16).astype(np.float32)


def tiny() -> Bytes:
    return np.random.default_rng(0).normal(0, 1, (5, 96)).astype(np.float16).view(np.uint8)
