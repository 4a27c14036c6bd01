"""How fields are taken out of packed blocks. Knows bytes and bits, no format."""

import numpy as np

from octavo.types import Bytes, Tensor


def blocks(packed: Bytes, size: int) -> Bytes:
    """[rows, bytes] -> [rows, blocks, size], a view."""
    return packed.reshape(len(packed), -1, size)


def half(blocks: Bytes, at: int) -> Tensor:
    """The half-precision number at byte `at` of every block: float16 [rows, blocks], a view."""
    return blocks[..., at : at + 2].view(np.float16)[..., 0]


def cut(packed: Bytes, bits: int) -> Bytes:
    """Cuts every byte into fields, the lowest first: [..., n] -> [..., 8 / bits, n]. Field i of
    all n bytes lies together."""
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
    scale, low, nibbles = np.moveaxis(packed.view(np.uint32), -1, 0)  # four bytes at a time
    words = np.empty((2, *scale.shape, 2), np.uint32)
    six, four, two = np.uint32(0x3F3F3F3F), np.uint32(0x0F0F0F0F), np.uint32(0x30303030)
    words[0, ..., 0] = scale & six
    words[0, ..., 1] = nibbles & four | scale >> np.uint32(2) & two
    words[1, ..., 0] = low & six
    words[1, ..., 1] = nibbles >> np.uint32(4) & four | low >> np.uint32(2) & two
    scales, lows = words.view(np.uint8).reshape(2, len(packed), -1)
    return scales, lows


def noise(size: int, halves: tuple[int, ...]) -> Bytes:
    """Five rows of three random blocks, with ordinary half-precision numbers at `halves`."""
    random = np.random.default_rng(0)
    made = random.integers(0, 256, (5, 3, size), dtype=np.uint8)
    for at in halves:
        values = random.normal(0, 0.1, (5, 3, 1)).astype(np.float16)
        made[..., at : at + 2] = values.view(np.uint8)
    return made.reshape(5, -1)
