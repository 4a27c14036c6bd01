"""The arithmetic of memory, against its own definition and worked examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.config import Config
from octavo.engine.memory import Needs, make_plan
from octavo.errors import BadConfig
from octavo.types import KVGroup

MIB = 1 << 20
FULL = KVGroup(num_layers=8, kv_heads=2, head_dim=64)  # 64 KiB a page of float16
LOCAL = KVGroup(num_layers=24, kv_heads=2, head_dim=64, window=64)  # 192 KiB a page


def needs(*groups, weights=90 * MIB, buffers=0, context=4096):
    return Needs(groups, context, weights, buffers, kv_dtype="float16")


def plan(allowed, needs, threads=2, **options):
    return make_plan(Config("model", **options), needs, allowed, threads)


def test_all_that_is_left_becomes_pages():
    made = plan(100 * MIB, needs(FULL, weights=90 * MIB, buffers=4 * MIB))
    assert made.num_pages == (6 * 16,)
    assert (made.weight_bytes, made.buffer_bytes, made.page_bytes) == (90 * MIB, 4 * MIB, 6 * MIB)
    assert (made.memory, made.max_context, made.threads) == (100 * MIB, 96 * 16, 2)


def test_a_window_group_gets_what_its_windows_can_hold_and_the_full_one_the_rest():
    made = plan(200 * MIB, needs(FULL, LOCAL), max_running=4, step_tokens=32)
    # 64 - 1 + 32 positions, beginning anywhere, touch at most 7 pages
    assert made.num_pages[1] == 4 * 7
    assert made.num_pages[0] == (110 * MIB - 28 * 192 * 1024) // (64 * 1024)


def test_a_window_group_never_gets_more_than_the_full_one():
    assert plan(92 * MIB, needs(FULL, LOCAL)).num_pages == (8, 8)


def test_windows_alone_need_no_pages_for_the_context():
    made = plan(200 * MIB, needs(LOCAL, context=100_000), max_running=2, step_tokens=32)
    assert (made.num_pages, made.max_context) == ((14,), 100_000)


def test_more_memory_than_twice_what_all_sequences_hold_is_left_alone():
    made = plan(1 << 40, needs(FULL, context=1600), max_running=3)
    assert (made.num_pages, made.max_context) == ((3 * 100 * 2,), 1600)
    assert plan(1 << 40, needs(FULL), max_running=3, prefix_cache=False).num_pages == (3 * 256,)


def test_a_context_that_is_asked_for_is_kept():
    assert plan(200 * MIB, needs(FULL), max_context=1000).max_context == 1000


REFUSED = {
    "memory: 100 MiB asked, weights take 92 MiB, buffers 11 MiB; nothing is left for one sequence "
    "of one page (16 tokens): give at least 104 MiB": (
        100,
        needs(FULL, weights=92 * MIB, buffers=11 * MIB),
        {"memory": 100 * MIB},
    ),
    "memory: 80 MiB is free, weights take 90 MiB, buffers 0 MiB; nothing is left for one sequence "
    "of one page (16 tokens): give more than 91 MiB": (80, needs(FULL), {}),
    "max_context: 5000 tokens asked, the model was trained for 4096: give at most 4096": (
        1000,
        needs(FULL),
        {"max_context": 5000},
    ),
    "max_context: 4000 tokens of one sequence take 16 MiB of pages; 100 MiB asked, weights take "
    "90 MiB, buffers 0 MiB: give at most 2560 tokens or at least 106 MiB of memory": (
        100,
        needs(FULL),
        {"max_context": 4000, "memory": 100 * MIB},
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_is_refused_with_the_arithmetic(sentence):
    memory, wanted, options = REFUSED[sentence]
    with pytest.raises(BadConfig) as refused:
        plan(memory * MIB, wanted, **options)
    assert str(refused.value) == sentence


def test_what_a_refusal_tells_to_give_is_enough():
    assert plan(104 * MIB, needs(FULL, weights=92 * MIB, buffers=11 * MIB)).num_pages == (16,)
    assert plan(106 * MIB, needs(FULL), max_context=4000).max_context == 4000
    assert plan(100 * MIB, needs(FULL), max_context=2560).max_context == 2560


GROUPS = st.lists(
    st.builds(
        KVGroup,
        num_layers=st.integers(1, 30),
        kv_heads=st.integers(1, 8),
        head_dim=st.just(64),
        window=st.none() | st.integers(1, 600),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


@given(
    memory=st.integers(1, 2000).map(lambda size: size * MIB),
    groups=GROUPS,
    context=st.integers(1, 9000),
    max_running=st.integers(1, 20),
    prefix_cache=st.booleans(),
)
def test_the_bytes_add_up_and_one_sequence_always_fits(
    memory, groups, context, max_running, prefix_cache
):
    wanted = needs(*groups, weights=10 * MIB, buffers=MIB, context=context)
    options = {"max_running": max_running, "prefix_cache": prefix_cache}
    try:
        made = plan(memory, wanted, **options)
    except BadConfig:
        one_each = sum(g.num_layers * 2 * g.kv_heads * 64 * 16 * 2 for g in groups)
        assert memory < 11 * MIB + one_each
        return
    sizes = [g.num_layers * 2 * g.kv_heads * 64 * 16 * 2 for g in groups]
    assert made.page_bytes == sum(s * n for s, n in zip(sizes, made.num_pages, strict=True))
    assert made.weight_bytes + made.buffer_bytes + made.page_bytes <= memory
    assert 1 <= made.max_context <= context
    for group, pages in zip(groups, made.num_pages, strict=True):
        whole = -(-made.max_context // 16)
        seen = (group.window or 10_000) - 1 + 256  # by a step's queries; they begin anywhere
        assert pages >= min(whole, max((begin + seen - 1) // 16 + 1 for begin in range(16)))
