"""Which pages hold which tokens. Knows nothing of holders, windows or memory.

A full page is named by all the tokens up to its end, as a chain:

    root = H(salt)    name[0] = H(root, tokens[0:16])    name[i] = H(name[i-1], tokens[16i:16i+16])

H is BLAKE2b with 256 bits, so that nobody can forge a prompt which finds another's pages. The
salt keeps tenants apart who must not learn from timing what others have asked.
"""

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct

from octavo.types import PAGE_SIZE, PageId

_page_of_tokens = Struct(f"<{PAGE_SIZE}I").pack


class PageNames:
    """The names of one sequence's full pages, each computed once, when it is first wanted."""

    def __init__(self, salt: bytes = b"") -> None:
        self._root = _hash(salt)
        self._names: list[bytes] = []

    def upto(self, token_ids: Sequence[int], num_pages: int) -> list[bytes]:
        """The names of at least the first `num_pages` pages; `token_ids` may only have grown
        since the last call."""
        names = self._names
        for start in range(len(names) * PAGE_SIZE, num_pages * PAGE_SIZE, PAGE_SIZE):
            tokens = _page_of_tokens(*token_ids[start : start + PAGE_SIZE])
            names.append(_hash((names[-1] if names else self._root) + tokens))
        return names


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


class PrefixIndex:
    """One for each KV group, which makes the group a part of the key. Of two pages with equal
    contents the first is indexed, the other is not."""

    def __init__(self) -> None:
        self._pages: dict[bytes, PageId] = {}
        self._names: dict[PageId, bytes] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, name: bytes) -> PageId:
        return self._pages[name]

    def has(self, name: bytes) -> bool:
        return name in self._pages

    def is_indexed(self, page: PageId) -> bool:
        return page in self._names

    def insert(self, name: bytes, page: PageId) -> None:
        assert page not in self._names, f"page {page} is indexed already"
        if name not in self._pages:
            self._pages[name] = page
            self._names[page] = name

    def forget(self, page: PageId) -> None:
        """The page is about to hold something else."""
        if (name := self._names.pop(page, None)) is not None:
            del self._pages[name]
