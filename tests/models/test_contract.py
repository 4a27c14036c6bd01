"""What every architecture promises. A new file in octavo/models/ is tested here by existing.

float32 sums of some hundred terms, added in another order, differ by about 1e-6 of their size,
and logits here are below 10.
"""

import numpy as np
import pytest

from octavo.types import PAGE_SIZE

PROMPT = [3, 14, 15, 92, 65, 35, 89, 7, 9] * 5  # 45 tokens on three pages
PAGES = (0, 1, 2)
CLOSE = {"rtol": 0, "atol": 2e-5}


@pytest.mark.parametrize("split", [1, 15, 16, 17, 44])
def test_a_prompt_fed_in_chunks_gives_the_same_logits(model, run, split):
    whole, chunked = run(model).step((PROMPT, 0, PAGES)), run(model)
    head = chunked.step((PROMPT[:split], 0, PAGES))
    tail = chunked.step((PROMPT[split:], split, PAGES))
    np.testing.assert_allclose(np.concatenate([head, tail]), whole, **CLOSE)


def test_neighbours_in_a_batch_do_not_see_each_other(model, run):
    alone = run(model).step((PROMPT, 0, PAGES))
    together = run(model).step(([1, 2], 0, (5,)), (PROMPT, 0, PAGES), ([8], 0, (9,)))
    np.testing.assert_allclose(together[2:-1], alone, **CLOSE)


def test_where_the_pages_lie_does_not_matter(model, run):
    tidy = run(model).step((PROMPT, 0, PAGES))
    scattered = run(model).step((PROMPT, 0, (7, 2, 5)))
    np.testing.assert_array_equal(scattered, tidy)


def test_pages_that_left_the_window_are_not_read(model, run):
    kept, given_back = run(model), run(model)
    for each in (kept, given_back):
        each.step((PROMPT[:-1], 0, PAGES))
    position, tables = len(PROMPT) - 1, np.array([PAGES] * len(model.groups))
    for table, group, pool in zip(tables, model.groups, given_back.pools, strict=True):
        first = 0 if group.window is None else position - group.window + 1
        left = slice(0, first // PAGE_SIZE)
        pool.pages[table[left]] = 0xFF  # every byte: floats that are not numbers
        table[left] = 2**31 - 1
    last = kept.step((PROMPT[-1:], position, PAGES))
    np.testing.assert_array_equal(given_back.step((PROMPT[-1:], position, tables)), last)


def test_the_groups_have_a_place_for_every_layer(model):
    assert sum(group.num_layers for group in model.groups) == model.config.num_layers
    assert len({group.window for group in model.groups}) == len(model.groups)
