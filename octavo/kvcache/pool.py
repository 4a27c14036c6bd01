"""The memory behind the pages of one group. Knows no sequence and no owner.

A page holds 16 tokens of every layer of its group, contiguous, in blocks:

    [page][layer][k|v][kv_head]    one block: the keys, or the values, of 16 tokens
    numbers                        keys as [dim][slot], values as [slot][dim]
    scales, one a slot             in formats that have them

so that it moves as one block, and one load of keys serves neighbouring tokens.
"""

import numpy as np

from octavo.registry import entry
from octavo.types import PAGE_SIZE, KVGroup, Tensor

FORMATS = "octavo.kvcache.formats"
ALIGNMENT = 64  # bytes: blocks begin with a cache line


class PagePool:
    """Untouched pages cost no memory: the system hands them out when first written."""

    def __init__(self, group: KVGroup, num_pages: int, dtype: str = "float16") -> None:
        self.group, self.dtype = group, dtype
        self.format = entry(FORMATS, dtype)
        self._lane = group.head_dim * PAGE_SIZE * self.format.NUMBER.itemsize
        shape = (num_pages, group.num_layers, 2, group.kv_heads, block_bytes(group, dtype))
        memory = np.zeros(int(np.prod(shape)) + ALIGNMENT, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        self.pages: Tensor = memory[first : first + memory.size - ALIGNMENT].reshape(shape)

    def keys(self, layer: int) -> Tensor:
        """The numbers, a view, [pages, kv_heads, head_dim, PAGE_SIZE]."""
        return self._numbers(layer, 0, (self.group.head_dim, PAGE_SIZE))

    def values(self, layer: int) -> Tensor:
        """The numbers, a view, [pages, kv_heads, PAGE_SIZE, head_dim]."""
        return self._numbers(layer, 1, (PAGE_SIZE, self.group.head_dim))

    def key_scales(self, layer: int) -> Tensor:
        """A view, [pages, kv_heads, PAGE_SIZE]; of a format that has scales."""
        return self.pages[:, layer, 0, :, self._lane :].view(self.format.SCALE)

    def value_scales(self, layer: int) -> Tensor:
        """A view, [pages, kv_heads, PAGE_SIZE]; of a format that has scales."""
        return self.pages[:, layer, 1, :, self._lane :].view(self.format.SCALE)

    def _numbers(self, layer: int, side: int, shape: tuple[int, int]) -> Tensor:
        view = self.pages[:, layer, side, :, : self._lane].view(self.format.NUMBER)
        return view.reshape(*view.shape[:2], *shape)


def block_bytes(group: KVGroup, dtype: str) -> int:
    """Of the keys, or the values, of one page, layer and KV head."""
    form = entry(FORMATS, dtype)
    scale = 0 if form.SCALE is None else form.SCALE.itemsize
    return PAGE_SIZE * (group.head_dim * form.NUMBER.itemsize + scale)


def page_bytes(group: KVGroup, dtype: str = "float16") -> int:
    return group.num_layers * 2 * group.kv_heads * block_bytes(group, dtype)
