"""Half precision. What is too large for it is held at the largest number it has: an infinity would
make NaN of every query that gives it no weight at all."""

import numpy as np

from octavo.types import Tensor

NUMBER, SCALE = np.dtype("float16"), None
LARGEST = np.finfo(NUMBER).max


def encode(x: Tensor) -> tuple[Tensor, None]:
    return np.clip(x, -LARGEST, LARGEST).astype(NUMBER), None
