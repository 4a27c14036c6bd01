"""The formulas, against the same formulas written another way: loops over scalars in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.kernels import reference
from octavo.kernels.ops import KVLayer
from octavo.kernels.reference import Formulas
from octavo.kvcache.pool import PagePool
from octavo.types import PAGE_SIZE, Batch, KVGroup, RawTensor

# A sum of n float32 products is within n ulps (6e-8 each) of the exact one; no sum here has
# more than 64 terms of size 1, and exp and tanh add a few ulps.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
NAN = 0xFF  # in every byte of a float


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def batch(positions=(0,), token_ids=None, starts=None, tables=(), outputs=()):
    ids = [0] * len(positions) if token_ids is None else token_ids
    starts = [0, len(positions)] if starts is None else starts
    return Batch(
        *(np.array(values, np.int32) for values in (ids, positions, starts)),
        tuple(np.array(table, np.int32) for table in tables),
        np.array(outputs, np.int32),
    )


def test_embed_and_take_choose_rows():
    table, ops = noise(9, 4), Formulas(batch((0, 1, 2), token_ids=(7, 0, 7), outputs=(0, 2)))
    np.testing.assert_array_equal(ops.embed(table), table[[7, 0, 7]])
    np.testing.assert_array_equal(ops.take(ops.embed(table)), table[[7, 7]])


def test_linear_multiplies_by_the_rows_of_the_weight():
    x, weight, bias = noise(3, 8), noise(5, 8, seed=1), noise(5, seed=2)
    plain, biased = Formulas(batch()).linear(x, weight), Formulas(batch()).linear(x, weight, bias)
    for i, j in np.ndindex(3, 5):
        exact = math.fsum(float(a) * float(b) for a, b in zip(x[i], weight[j], strict=True))
        assert plain[i, j] == pytest.approx(exact, rel=1e-5, abs=1e-5)
        assert biased[i, j] == pytest.approx(exact + bias[j], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("heads", [1, 3])
def test_rms_norm_goes_head_by_head(heads):
    x, weight = noise(2, heads * 8), noise(8, seed=1)
    normed = Formulas(batch()).rms_norm(x, weight, 1e-3)
    for i, h in np.ndindex(2, heads):
        head = x[i, h * 8 : h * 8 + 8].astype(np.float64)
        wanted = head / math.sqrt(sum(head**2) / 8 + 1e-3) * weight
        np.testing.assert_allclose(normed[i, h * 8 : h * 8 + 8], wanted, **CLOSE)


def test_rope_turns_each_pair_as_a_complex_number():
    inv_freq, positions = np.array([1, 0.3, 0.01], np.float32), (0, 1, 100)
    x = noise(3, 2 * 6)  # two heads of six
    turned = Formulas(batch(positions)).rope(x, inv_freq).reshape(3, 2, 2, 3)
    pairs = x.reshape(3, 2, 2, 3)
    for i, h, d in np.ndindex(3, 2, 3):
        angle = positions[i] * float(inv_freq[d])
        wanted = complex(*pairs[i, h, :, d]) * complex(math.cos(angle), math.sin(angle))
        np.testing.assert_allclose(turned[i, h, :, d], (wanted.real, wanted.imag), **CLOSE)


def test_gates_hold_at_both_ends_of_float32():
    gate = np.array([-1e4, -100, -3, -0.5, 0, 0.5, 3, 100, 1e4], np.float32)
    up, ops = noise(9), Formulas(batch())
    silu = [g * (1 / (1 + math.exp(-g)) if g > -700 else 0) for g in gate.astype(float)]
    np.testing.assert_allclose(ops.silu_mul(gate, up), silu * up, **CLOSE)
    bend = math.sqrt(2 / math.pi)
    gelu = [g / 2 * (1 + math.tanh(bend * (g + 0.044715 * g**3))) for g in gate.astype(float)]
    np.testing.assert_allclose(ops.gelu_mul(gate, up), gelu * up, **CLOSE)


def test_add_and_scale():
    x, y, ops = noise(2, 3), noise(2, 3, seed=1), Formulas(batch())
    np.testing.assert_array_equal(ops.add(x, y), x + y)
    np.testing.assert_array_equal(ops.scale(x, 0.1), x * np.float32(0.1))
    assert ops.scale(x, 0.1).dtype == np.float32


@given(
    window=st.none() | st.integers(1, 60),
    past=st.integers(0, 40),
    new=st.integers(1, 40),
    dtype=st.sampled_from(["float16", "float32", "int8"]),
)
def test_attention_is_the_softmax_over_what_a_query_sees(window, past, new, dtype):
    group = KVGroup(num_layers=2, kv_heads=2, head_dim=4, window=window)
    pool, layer = PagePool(group, num_pages=8, dtype=dtype), KVLayer(group=0, index=1)
    total, table = past + new, [6, 1, 4, 0, 7]
    q, k, v = noise(total, 6 * 4), noise(total, 2 * 4, seed=1), noise(total, 2 * 4, seed=2)
    for rows in (slice(0, past), slice(past, total)):
        positions = range(total)[rows]
        if positions:
            ops = Formulas(batch(positions, tables=[[table]]), [pool])
            mixed = ops.attention(q[rows], k[rows], v[rows], layer, 0.5)
    stored = [kept(x.reshape(total, 2, 4), dtype) for x in (k, v)]
    wanted = [dense_attention(q[i].reshape(6, 4), *stored, i, window) for i in range(past, total)]
    np.testing.assert_allclose(mixed, wanted, **CLOSE)
    assert not pool.keys(0).any(), "the other layer's"
    assert not pool.values(0).any(), "the other layer's"


def kept(x, dtype):
    """What is left of [tokens, heads, head_dim] in a page."""
    if dtype != "int8":
        return x.astype(dtype).astype(float)
    scale = np.abs(x).max(axis=2, keepdims=True).astype(float) / 127
    return np.rint(x / scale) * scale


def dense_attention(q, keys, values, position, window):
    """One query, all its heads, one after the other: [heads * head_dim]."""
    first = 0 if window is None else max(0, position - window + 1)
    mixed = []
    for head, query in enumerate(q.astype(float)):
        kv_head = head // (len(q) // keys.shape[1])
        seen = slice(first, position + 1)
        weights = np.exp(0.5 * keys[seen, kv_head] @ query)
        mixed.append(weights @ values[seen, kv_head] / weights.sum())
    return np.concatenate(mixed)


def test_keys_and_values_land_where_the_pool_says():
    pool = PagePool(KVGroup(num_layers=1, kv_heads=2, head_dim=4), num_pages=4, dtype="float32")
    k, v = noise(3, 8), noise(3, 8, seed=1)
    ops = Formulas(batch((15, 16, 17), tables=[[[3, 1]]]), [pool])
    ops.attention(noise(3, 8), k, v, KVLayer(group=0, index=0), 1)
    for row, (page, slot) in enumerate([(3, 15), (1, 0), (1, 1)]):
        np.testing.assert_array_equal(pool.keys(0)[page, :, :, slot], k[row].reshape(2, 4))
        np.testing.assert_array_equal(pool.values(0)[page, :, slot], v[row].reshape(2, 4))
    for written in (pool.keys(0), pool.values(0)):
        assert np.count_nonzero(written) == k.size


def test_pages_outside_the_window_are_not_read():
    group = KVGroup(num_layers=1, kv_heads=1, head_dim=4, window=PAGE_SIZE)
    pool, q = PagePool(group, num_pages=4, dtype="float32"), noise(50, 4)
    layer, table = KVLayer(group=0, index=0), [3, 2, 0, 1]
    Formulas(batch(range(50), tables=[[table]]), [pool]).attention(q, q, q, layer, 1)
    last = batch([50], tables=[[table]])
    whole = Formulas(last, [pool]).attention(q[:1], q[:1], q[:1], layer, 1)
    pool.pages[[3, 2]] = NAN  # positions 0 to 31: the query at 50 sees 35 to 50
    gone = batch([50], tables=[[[99, 99, 0, 1]]])
    after = Formulas(gone, [pool]).attention(q[:1], q[:1], q[:1], layer, 1)
    np.testing.assert_array_equal(after, whole)


def test_slots_not_yet_written_are_not_read():
    pool = PagePool(KVGroup(num_layers=1, kv_heads=1, head_dim=4), num_pages=2, dtype="float32")
    pool.pages[:] = NAN  # what an earlier request left
    ops = Formulas(batch((0, 1), tables=[[[1, 0]]]), [pool])
    q = noise(2, 4)
    assert np.isfinite(ops.attention(q, q, q, KVLayer(group=0, index=0), 1)).all()


def test_a_weight_is_read_row_by_row_in_the_order_that_the_loader_wants():
    values = noise(4, 6)
    raw = RawTensor("q_proj", "f32", (4, 6), values.view(np.uint8))
    np.testing.assert_array_equal(reference.weight(raw), values)
    turned = replace(raw, rows=np.array([2, 0, 3, 1]))
    np.testing.assert_array_equal(reference.weight(turned), values[[2, 0, 3, 1]])
    vector = RawTensor("norm", "f32", (6,), values[:1].view(np.uint8))
    np.testing.assert_array_equal(reference.weight(vector), values[0])
