"""BF16: the upper halves of single-precision floats, little-endian."""

import numpy as np

from octavo.types import Bytes, Tensor

BLOCK, BYTES = 1, 2


def dequantize(packed: Bytes) -> Tensor:
    """[rows, k * 2] bytes -> [rows, k] floats"""
    return (packed.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def tiny() -> Bytes:
    floats = np.random.default_rng(0).normal(0, 1, (5, 96)).astype(np.float32)
    return np.ascontiguousarray(floats.view(np.uint16)[:, 1::2]).view(np.uint8)
