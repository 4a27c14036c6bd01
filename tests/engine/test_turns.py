"""Work that takes long, by turns: nobody's pile keeps another waiting, and nothing is lost."""

import asyncio
from threading import Event

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.engine.turns import Turns


def done_in_order(pieces, gone=()):
    """All wait before the first is begun; the places of those done, as they were done."""
    turns, may_begin, done = Turns("test"), Event(), []

    async def all_of_them():
        first = asyncio.create_task(turns.do("first", may_begin.wait))
        await asyncio.sleep(0)
        tasks = [
            asyncio.create_task(turns.do(sender, lambda place=place: done.append(place)))
            for place, sender in enumerate(pieces)
        ]
        await asyncio.sleep(0)
        for place in gone:
            tasks[place].cancel()
        await asyncio.sleep(0)
        may_begin.set()
        await first
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(all_of_them())
    return done


@examples(50)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.data())
def test_each_sender_has_its_turn_and_its_own_order(pieces, data):
    gone = data.draw(st.sets(st.integers(0, len(pieces) - 1))) if pieces else set()
    done = done_in_order(pieces, gone)
    assert sorted(done) == [place for place in range(len(pieces)) if place not in gone]
    for sender in "abc":
        own = [place for place in done if pieces[place] == sender]
        assert own == sorted(own)


def test_one_piece_of_work_comes_after_one_of_a_pile():
    assert done_in_order("aaaab") == [0, 4, 1, 2, 3]


def test_what_goes_wrong_is_told_to_its_sender_alone():
    async def both():
        turns = Turns("test")
        wrong = asyncio.create_task(turns.do("a", lambda: 1 // 0))
        assert await turns.do("b", lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await wrong

    asyncio.run(both())
