"""Packed weights: nothing is lost in packing, and products with them are right, for every format in
octavo/quant and every instruction set.

The kernels round activations to 8 bits per token and 32 columns, so the oracle rounds them the same
way first (`rounded`). What is left is float32 rounding, and its bound is the number of operations
that one output passes through, times half an ulp, times the size of what is added (`allowed`).
"""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import random_matrix
from programs import ULP, Compiled, compute, floats, noise, packed, tokens

from octavo.kernels import _cpu, cpu
from octavo.quant._codes import expand
from octavo.registry import entry, names

FORMATS = names("octavo.quant")
CODES = [form for form in FORMATS if hasattr(entry("octavo.quant", form), "split")]
FLOATS = [form for form in FORMATS if form not in CODES]


def matrix(form, rows, columns, seed=0):
    return packed(form, random_matrix(form, rows, columns, np.random.default_rng(seed)))


def product(x, weight, bias=None, **how):
    terms = None if bias is None else floats(bias)

    def forward(ops, load):
        return ops.linear(ops.embed(load(floats(x))), load(weight), load(terms) if terms else None)

    return compute(forward, tokens(len(x)), **how)


def rounded(x):
    """What the kernels see of x: per 32 columns, whole multiples of 1/127 of the largest."""
    blocks = x.reshape(len(x), -1, 32)
    peak = np.abs(blocks).max(axis=2, keepdims=True)
    inverse = np.divide(np.float32(127), peak, out=np.zeros_like(peak), where=peak > 0)
    seen = np.rint(blocks * inverse).astype(np.float64) * (peak / np.float32(127))
    return seen.reshape(x.shape)


def magnitude(c):
    """The size of the terms that a weight of codes is made of: its offset is added up apart."""
    columns = c.codes.shape[1]

    def over_columns(groups):
        sizes = 1.0 if groups is None else abs(groups.astype(np.float64))
        return sizes if groups is None else np.repeat(sizes, columns // groups.shape[1], axis=1)

    size = (abs(c.codes.astype(np.float64)) + c.offset) * over_columns(c.scale)
    size *= over_columns(c.sub_scale)
    return size if c.min is None else size + over_columns(c.min) * over_columns(c.sub_min)


def allowed(columns, x, size):
    """Two terms a block of 32 columns (codes; offset or minimum), each rounded four times on its
    way, each sum rounded, twice where the instruction set has no fused multiply-add."""
    return (4 * columns / 32 + 8) * ULP * (np.abs(x) @ size.T)


def check_codes(x, c, got):
    seen, weights = rounded(x), expand(c).astype(np.float64)
    error = np.abs(got - seen @ weights.T)
    assert (error <= allowed(x.shape[1], seen, magnitude(c))).all()


@pytest.mark.parametrize("form", FORMATS)
def test_packing_loses_nothing(form, instruction_set):
    file = entry("octavo.quant", form)
    for data in (file.tiny(), random_matrix(form, 17, 2 * file.BLOCK, np.random.default_rng(1))):
        unpacked = cpu.weight(packed(form, data)).unpack()
        np.testing.assert_array_equal(bits(unpacked), bits(file.dequantize(data)))


@pytest.mark.parametrize("form", FORMATS)
def test_rows_in_another_order_and_in_slices_are_packed_alike(form, monkeypatch, instruction_set):
    monkeypatch.setattr(cpu, "SLICE_BYTES", 1)  # eight rows at a time
    file = entry("octavo.quant", form)
    data = random_matrix(form, 37, file.BLOCK, np.random.default_rng(2))
    order = np.random.default_rng(3).permutation(37)
    unpacked = cpu.weight(packed(form, data, order)).unpack()
    np.testing.assert_array_equal(bits(unpacked), bits(file.dequantize(data)[order]))


@pytest.mark.parametrize("form", ["f16", "bf16"])
def test_every_half_is_unpacked_to_its_own_float(form):
    halves = np.arange(1 << 16, dtype=np.uint16)
    bad = (halves & 0x7C00) == 0x7C00 if form == "f16" else (halves & 0x7F80) == 0x7F80
    halves[bad] = 0  # a NaN's spare bits may be kept or not
    data = halves.reshape(256, 256).view(np.uint8)
    unpacked = cpu.weight(packed(form, data)).unpack()
    np.testing.assert_array_equal(
        bits(unpacked), bits(entry("octavo.quant", form).dequantize(data))
    )


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


@pytest.mark.parametrize("form", CODES)
@pytest.mark.parametrize("blocks", [1, 3])
def test_codes_times_activations(form, blocks, instruction_set):
    file = entry("octavo.quant", form)
    data = random_matrix(form, 11, blocks * file.BLOCK, np.random.default_rng(blocks))
    x = noise(17, blocks * file.BLOCK)
    check_codes(x, file.split(data), product(x, packed(form, data)))


@pytest.mark.parametrize("form", CODES)
def test_blocks_of_noise_times_activations(form, instruction_set):
    """The format's own examples: every bit of a block is random."""
    file = entry("octavo.quant", form)
    x = noise(5, file.tiny().shape[1] // file.BYTES * file.BLOCK)
    check_codes(x, file.split(file.tiny()), product(x, packed(form, file.tiny())))


@pytest.mark.parametrize("form", CODES)
@pytest.mark.parametrize("largest_code", [False, True])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_products_do_not_overflow_on_their_way(
    form, largest_code, sign, instruction_set
):
    shape = entry("octavo.quant", form)
    c = extreme(shape.split(shape.tiny()), largest_code)
    x = np.full((3, c.codes.shape[1]), sign * 2.5, np.float32)
    native = weight_of(c)
    got = compute(lambda ops, load: ops.linear(ops.embed(load(floats(x))), native), tokens(3))
    check_codes(x, c, got)


def extreme(c, largest_code):
    """Codes of the same layout, all the largest or all the smallest."""
    byte = (127 if largest_code else 128) if c.bits == 8 else 255 * largest_code

    def full(array, value):
        return None if array is None else np.full_like(array, value)

    return replace(
        c,
        planes=tuple(replace(plane, bytes=full(plane.bytes, byte)) for plane in c.planes),
        scale=full(c.scale, 1.5),
        min=full(c.min, -0.75),
        sub_scale=full(c.sub_scale, 63 if c.sub_min is not None else -128),
        sub_min=full(c.sub_min, 63),
    )


def weight_of(c):
    rows, columns = c.codes.shape
    has_min, has_sub = c.min is not None, c.sub_scale is not None
    made = _cpu.Weight.codes(_cpu.Arena(), rows, columns, c.bits, c.group, has_min, has_sub)
    cpu.put_codes(made, 0, c)
    return made


def test_activations_between_two_codes_go_to_the_even_one(instruction_set):
    halves = [127, *np.arange(0.5, 31), -127, *np.arange(-15.5, 15)]  # the largest sets the scale
    x = np.array([halves], np.float32)
    data = entry("octavo.quant", "q8_0").tiny()[:, : 2 * 34]
    check_codes(x, entry("octavo.quant", "q8_0").split(data), product(x, packed("q8_0", data)))


@pytest.mark.parametrize("form", CODES)
def test_activations_of_zero_give_zero_and_tiny_ones_nothing_large(form, instruction_set):
    file = entry("octavo.quant", form)
    x = np.zeros((2, file.tiny().shape[1] // file.BYTES * file.BLOCK), np.float32)
    x[1] = 1e-40  # not a normal number
    got = product(x, packed(form, file.tiny()))
    assert not got[0].any()
    # 1e-40 or 128 times as much, times weights whose absolute sum is below 1e6
    assert (np.abs(got[1]) < 1e-30).all()


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 20), (8, 33), (29, 96)])
def test_floats_times_activations(form, rows, columns, instruction_set):
    data = random_matrix(form, rows, columns, np.random.default_rng(rows))
    x, weights = noise(7, columns), entry("octavo.quant", form).dequantize(data).astype(float)
    got = product(x, packed(form, data))
    # One product and one sum a column, each rounded.
    bound = (columns + 2) * ULP * (np.abs(x) @ np.abs(weights).T)
    assert (np.abs(got - x.astype(float) @ weights.T) <= bound).all()


@pytest.mark.parametrize("form", ["q4_0", "f32"])
@pytest.mark.parametrize("rows", [1, 8, 13])
def test_a_bias_is_added_once(form, rows, instruction_set):
    weight, bias, x = matrix(form, rows, 64), noise(rows, seed=5), noise(5, 64)
    plain, biased = product(x, weight), product(x, weight, bias)
    np.testing.assert_array_equal(biased, plain + bias)


@pytest.mark.parametrize("form", FORMATS)
def test_a_token_has_the_same_bits_alone_and_among_up_to_16_others(form, instruction_set):
    columns = 2 * max(32, entry("octavo.quant", form).BLOCK)
    x, weight = noise(17, columns), matrix(form, 19, columns)
    program = Compiled(lambda ops, load: ops.linear(ops.embed(load(floats(x))), load(weight)))
    alone = np.concatenate([program.run(chosen([i])) for i in range(17)])
    for count in range(2, 18):
        order = np.random.default_rng(count).permutation(17)[:count]
        np.testing.assert_array_equal(program.run(chosen(order)), alone[order])


def chosen(ids):
    """A batch of these tokens."""
    return replace(tokens(len(ids)), token_ids=np.array(ids, np.int32))


@pytest.mark.thorough
@pytest.mark.parametrize("form", FORMATS)
def test_threads_do_not_change_a_bit(form, instruction_set):
    """Three matrices in one stage, large enough to be cut into many chunks."""
    columns = 2 * max(256, entry("octavo.quant", form).BLOCK)
    x, sizes = noise(19, columns), (200, 8, 67)
    weights = [matrix(form, rows, columns, seed=rows) for rows in sizes]

    def forward(ops, load):
        read = ops.embed(load(floats(x)))
        a, b, c = (ops.linear(read, load(weight)) for weight in weights)
        return joined(ops, load, (a, b, c), sizes)

    one, *more = (compute(forward, tokens(19), threads=threads) for threads in (1, 2, 3))
    for other in more:
        np.testing.assert_array_equal(other, one)


def joined(ops, load, values, sizes):
    """The values side by side: each is spread to its columns by a matrix of zeros and ones, and so
    changed by nothing but the sign of a zero."""
    total, first, out = sum(sizes), 0, None
    for value, size in zip(values, sizes, strict=True):
        spread = np.zeros((-(-total // 8) * 8, size), np.float32)
        spread[first : first + size] = np.eye(size)
        wide = ops.linear(value, load(floats(spread)))
        out, first = wide if out is None else ops.add(out, wide), first + size
    return out
