"""Where each sequence's tokens lie: one page table per KV group, kept in step over all groups.

Knows tokens and pages; knows no queue, no request and no memory. Query p of a window group sees
the positions (p - window, p], so that its pages before them go back while the sequence runs:

    full group      [ 7 | 3 | 9 | 4 | 12 | 5 ]
    window group    [ 0 | 0 | 0 | 8 |  2 | 6 ]     0: left the window, never read
                                     ^ first
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from sys import maxsize

from octavo.errors import OutOfPages
from octavo.kvcache.pages import PageLedger
from octavo.kvcache.prefix import PageNames, PrefixIndex
from octavo.types import PAGE_SIZE, KVGroup, PageCounts, PageId


class PageTable:
    """One sequence's pages. Read by everybody, changed by PageTables alone."""

    def __init__(self, num_groups: int, salt: bytes = b"") -> None:
        # per group: int32 page ids in reading order; all groups have the same length
        self.pages: tuple[array[int], ...] = tuple(array("i") for _ in range(num_groups))
        self.first = [0] * num_groups  # per group: entries before it left the window
        self.num_named = 0  # pages offered to the index, or found in it
        self.names = PageNames(salt)

    @property
    def num_pages(self) -> int:
        return len(self.pages[0])

    @property
    def num_held(self) -> int:
        """Of all groups, those that did not leave their window."""
        return len(self.pages) * self.num_pages - sum(self.first)


@dataclass(frozen=True, slots=True)
class Prefix:
    """The pages of a cached prefix, found and not yet held."""

    num_tokens: int
    pages: tuple[list[PageId], ...]  # per group: those that a query after the prefix can see


class PageTables:
    """All the pages of a model. `max_chunk` is the most tokens of one sequence in one step."""

    def __init__(
        self,
        groups: Sequence[KVGroup],
        num_pages: Sequence[int],
        max_chunk: int,
        *,
        prefix_cache: bool = True,
    ) -> None:
        self._groups = [
            _Group(group.window, pages, max_chunk)
            for group, pages in zip(groups, num_pages, strict=True)
        ]
        self._prefix_cache = prefix_cache
        self.max_chunk = max_chunk
        # the longest sequence that fits when it is alone
        self.max_tokens = min(group.max_tokens for group in self._groups)
        self.found_tokens = 0  # that need not be computed, over all time

    def counts(self) -> tuple[PageCounts, ...]:
        return tuple(
            PageCounts(g.ledger.num_pages, g.ledger.num_held, len(g.index)) for g in self._groups
        )

    def open(self, salt: bytes = b"") -> PageTable:
        """An empty table; sequences find each other's prefixes only under the same salt."""
        return PageTable(len(self._groups), salt)

    def find(self, table: PageTable, token_ids: Sequence[int]) -> Prefix:
        """The longest prefix, in whole pages, that every group can serve; never all of the
        tokens, one at least is left to compute. Changes nothing."""
        if not self._prefix_cache:
            return self.nothing()
        limit = (len(token_ids) - 1) // PAGE_SIZE
        names = table.names.upto(token_ids, limit)
        length, before = limit, None
        while length != before:  # what one group shortens, the others must be asked again
            before = length
            for group in self._groups:
                length = group.longest(names, length)
        return Prefix(length * PAGE_SIZE, tuple(g.visible(names, length) for g in self._groups))

    def nothing(self) -> Prefix:
        return Prefix(0, tuple([] for _ in self._groups))

    def fits(self, prefix: Prefix, num_tokens: int, spare: int) -> bool:
        """Whether a sequence of so many tokens, `prefix` among them, could be computed now, with
        `spare` pages left over in every group."""
        return all(
            group.most_pages(num_tokens) - group.num_held_of(pages) + spare <= group.ledger.num_free
            for group, pages in zip(self._groups, prefix.pages, strict=True)
        )

    def hold(self, table: PageTable, prefix: Prefix) -> None:
        """Begins an empty table with what `find` found; nothing may have happened in between."""
        assert table.num_pages == 0, "a table begins with a prefix once"
        length = prefix.num_tokens // PAGE_SIZE
        for i, (group, found) in enumerate(zip(self._groups, prefix.pages, strict=True)):
            group.ledger.share(found)
            table.first[i] = length - len(found)
            table.pages[i].extend([0] * table.first[i] + found)
        table.num_named = length
        self.found_tokens += prefix.num_tokens

    def extend(self, table: PageTable, num_tokens: int) -> None:
        """Makes the positions [0, num_tokens) writable; in all groups, or OutOfPages."""
        count = -(-num_tokens // PAGE_SIZE) - table.num_pages
        if count <= 0:
            return
        free = min(group.ledger.num_free for group in self._groups)
        if count > free:
            raise OutOfPages(wanted=count, free=free)
        for group, pages in zip(self._groups, table.pages, strict=True):
            pages.extend(group.take(count))

    def computed(self, table: PageTable, token_ids: Sequence[int], num_computed: int) -> None:
        """The pages hold the first `num_computed` tokens now: full ones become findable, and
        those that no later query sees are given back."""
        full = num_computed // PAGE_SIZE
        if full > table.num_named and self._prefix_cache:
            names = table.names.upto(token_ids, full)
            for group, pages in zip(self._groups, table.pages, strict=True):
                for i in range(table.num_named, full):
                    group.index.insert(names[i], pages[i])
            table.num_named = full
        for i, group in enumerate(self._groups):
            first = group.first_visible(num_computed)
            if first > table.first[i]:
                group.let_go(table.pages[i][table.first[i] : first])
                for j in range(table.first[i], first):
                    table.pages[i][j] = 0
                table.first[i] = first

    def release(self, table: PageTable) -> None:
        """Gives back all pages, tails before heads; the table is empty again. Full pages stay
        findable until they are taken."""
        for i, group in enumerate(self._groups):
            group.let_go(table.pages[i][table.first[i] :][::-1])
            del table.pages[i][:]
            table.first[i] = 0
        table.num_named = 0


def most_pages(window: int | None, num_tokens: int, max_chunk: int) -> int:
    """The most pages that one sequence of so many tokens holds at once, in one group."""
    whole = -(-num_tokens // PAGE_SIZE)
    if window is None:
        return whole
    seen = window - 1 + max_chunk  # by the queries of one chunk; they begin anywhere in a page
    return min(whole, (seen + PAGE_SIZE - 2) // PAGE_SIZE + 1)


class _Group:
    """The ledger and the index of one KV group. A page that is indexed is held or free; a free
    one that is not indexed holds nothing of use."""

    def __init__(self, window: int | None, num_pages: int, max_chunk: int) -> None:
        self._window = window
        self._max_chunk = max_chunk
        self.ledger = PageLedger(num_pages)
        self.index = PrefixIndex()

    @property
    def max_tokens(self) -> int:
        if self.most_pages(maxsize) <= self.ledger.num_pages:
            return maxsize  # the window moves on for ever
        return self.ledger.num_pages * PAGE_SIZE

    def most_pages(self, num_tokens: int) -> int:
        return most_pages(self._window, num_tokens, self._max_chunk)

    def first_visible(self, position: int) -> int:
        """The first page that a query at `position` reads."""
        if self._window is None:
            return 0
        return max(0, position - self._window + 1) // PAGE_SIZE

    def longest(self, names: Sequence[bytes], length: int) -> int:
        """The most pages, up to `length`, after which a query finds all that it can see."""
        while missing := self._last_missing(names, length):
            length = missing - 1
        return length

    def _last_missing(self, names: Sequence[bytes], length: int) -> int:
        """Counted from 1; 0: a query after `length` pages misses none."""
        for i in range(length, self.first_visible(length * PAGE_SIZE), -1):
            if not self.index.has(names[i - 1]):
                return i
        return 0

    def visible(self, names: Sequence[bytes], length: int) -> list[PageId]:
        first = self.first_visible(length * PAGE_SIZE)
        return [self.index[name] for name in names[first:length]]

    def num_held_of(self, pages: Sequence[PageId]) -> int:
        return sum(map(self.ledger.is_held, pages))

    def take(self, count: int) -> list[PageId]:
        pages = self.ledger.take(count)
        for page in pages:
            self.index.forget(page)
        return pages

    def let_go(self, pages: Sequence[PageId]) -> None:
        for page in pages:
            if self.index.is_indexed(page):
                self.ledger.give_back((page,))
            else:
                self.ledger.throw_away((page,))
