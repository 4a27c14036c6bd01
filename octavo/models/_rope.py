"""The frequencies of rotary position embedding (Su et al., "RoFormer", section 3.2.2), and how
checkpoints stretch them to contexts longer than their first training."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from octavo.errors import BadCheckpoint
from octavo.loader.checkpoint import Metadata
from octavo.types import Tensor


@dataclass(frozen=True, slots=True)
class Llama3:
    """Long waves are slowed down by `factor`, short ones stay, those between are mixed
    (Llama 3.1, `rope_scaling` in config.json)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int  # tokens

    def stretch(self, inv_freq: Tensor) -> Tensor:
        waves = self.original_context * inv_freq / np.float32(2 * np.pi)  # within that context
        kept = (waves - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(kept, 0, 1)
        return (1 - kept) * inv_freq / self.factor + kept * inv_freq


@dataclass(frozen=True, slots=True)
class Rope:
    theta: float
    slowdown: float = 1.0  # of all pairs: linear scaling
    slowdowns: tuple[float, ...] = ()  # of each pair: GGUF's form of Llama 3's scaling
    llama3: Llama3 | None = None

    @classmethod
    def read(cls, meta: Metadata) -> Self:
        meta.require(rope_parameters=None)  # another dialect's words for what is read here
        theta = meta.number("rope_theta", 10_000.0)
        slowdowns = meta.numbers("rope_freqs", ())
        scaling = meta.section("rope_scaling")
        if scaling is None:
            return cls(theta, slowdowns=slowdowns)
        kind = scaling.text("rope_type", scaling.text("type", "default"))
        if kind == "llama3":
            return cls(theta, slowdowns=slowdowns, llama3=_read_llama3(scaling))
        if kind not in ("default", "linear"):
            raise BadCheckpoint(
                f"rope_scaling is {kind!r}, only 'linear' and 'llama3' are implemented"
            )
        slowdown = scaling.number("factor") if kind == "linear" else 1.0
        scaling.refuse_unread()
        return cls(theta, slowdown, slowdowns)

    def inv_freq(self, head_dim: int) -> Tensor:
        """Radians a position, of each pair of dimensions: float32 [head_dim / 2], rounded where
        transformers rounds it. Raises BadCheckpoint."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        # Not NumPy's power of float32: its last bits may depend on the processor, and with them
        # every answer.
        powers = np.array([self.theta ** float(exponent) for exponent in exponents], np.float32)
        inv_freq = 1 / powers / np.float32(self.slowdown)
        if self.slowdowns:
            if len(self.slowdowns) != len(inv_freq):
                raise BadCheckpoint(
                    f"rope_freqs has {len(self.slowdowns)} factors, head_dim {head_dim} has "
                    f"{len(inv_freq)} pairs"
                )
            inv_freq = inv_freq / np.array(self.slowdowns, np.float32)
        return inv_freq if self.llama3 is None else self.llama3.stretch(inv_freq)


def _read_llama3(scaling: Metadata) -> Llama3:
    llama3 = Llama3(
        factor=scaling.number("factor"),
        low_freq_factor=scaling.number("low_freq_factor"),
        high_freq_factor=scaling.number("high_freq_factor"),
        original_context=scaling.integer("original_max_position_embeddings"),
    )
    scaling.refuse_unread()
    return llama3
