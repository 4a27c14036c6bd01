"""A log of what was said, and those who read it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from octavo.server.log import Log


async def _all(log, start):
    return [item async for item in log.follow(start)]


@given(
    kept=st.lists(st.integers(), max_size=5),
    written=st.lists(st.integers(), max_size=20),
    joins=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), max_size=6),
)
def test_every_reader_hears_all_from_its_place_on_whenever_it_joins(kept, written, joins):
    """joins: after how many items written, and from which place on."""

    async def scene():
        log = Log(kept)
        readers = []
        for step in range(len(written) + 1):
            readers += [
                (start, asyncio.create_task(_all(log, start)))
                for when, start in joins
                if min(when, len(written)) == step
            ]
            if step % 2:
                await asyncio.sleep(0)  # some readers wait, others are behind
            if step < len(written):
                log.write(written[step])
        log.end()
        for start, reader in readers:
            assert await reader == (kept + written)[start:]
        assert await _all(log, 0) == kept + written

    asyncio.run(scene())


def test_a_reader_that_leaves_disturbs_nobody():
    async def scene():
        log = Log()
        stays = asyncio.create_task(_all(log, 0))
        leaves = asyncio.create_task(_all(log, 0))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        log.write(1)
        log.end()
        assert await stays == [1]

    asyncio.run(scene())
