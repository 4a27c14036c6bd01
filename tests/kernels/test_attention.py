"""Attention over pages of each kind, against the reference's formulas in double precision, and
bit for bit against itself however a sequence is cut, placed, accompanied and computed.

Pages that no request of the test has written are full of NaN and infinity (programs.Running).
"""

import numpy as np
import pytest
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from programs import (
    ULP,
    Running,
    floats,
    floats_of,
    meaning,
    model_of,
    noise,
    pages_for,
    steps,
)

from octavo.kernels import cpu
from octavo.kernels.ops import KVLayer
from octavo.kvcache.formats import int8
from octavo.kvcache.pool import PagePool
from octavo.types import PAGE_SIZE, KVGroup

SAME_SET = examples(  # the instruction set stays through all examples of one test
    20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SPAN = 256  # keys that the cpu home takes at a time
KINDS = ["float16", "int8"]  # of pages
LENGTH = 600  # tokens that the tables below have rows for


class Heads:
    """Attention alone: row i of three tables of noise is the query, key and value of token i."""

    def __init__(self, kind, kv_heads=2, share=2, head_dim=16, window=None, layers=2, loud=1.0):
        self.kind, self.group = kind, KVGroup(layers, kv_heads, head_dim, window)
        self.scale = head_dim**-0.5
        self.q = noise(LENGTH, kv_heads * share * head_dim) * np.float32(loud)
        self.k = noise(LENGTH, kv_heads * head_dim, seed=1)
        self.v = noise(LENGTH, kv_heads * head_dim, seed=2)

    def forward(self, ops, load):
        q, k, v = (ops.embed(load(floats(table))) for table in (self.q, self.k, self.v))
        return ops.attention(q, k, v, KVLayer(0, self.group.num_layers - 1), self.scale)

    def running(self, *, threads=1, pages=64):
        model = model_of(self.forward, cpu.weight, (self.group,))
        return Running(cpu, model, threads=threads, pages=pages, tokens=LENGTH, dtype=self.kind)

    def exact(self, tokens, table):
        """The answers to tokens [0, end) of one sequence, in double precision over such pages."""
        pool = PagePool(self.group, 64, self.kind)
        return meaning(self.forward, steps([(tokens, 0, table)], 1), [pool])

    def allowed(self, keys):
        """A score is a sum of head_dim products, so it is off by d = (head_dim + 2) ulps of
        |q| |k| at most; then e^score is off by a share of d, against the largest score by 2d, and
        so is the sum that divides it: 4d. exp itself adds 4 ulps, each of the sums over keys one a
        key, merging and dividing some 8 a span. All of it counts in values of |v| at most. Codes: a
        scale is multiplied once here and once there, for keys and for values; a key is off by half
        a step of max/127 in each dim, and so longer by sqrt(head_dim)/254 at most."""
        q = self.q.reshape(LENGTH, self.group.kv_heads, -1, self.group.head_dim) * self.scale
        k = self.k.reshape(LENGTH, self.group.kv_heads, 1, self.group.head_dim)
        longest = [np.linalg.norm(x.astype(float), axis=3).max() for x in (q, k)]
        if self.kind == "int8":
            longest[1] *= 1 + self.group.head_dim**0.5 / 254
        off = (self.group.head_dim + 4) * longest[0] * longest[1]
        return (4 * off + 10 + 2 * keys + 8 * (1 + keys / SPAN)) * ULP * np.abs(self.v).max()


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.thorough
@pytest.mark.parametrize("head_dim", [16, 48, 64, 256])
@pytest.mark.parametrize("share", [1, 3, 4, 8])
def test_every_head_size_and_sharing(head_dim, share, kind, instruction_set):
    heads = Heads(kind, kv_heads=2, share=share, head_dim=head_dim)
    check_exact(heads, [37])
    check_exact(heads, [20, 1, 16])


@pytest.mark.parametrize("window", [1, 5, 16, 24, 255, 256, 300, None])
def test_windows_smaller_and_larger_than_pages_and_spans(window, kind, instruction_set):
    check_exact(Heads(kind, kv_heads=1, share=3, window=window), [250, 1, 1, 20, 300, LENGTH - 572])


def test_scores_of_hundreds_do_not_overflow(kind, instruction_set):
    check_exact(Heads(kind, loud=100), [40])


def check_exact(heads, chunks):
    total, table = sum(chunks), pages_for(sum(chunks), seed=len(chunks))
    got = in_chunks(heads.running(), chunks, table)
    keys = min(total, heads.group.window or total)
    error = np.abs(got - heads.exact(range(total), table))
    assert error.max() <= heads.allowed(keys)


def in_chunks(running, chunks, table, first=0):
    """A sequence whose token i is i, so many tokens a step."""
    answers = []
    for count in chunks:
        answers.append(running.step((range(first, first + count), first, table)))
        first += count
    return np.concatenate(answers)


@SAME_SET
@given(
    chunks=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    window=st.sampled_from([None, 7, 40, 280]),
    threads=st.integers(1, 3),
    share=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 99),
    kind=st.sampled_from(KINDS),
)
def test_how_a_prompt_is_cut_and_placed_does_not_change_a_bit(
    instruction_set, chunks, window, threads, share, seed, kind
):
    heads = Heads(kind, kv_heads=2, share=share, window=window)
    chunks = chunks[: int(np.searchsorted(np.cumsum(chunks), LENGTH, side="right"))] or [1]
    total = sum(chunks)
    whole = in_chunks(heads.running(), [total], range(64))
    cut = in_chunks(heads.running(threads=threads), chunks, pages_for(total, seed))
    np.testing.assert_array_equal(cut, whole)


@SAME_SET
@given(
    lengths=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=2, max_size=17),
    window=st.sampled_from([None, 20, 280]),
    threads=st.integers(1, 3),
    kind=st.sampled_from(KINDS),
)
def test_neighbours_do_not_change_a_bit(instruction_set, lengths, window, threads, kind):
    """Each sequence has a past and brings some tokens: one (a decode) or more (a chunk)."""
    heads, pages = Heads(kind, window=window), np.random.default_rng(0).permutation(17 * 22)
    together, one = heads.running(threads=threads, pages=17 * 22), heads.running()
    sequences, alone = [], []
    for i, (past, new) in enumerate(lengths):
        token_ids = np.arange(past + new) + 7 * i  # so that sequences differ
        sequences.append((token_ids[past:], past, pages[22 * i : 22 * i + 22]))
        if past:
            together.step((token_ids[:past], 0, sequences[-1][2]))
            one.step((token_ids[:past], 0, range(22)))
        alone.append(one.step((token_ids[past:], past, range(22))))
    np.testing.assert_array_equal(together.step(*sequences), np.concatenate(alone))


@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_one_decode_cut_between_threads_has_the_same_bits(window, threads, kind, instruction_set):
    """One query over three spans is cut by spans where more than one thread waits for work."""
    heads, table = Heads(kind, kv_heads=1, share=3, window=window), pages_for(LENGTH)
    one, many = heads.running(), heads.running(threads=threads)
    for running in (one, many):
        in_chunks(running, [300, LENGTH - 310], table)
    decodes = [1] * 10
    last = in_chunks(one, decodes, table, first=LENGTH - 10)
    np.testing.assert_array_equal(in_chunks(many, decodes, table, first=LENGTH - 10), last)


def test_halves_are_stored_as_numpy_rounds_them(instruction_set):
    """Every float16, subnormal ones too, what lies just above it, and around the middle."""
    heads = Heads("float16", kv_heads=1, share=1, head_dim=64)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    above = np.nextafter(halves, np.float32(np.inf))
    ties = (halves[:-1] + halves[1:]) / 2
    below = np.nextafter(ties, np.float32(0))
    values = np.concatenate([halves, above, ties, below])
    values = np.random.default_rng(0).permutation(np.concatenate([values, -values]))
    for start in range(0, len(values) - LENGTH * 64, LENGTH * 64):
        heads.k = values[start : start + LENGTH * 64].reshape(LENGTH, 64)
        heads.v = np.roll(heads.k, 1)
        running = heads.running()
        in_chunks(running, [LENGTH], range(38))
        keys, stored = running.pools[0].keys(1)[:38, 0], running.pools[0].values(1)[:38, 0]
        by_token = np.moveaxis(keys, 1, 2).reshape(-1, 64)[:LENGTH]
        np.testing.assert_array_equal(by_token, heads.k.astype(np.float16))
        np.testing.assert_array_equal(stored.reshape(-1, 64)[:LENGTH], heads.v.astype(np.float16))


def test_codes_are_stored_as_the_format_has_them(instruction_set):
    """Rows of every size that float32 has, a few numbers in each as large as its largest."""
    heads = Heads("int8", kv_heads=1, share=1, head_dim=64)
    heads.k *= np.float32(2) ** np.linspace(-148, 18, LENGTH).astype(np.float32)[:, None]
    heads.k[:, 5:9] = np.abs(heads.k).max(axis=1, keepdims=True) * np.array([1, -1, 0.5, 0])
    heads.k[7], heads.k[8, 3], heads.k[9, 3] = 0, np.inf, -np.inf
    heads.v = np.roll(heads.k, 1, axis=0)
    running = heads.running()
    in_chunks(running, [LENGTH], range(38))
    pool = running.pools[0]
    by_token = np.moveaxis(pool.keys(1)[:38, 0], 1, 2).reshape(-1, 64)[:LENGTH]
    for x, codes, scales in (
        (heads.k, by_token, pool.key_scales(1)),
        (heads.v, pool.values(1)[:38, 0].reshape(-1, 64)[:LENGTH], pool.value_scales(1)),
    ):
        wanted = int8.encode(x)
        np.testing.assert_array_equal(codes, wanted[0])
        np.testing.assert_array_equal(scales[:38].ravel()[:LENGTH], wanted[1])


def test_a_number_that_is_none_stays_none(kind, instruction_set):
    heads = Heads(kind)
    heads.v[20, 3] = np.nan
    assert np.isnan(in_chunks(heads.running(), [30], range(2))[20:, 3]).all()


def test_nothing_is_written_but_the_tokens_own_slots(kind, instruction_set):
    heads, table = Heads(kind, layers=3), pages_for(37)
    running = heads.running()
    pool = running.pools[0]
    views = [pool.keys, pool.values]
    if kind == "int8":
        views += [pool.key_scales, pool.value_scales]

    def numbers():  # as bytes, since NaN is not NaN
        seen = [np.stack([view(layer) for layer in range(3)]) for view in views]
        return [each.view(f"u{each.itemsize}") for each in seen]

    before = numbers()
    running.step((range(37), 0, table))
    slots = np.zeros((64, PAGE_SIZE), bool)
    slots[table] = np.arange(48).reshape(3, 16) < 37
    for old, new, axis in zip(before, numbers(), (4, 3, 3, 3), strict=False):
        written = np.moveaxis(old != new, axis, 2)  # [layer, page, slot, ...]
        assert not written[:2].any(), "other layers'"
        wanted = slots.reshape(*slots.shape, *[1] * (written.ndim - 3))
        np.testing.assert_array_equal(written[2], np.broadcast_to(wanted, written[2].shape))


@pytest.mark.parametrize("window", [20, 300])
def test_pages_that_left_the_window_are_not_read(window, kind, instruction_set):
    heads, table = Heads(kind, window=window), pages_for(LENGTH)
    kept, given_back = heads.running(threads=2), heads.running(threads=2)
    for running in (kept, given_back):
        in_chunks(running, [LENGTH - 1], table)
    gone = np.array(table)
    left = slice(0, (LENGTH - window) // PAGE_SIZE)
    for numbers in floats_of(given_back.pools[0]):
        numbers[gone[left]] = np.nan
    gone[left] = 2**31 - 1
    now = [LENGTH - 1]
    last = kept.step((now, LENGTH - 1, table))
    np.testing.assert_array_equal(given_back.step((now, LENGTH - 1, gone)), last)


def test_values_too_large_for_half_precision_are_held_and_leave_earlier_tokens_alone(
    kind, instruction_set
):
    heads = Heads(kind)
    plain = in_chunks(heads.running(), [30], range(2))
    heads.v[20], heads.v[21] = 1e6, -np.inf
    loud = in_chunks(heads.running(), [30], range(2))
    np.testing.assert_array_equal(loud[:20], plain[:20])
    assert np.isfinite(loud[20:]).all()
