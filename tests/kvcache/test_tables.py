"""Page tables against memory on paper: each slot of each page remembers every token up to the
one it was written for, because keys and values depend on all of them."""

import pytest
from examples import examples
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from octavo.errors import OutOfPages
from octavo.kvcache.tables import PageTables, most_pages
from octavo.types import PAGE_SIZE, KVGroup

MAX_CHUNK = 40


def tables_of(windows, num_pages, **options):
    groups = [KVGroup(num_layers=1, kv_heads=1, head_dim=8, window=w) for w in windows]
    return PageTables(groups, num_pages, MAX_CHUNK, **options)


def visible(window, position):
    """What a query at `position` sees of the positions before it."""
    return range(0 if window is None else max(0, position - window + 1), position)


def is_empty(table):
    return not (any(map(len, table.pages)) or any(table.first) or table.num_named)


class Running:
    """A sequence as the scheduler would have it."""

    def __init__(self, table, tokens, num_computed):
        self.table, self.tokens, self.num_computed = table, tokens, num_computed


class PagesOnPaper(RuleBasedStateMachine):
    """Prompts are made of few words of a page each, so that they often share prefixes."""

    @initialize(
        groups=st.lists(
            st.tuples(st.sampled_from([None, 1, 5, 16, 17, 40]), st.integers(5, 14)),
            min_size=1,
            max_size=3,
        )
    )
    def begin(self, groups):
        self.windows = [window for window, _ in groups]
        self.num_pages = [pages for _, pages in groups]
        self.tables = tables_of(self.windows, self.num_pages)
        self.slots = [{} for _ in groups]  # (page, slot) -> the tokens up to there
        self.index = [{} for _ in groups]  # the tokens up to a page's end -> page
        self.running = []

    @rule(words=st.lists(st.sampled_from([2, 3]), max_size=6), rest=st.integers(1, 20))
    def start(self, words, rest):
        tokens = [word for word in words for _ in range(PAGE_SIZE)] + [0] * rest
        self._begin(self.tables.open(), tokens)

    def _begin(self, table, tokens):
        prefix = self.tables.find(table, tokens)
        assert prefix.num_tokens == self._longest(tokens)
        self.tables.hold(table, prefix)
        self.running.append(Running(table, tokens, prefix.num_tokens))
        self._check_what_the_next_query_sees(self.running[-1])

    def _longest(self, tokens):
        """By definition: every page that a query after the prefix sees is indexed."""
        for length in range((len(tokens) - 1) // PAGE_SIZE * PAGE_SIZE, 0, -PAGE_SIZE):
            if all(
                tuple(tokens[: (position // PAGE_SIZE + 1) * PAGE_SIZE]) in index
                for index, window in zip(self.index, self.windows, strict=True)
                for position in visible(window, length)
            ):
                return length
        return 0

    @precondition(lambda self: self.running)
    @rule(data=st.data(), length=st.integers(1, MAX_CHUNK), fails=st.booleans())
    def compute(self, data, length, fails):
        sequence = data.draw(st.sampled_from(self.running))
        end = sequence.num_computed + length
        sequence.tokens += [1] * (end - len(sequence.tokens))
        if not self._extend(sequence.table, end):
            return
        self._write(sequence, end)
        if not fails:
            self._index(sequence, end)
            self.tables.computed(sequence.table, sequence.tokens, end)
            sequence.num_computed = end
        self._check_what_the_next_query_sees(sequence)

    def _extend(self, table, end):
        before, held = table.num_pages, self.tables.counts()
        try:
            self.tables.extend(table, end)
        except OutOfPages:
            assert self.tables.counts() == held, "a refused extension must take nothing"
            return False
        for pages, index in zip(table.pages, self.index, strict=True):
            for tokens in [tokens for tokens, page in index.items() if page in pages[before:]]:
                del index[tokens]
        return True

    def _write(self, sequence, end):
        for g, slots in enumerate(self.slots):
            for position in range(sequence.num_computed, end):
                page = sequence.table.pages[g][position // PAGE_SIZE]
                assert [page in self._pages(g, s) for s in self.running].count(True) == 1
                assert page not in self.index[g].values(), "a findable page is never written"
                slots[page, position % PAGE_SIZE] = tuple(sequence.tokens[: position + 1])

    def _pages(self, g, sequence):
        return list(sequence.table.pages[g][sequence.table.first[g] :])

    def _index(self, sequence, end):
        for i in range(sequence.num_computed // PAGE_SIZE, end // PAGE_SIZE):
            tokens = tuple(sequence.tokens[: (i + 1) * PAGE_SIZE])
            for pages, index in zip(sequence.table.pages, self.index, strict=True):
                index.setdefault(tokens, pages[i])

    def _check_what_the_next_query_sees(self, sequence):
        for pages, slots, window in zip(
            sequence.table.pages, self.slots, self.windows, strict=True
        ):
            for position in visible(window, sequence.num_computed):
                seen = slots[pages[position // PAGE_SIZE], position % PAGE_SIZE]
                assert seen == tuple(sequence.tokens[: position + 1])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), begins_again=st.booleans())
    def release(self, data, begins_again):
        sequence = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.tables.release(sequence.table)
        assert is_empty(sequence.table)
        if begins_again:
            self._begin(sequence.table, sequence.tokens)

    @invariant()
    def every_page_is_free_or_held_and_findable_as_on_paper(self):
        for g, count in enumerate(self.tables.counts()):
            held = {page for sequence in self.running for page in self._pages(g, sequence)}
            assert (count.total, count.held) == (self.num_pages[g], len(held))
            assert count.findable == len(self.index[g])

    @invariant()
    def entries_that_left_the_window_are_zero_and_no_more_pages_than_promised_are_held(self):
        for sequence in self.running:
            for g, window in enumerate(self.windows):
                pages, first = sequence.table.pages[g], sequence.table.first[g]
                assert (
                    first
                    == next(
                        iter(visible(window, sequence.num_computed)),
                        (sequence.num_computed if window == 1 else 0),
                    )
                    // PAGE_SIZE
                )
                assert not any(pages[:first])
                assert len(pages) - first <= most_pages(window, len(pages) * PAGE_SIZE, MAX_CHUNK)

    def teardown(self):
        for sequence in getattr(self, "running", ()):
            self.tables.release(sequence.table)
        assert not any(count.held for count in self.tables.counts())


TestPagesOnPaper = PagesOnPaper.TestCase
TestPagesOnPaper.settings = examples(60, stateful_step_count=25)


def computed(tables, tokens, salt=b""):
    """A table that holds all the tokens, chunk by chunk, after the prefix that was found."""
    table = tables.open(salt)
    prefix = tables.find(table, tokens)
    tables.hold(table, prefix)
    for start in range(prefix.num_tokens, len(tokens), MAX_CHUNK):
        end = min(start + MAX_CHUNK, len(tokens))
        tables.extend(table, end)
        tables.computed(table, tokens, end)
    return table


def found(tables, tokens, salt=b""):
    return tables.find(tables.open(salt), tokens).num_tokens


def test_a_prompt_is_never_found_whole():
    tables = tables_of([None], [10])
    tokens = list(range(48))
    tables.release(computed(tables, tokens))
    assert found(tables, tokens) == 32
    assert found(tables, [*tokens, 7]) == 48
    assert found(tables, tokens[:1]) == 0


def test_a_half_filled_page_is_not_shared():
    tables = tables_of([None], [10])
    tables.release(computed(tables, list(range(47))))
    assert found(tables, list(range(100))) == 32


def test_a_window_group_serves_a_prefix_by_the_pages_its_next_query_sees():
    tables = tables_of([None, 20], [10, 10])
    tokens = list(range(97))
    table = computed(tables, tokens)
    assert [list(pages[:4]) for pages in table.pages] == [[0, 1, 2, 3], [0, 0, 0, 0]]
    prefix = tables.find(tables.open(), tokens)
    assert prefix.num_tokens == 96
    assert [len(pages) for pages in prefix.pages] == [6, 2]


def test_a_prefix_is_as_long_as_the_group_that_has_lost_most_of_it():
    tables = tables_of([None, 20], [10, 6])
    tables.release(computed(tables, list(range(97))))
    other = computed(tables, [7] * 60)  # takes what has left the window, and the unnamed page
    assert found(tables, list(range(97))) == 96
    tables.extend(other, 80)  # and one page of the last window, its tail
    assert found(tables, list(range(97))) == 0


def test_a_prefix_that_one_group_shortens_is_asked_of_the_others_again():
    tables = tables_of([20, None], [7, 7])
    tables.release(computed(tables, list(range(97))))
    other = tables.open()
    tables.extend(other, 48)  # the unnamed page, then two heads here and two tails there
    assert found(tables, list(range(97))) == 64
    tables.extend(other, 64)  # the third head is what a query after the third page would see
    assert found(tables, list(range(97))) == 0


def test_tails_are_lost_before_heads():
    tables = tables_of([None], [6])
    tokens = list(range(81))
    tables.release(computed(tables, tokens))
    lengths = []
    for _ in range(6):
        tables.extend(tables.open(), 1)
        lengths.append(found(tables, tokens))
    assert lengths == [80, 64, 48, 32, 16, 0]


def test_the_prefix_that_was_used_last_survives():
    tables = tables_of([None], [4])
    first, second = [1] * 33, [2] * 33
    for tokens in (first, second, first):
        tables.release(computed(tables, tokens))
    tables.extend(tables.open(), 32)
    assert (found(tables, first), found(tables, second)) == (32, 0)


def test_pages_that_hold_nothing_of_use_are_taken_before_findable_ones():
    tables = tables_of([None], [4])
    tables.release(computed(tables, [1] * 33))
    for _ in range(9):
        tables.release(computed(tables, [2] * 15))
    assert found(tables, [1] * 33) == 32


def test_prefixes_are_found_only_under_their_own_salt():
    tables = tables_of([None], [10])
    tables.release(computed(tables, [1] * 33, b"us"))
    assert found(tables, [1] * 33, b"us") == 32
    assert found(tables, [1] * 33, b"them") == found(tables, [1] * 33) == 0


def test_without_a_prefix_cache_nothing_is_found():
    tables = tables_of([None, 20], [10, 10], prefix_cache=False)
    tables.release(computed(tables, [1] * 65))
    assert found(tables, [1] * 65) == 0
    assert [count.findable for count in tables.counts()] == [0, 0]


def test_found_tokens_are_counted():
    tables = tables_of([None], [10])
    for _ in range(3):
        tables.release(computed(tables, [1] * 33))
    assert tables.found_tokens == 64


def test_room_counts_what_is_held_already_once_and_leaves_the_spare_pages():
    tables = tables_of([None], [6])
    computed(tables, [1] * 48)
    new = tables.find(tables.open(), [2] * 48)
    shared = tables.find(tables.open(), [1] * 49)
    assert tables.fits(new, 48, spare=0)
    assert not tables.fits(new, 49, spare=0)
    assert not tables.fits(new, 48, spare=1)
    assert tables.fits(shared, 96, spare=0)
    assert not tables.fits(shared, 96, spare=1)


def test_room_counts_findable_pages_that_are_free_as_pages_to_take():
    tables = tables_of([None], [6])
    tables.release(computed(tables, [1] * 48))
    prefix = tables.find(tables.open(), [1] * 49)
    assert tables.fits(prefix, 96, spare=0)
    assert not tables.fits(prefix, 97, spare=0)


@pytest.mark.parametrize("window", [1, 2, 16, 20, 26, 27, 512])
def test_the_most_pages_of_a_sequence_are_those_its_worst_chunk_sees(window):
    spans = [range(start, start + window - 1 + MAX_CHUNK) for start in range(PAGE_SIZE)]
    worst = max(len({position // PAGE_SIZE for position in span}) for span in spans)
    assert most_pages(window, 10_000, MAX_CHUNK) == worst
    assert most_pages(window, 33, MAX_CHUNK) == 3
    assert most_pages(None, 10_000, MAX_CHUNK) == 625


def test_the_longest_sequence_is_bounded_by_the_group_that_is_short_of_pages():
    assert tables_of([None, 20], [9, 5]).max_tokens == 9 * PAGE_SIZE
    assert tables_of([None, 20], [9, 4]).max_tokens == 4 * PAGE_SIZE
    assert tables_of([20], [5]).max_tokens > 2**40
