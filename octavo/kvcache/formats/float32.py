"""Every number as it was computed; for the reference home, to see what the others cost."""

import numpy as np

from octavo.types import Tensor

NUMBER, SCALE = np.dtype("float32"), None


def encode(x: Tensor) -> tuple[Tensor, None]:
    return x, None
