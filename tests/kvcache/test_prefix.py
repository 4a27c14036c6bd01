"""Names of pages: equal exactly when all tokens up to the page's end, and the salt, are equal."""

from hashlib import blake2b

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.kvcache.prefix import PageNames, PrefixIndex
from octavo.types import PAGE_SIZE


def names_of(token_ids, salt=b""):
    num_pages = len(token_ids) // PAGE_SIZE
    return PageNames(salt).upto(token_ids, num_pages)


def test_a_name_chains_blake2b_over_the_tokens_of_each_page():
    token_ids = list(range(7, 7 + 2 * PAGE_SIZE))
    name = blake2b(b"tenant", digest_size=32).digest()
    for page in (token_ids[:PAGE_SIZE], token_ids[PAGE_SIZE:]):
        data = b"".join(token.to_bytes(4, "little") for token in page)
        name = blake2b(name + data, digest_size=32).digest()
    assert names_of(token_ids, b"tenant")[-1] == name


@examples(50)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=64, max_size=64),
    st.integers(0, 63),
)
def test_one_changed_token_renames_its_page_and_all_after_it(token_ids, place):
    changed = list(token_ids)
    changed[place] ^= 1
    same = [a == b for a, b in zip(names_of(token_ids), names_of(changed), strict=True)]
    assert same == [i < place // PAGE_SIZE for i in range(4)]


def test_the_same_page_of_tokens_has_another_name_in_another_place():
    names = names_of([5] * 4 * PAGE_SIZE)
    assert len(set(names)) == 4


def test_names_under_different_salts_have_nothing_in_common():
    token_ids = list(range(32))
    assert not {*names_of(token_ids, b"a")} & {*names_of(token_ids, b"b"), *names_of(token_ids)}


@examples(50)
@given(st.lists(st.integers(0, 6), max_size=8))
def test_names_do_not_depend_on_when_they_are_asked_for(questions):
    token_ids = list(range(6 * PAGE_SIZE))
    names = PageNames()
    for num_pages in questions:
        known = token_ids[: num_pages * PAGE_SIZE]  # the sequence has not grown further yet
        assert names.upto(known, num_pages)[:num_pages] == names_of(known)


def test_of_two_pages_with_equal_contents_the_first_is_found():
    index = PrefixIndex()
    index.insert(b"hello", 3)
    index.insert(b"hello", 4)
    assert index[b"hello"] == 3
    assert index.is_indexed(3)
    assert not index.is_indexed(4)
    assert len(index) == 1


def test_a_forgotten_page_is_not_found_and_makes_room_for_the_next():
    index = PrefixIndex()
    index.insert(b"hello", 3)
    index.forget(3)
    index.forget(3)
    assert not index.has(b"hello")
    assert len(index) == 0
    index.insert(b"hello", 4)
    assert index[b"hello"] == 4


def test_a_page_holds_one_thing():
    index = PrefixIndex()
    index.insert(b"hello", 3)
    with pytest.raises(AssertionError, match="page 3 is indexed already"):
        index.insert(b"world", 3)
