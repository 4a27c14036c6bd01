"""The memory behind the pages of one group. Knows no sequence and no owner.

A page holds 16 tokens of every layer of its group, contiguous:

    [page][layer][k|v][kv_head][head_dim * 16]     keys as [dim][slot], values as [slot][dim]

so that it moves as one block, and one load of keys serves neighbouring tokens.
"""

import numpy as np

from octavo.types import PAGE_SIZE, KVGroup, Tensor


class PagePool:
    """Untouched pages cost no memory: the system hands them out when first written."""

    def __init__(self, group: KVGroup, num_pages: int, dtype: str = "float16") -> None:
        self.group = group
        lane = group.head_dim * PAGE_SIZE
        shape = (num_pages, group.num_layers, 2, group.kv_heads, lane)
        self.pages = np.zeros(shape, dtype)

    def keys(self, layer: int) -> Tensor:
        """A view, [pages, kv_heads, head_dim, PAGE_SIZE]."""
        view = self.pages[:, layer, 0]
        return view.reshape(*view.shape[:2], self.group.head_dim, PAGE_SIZE)

    def values(self, layer: int) -> Tensor:
        """A view, [pages, kv_heads, PAGE_SIZE, head_dim]."""
        view = self.pages[:, layer, 1]
        return view.reshape(*view.shape[:2], PAGE_SIZE, self.group.head_dim)


def page_bytes(group: KVGroup, itemsize: int = 2) -> int:
    return group.num_layers * 2 * group.kv_heads * group.head_dim * PAGE_SIZE * itemsize
