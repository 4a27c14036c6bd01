"""Who holds which page of one group. Bookkeeping only: no tensors, no tokens, no requests.

A page is free or held. Sharing a prefix means holding the same page twice; it is free again when
its last holder lets go. Free pages wait in line to be taken, and may be shared out of the line:

    taken first  [ thrown away | never used | given back long ago ... given back just now ]
"""

from collections import OrderedDict
from collections.abc import Iterable

from octavo.errors import OutOfPages
from octavo.types import PageId


class PageLedger:
    """Every operation costs O(1) a page."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free: OrderedDict[PageId, None] = OrderedDict.fromkeys(range(num_pages))
        self._holders = [0] * num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_held(self) -> int:
        return self.num_pages - len(self._free)

    def is_held(self, page: PageId) -> bool:
        return self._holders[page] > 0

    def take(self, count: int) -> list[PageId]:
        """All `count` pages, or none of them: OutOfPages."""
        if count > len(self._free):
            raise OutOfPages(wanted=count, free=len(self._free))
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for page in taken:
            self._holders[page] = 1
        return taken

    def share(self, pages: Iterable[PageId]) -> None:
        """Free pages may be shared too: what they hold is then safe again."""
        for page in pages:
            if self._holders[page] == 0:
                del self._free[page]
            self._holders[page] += 1

    def give_back(self, pages: Iterable[PageId]) -> None:
        """The earlier in `pages`, the earlier taken again."""
        for page in pages:
            self._let_go(page)

    def throw_away(self, pages: Iterable[PageId]) -> None:
        """Gives back pages whose contents nobody will look for: the next to be taken."""
        for page in pages:
            self._let_go(page)
            if self._holders[page] == 0:
                self._free.move_to_end(page, last=False)

    def _let_go(self, page: PageId) -> None:
        assert self._holders[page] > 0, f"page {page} is given back twice"
        self._holders[page] -= 1
        if self._holders[page] == 0:
            self._free[page] = None
