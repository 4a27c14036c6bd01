"""The ledger against a model a child could check: a list of free pages, first to go first, and
who holds the others."""

from collections import Counter

import pytest
from examples import examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from octavo.errors import OutOfPages
from octavo.kvcache.pages import PageLedger

NUM_PAGES = 6


class Ledger(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.ledger = PageLedger(NUM_PAGES)
        self.line = list(range(NUM_PAGES))
        self.holdings = []

    @rule(count=st.integers(0, NUM_PAGES + 1))
    def take(self, count):
        if count > len(self.line):
            with pytest.raises(OutOfPages, match=f"wanted {count} KV pages, {len(self.line)}"):
                self.ledger.take(count)
        else:
            taken = self.ledger.take(count)
            assert taken == self.line[:count]
            del self.line[:count]
            self.holdings.append(taken)

    @rule(page=st.integers(0, NUM_PAGES - 1))
    def share(self, page):
        self.ledger.share([page])
        if page in self.line:
            self.line.remove(page)
        self.holdings.append([page])

    @precondition(lambda self: self.holdings)
    @rule(data=st.data())
    def give_back(self, data):
        for page in self._let_go(data, self.ledger.give_back):
            self.line.append(page)

    @precondition(lambda self: self.holdings)
    @rule(data=st.data())
    def throw_away(self, data):
        for page in self._let_go(data, self.ledger.throw_away):
            self.line.insert(0, page)

    def _let_go(self, data, verb):
        index = data.draw(st.integers(0, len(self.holdings) - 1))
        pages = self.holdings.pop(index)
        verb(pages)
        return [page for page in pages if page not in self._held()]

    def _held(self):
        return Counter(page for pages in self.holdings for page in pages)

    @invariant()
    def every_page_is_free_or_held(self):
        held = self._held()
        assert sorted([*self.line, *held]) == list(range(NUM_PAGES))
        assert (self.ledger.num_free, self.ledger.num_held) == (len(self.line), len(held))
        assert [self.ledger.is_held(page) for page in range(NUM_PAGES)] == [
            page in held for page in range(NUM_PAGES)
        ]


TestLedger = Ledger.TestCase
TestLedger.settings = examples(60, stateful_step_count=30)


def test_a_page_is_not_given_back_twice():
    ledger = PageLedger(2)
    pages = ledger.take(1)
    ledger.give_back(pages)
    with pytest.raises(AssertionError, match="page 0 is given back twice"):
        ledger.give_back(pages)
