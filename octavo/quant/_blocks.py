"""How fields are taken out of packed blocks. Knows bytes and bits, no format."""

import numpy as np

from octavo.types import Bytes, Tensor


def blocks(packed: Bytes, size: int) -> Bytes:
    """[rows, bytes] -> [rows, blocks, size], a view."""
    return packed.reshape(len(packed), -1, size)


def half(blocks: Bytes, at: int) -> Tensor:
    """The half-precision number at byte `at` of every block: float16 [rows, blocks]."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0]


def planes(packed: Bytes, bits: int) -> Bytes:
    """Cuts every byte into fields, the lowest first: [..., n] -> [..., 8 / bits, n]. Plane i
    holds the i-th field of all n bytes."""
    out = np.empty((*packed.shape[:-1], 8 // bits, packed.shape[-1]), np.uint8)
    for i in range(8 // bits):
        np.right_shift(packed, i * bits, out=out[..., i, :])
    out &= np.uint8(2**bits - 1)
    return out


def on_top(low: Bytes, high: Bytes, bits: int) -> Bytes:
    """`high` set above the `bits` bits of `low`, in place of `low`; both hold the same number of
    codes, each row's in column order: [rows, k]."""
    rows = len(low)
    codes, top = low.reshape(rows, -1), high.reshape(rows, -1)
    codes |= top << np.uint8(bits)
    return codes


def factors_of_6_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The 12 bytes a block in which Q4_K and Q5_K keep the scales and minimums of their 8 groups:
    [rows, blocks, 12] -> twice [rows, blocks * 8].

    byte j          scale of group j in the low 6 bits, the upper two bits of scale j+4 above them
    byte 4 + j      minimum of group j, likewise
    byte 8 + j      the low nibbles of scale j+4 (low) and of minimum j+4 (high)
    """
    rows = len(packed)
    scale, low, nibbles = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scale_high = (nibbles & np.uint8(15)) | (scale >> np.uint8(2) & np.uint8(0x30))
    low_high = (nibbles >> np.uint8(4)) | (low >> np.uint8(2) & np.uint8(0x30))
    scales = np.concatenate([scale & np.uint8(63), scale_high], axis=-1)
    lows = np.concatenate([low & np.uint8(63), low_high], axis=-1)
    return scales.reshape(rows, -1), lows.reshape(rows, -1)


def noise(size: int, halves: tuple[int, ...]) -> Bytes:
    """Five rows of three random blocks, with ordinary half-precision numbers at `halves`."""
    random = np.random.default_rng(0)
    made = random.integers(0, 256, (5, 3, size), dtype=np.uint8)
    for at in halves:
        values = random.normal(0, 0.1, (5, 3, 1)).astype(np.float16)
        made[..., at : at + 2] = values.view(np.uint8)
    return made.reshape(5, -1)
