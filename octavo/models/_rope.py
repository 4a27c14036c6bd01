"""Rotary position embedding's frequencies (Su et al., "RoFormer", section 3.2.2), and how
checkpoints stretch them to contexts longer than their first training."""

from dataclasses import dataclass

import numpy as np

from octavo.types import Tensor


@dataclass(frozen=True, slots=True)
class Llama3:
    """Long waves are slowed down by `factor`, short ones stay, those between are mixed
    (Llama 3.1, config.json's `rope_scaling`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int  # tokens


@dataclass(frozen=True, slots=True)
class Rope:
    theta: float
    slowdown: float = 1.0  # positions are divided by it: linear scaling
    llama3: Llama3 | None = None

    def inv_freq(self, head_dim: int) -> Tensor:
        """Radians a position, of each pair of dimensions: float32 [head_dim / 2], rounded as
        transformers rounds it."""
        exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        inv_freq = 1 / np.float32(self.theta) ** exponent / np.float32(self.slowdown)
        return inv_freq if self.llama3 is None else _slow_long_waves(inv_freq, self.llama3)


def _slow_long_waves(inv_freq: Tensor, scaling: Llama3) -> Tensor:
    waves = scaling.original_context * inv_freq / np.float32(2 * np.pi)  # in the first context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((waves - low) / (high - low), 0, 1)
    return (1 - kept) * inv_freq / scaling.factor + kept * inv_freq
