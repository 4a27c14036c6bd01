"""What pages keep of numbers, against the same written one number at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.kvcache import pool
from octavo.kvcache.formats import float16, int8
from octavo.kvcache.pool import PagePool, block_bytes, page_bytes
from octavo.registry import entry, names
from octavo.types import KVGroup

GROUP = KVGroup(num_layers=3, kv_heads=2, head_dim=48)
ROWS = st.lists(st.floats(width=32, allow_nan=False), min_size=8, max_size=8)


@pytest.mark.parametrize("name", names(pool.FORMATS))
def test_a_pool_holds_what_its_format_makes(name):
    made, form = PagePool(GROUP, 5, name), entry(pool.FORMATS, name)
    numbers, scales = form.encode(np.ones((16, 48), np.float32))
    made.values(2)[4, 1] = numbers
    made.keys(0)[3, 0] = numbers.T
    if scales is not None:
        made.value_scales(2)[4, 1] = made.key_scales(0)[3, 0] = scales
    block = numbers.tobytes() + (b"" if scales is None else scales.tobytes())
    assert made.pages[4, 2, 1, 1].tobytes() == made.pages[3, 0, 0, 0].tobytes() == block
    assert np.count_nonzero(made.pages) == 2 * (len(block) - block.count(0))
    assert made.pages.nbytes == 5 * page_bytes(GROUP, name)
    assert made.pages.ctypes.data % 64 == 0


@pytest.mark.parametrize(("name", "size"), [("float16", 1536), ("int8", 832), ("float32", 3072)])
def test_bytes_of_a_block(name, size):
    assert block_bytes(GROUP, name) == size
    assert page_bytes(GROUP, name) == 3 * 2 * 2 * size


@given(row=ROWS)
def test_codes_are_the_nearest_steps_of_the_largest_number(row):
    codes, scale = int8.encode(np.array([row], np.float32))
    row = [min(max(x, -65504.0), 65504.0) for x in row]
    assert scale[0] == np.float32(max(map(abs, row))) / np.float32(127)
    for code, x in zip(codes[0].tolist(), row, strict=True):
        assert abs(code) <= 127
        # Half a step, a rounding of x / scale, and a scale of few digits.
        assert abs(code * float(scale[0]) - x) <= scale[0] * (0.5 + 127 * 2**-23) + 127 * 2**-149


def test_zeros_have_no_scale_and_what_is_no_number_stays_none():
    x = np.zeros((3, 4), np.float32)
    x[1, 2], x[2] = np.nan, [-math.inf, 1, math.inf, 0]
    codes, scale = int8.encode(x)
    np.testing.assert_array_equal(scale, np.float32([0, np.nan, np.float32(65504) / 127]))
    np.testing.assert_array_equal(codes[[0, 2]], [[0] * 4, [-127, 0, 127, 0]])


def test_halves_hold_what_is_too_large():
    halves, _ = float16.encode(np.float32([1e9, -math.inf, 65519, 0.1]))
    np.testing.assert_array_equal(halves, np.float16([65504, -65504, 65504, 0.1]))
