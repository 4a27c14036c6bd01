"""A byte a number, and a scale for each token and head.

    scale = max |x| / 127        code = round(x / scale)        x ~ code * scale

x is held within half precision's range first, so that no infinity becomes NaN; NaN makes the scale
NaN. A row of zeros has scale 0.
"""

import numpy as np

from octavo.kvcache.formats.float16 import LARGEST
from octavo.types import Tensor

NUMBER, SCALE = np.dtype("int8"), np.dtype("float32")
MOST = 127


def encode(x: Tensor) -> tuple[Tensor, Tensor]:
    x = np.clip(x, -LARGEST, LARGEST).astype(np.float32)
    scale = np.abs(x).max(axis=-1) / np.float32(MOST)
    is_some = (scale > 0)[..., None]  # neither zeros nor NaN
    codes = np.rint(np.divide(x, scale[..., None], out=np.zeros_like(x), where=is_some))
    # A scale so small that it lost digits leaves more than 127.
    return np.clip(codes, -MOST, MOST).astype(NUMBER), scale
