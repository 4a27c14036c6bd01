"""Every op of the cpu home against the reference's formulas in double precision, and what the home
makes of them: buffers used again, matrices joined to stages, outputs in blocks.

Roundings are counted in ulps of 2^-24; sums of positive terms keep their relative error. e^x is
within 4 ulps: the series within 3 (its reduced argument is below 0.35), the power of two exact.
"""

import numpy as np
import pytest
from checkpoints import ALL_FORMATS, random_matrix, write_tiny
from examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from programs import (
    ULP,
    Compiled,
    Running,
    batch,
    compute,
    floats,
    meaning,
    model_of,
    noise,
    packed,
    pages_for,
    tiny_model,
    tokens,
)

from octavo.errors import BadCheckpoint
from octavo.kernels import cpu, reference
from octavo.kernels.ops import KVLayer, Limits
from octavo.types import KVGroup


def both(forward, step):
    return compute(forward, step), meaning(forward, step)


def on(function, *tables):
    """function(ops, x, ...) with row i of each table as token i."""
    return lambda ops, load: function(ops, *[ops.embed(load(floats(t))) for t in tables])


def close(got, exact, ulps, least=0.0):
    assert (np.abs(got - exact) <= np.abs(ulps) * ULP * np.abs(exact) + least).all()


def test_embed_and_take_choose_rows(instruction_set):
    table, step = noise(9, 20), batch((7, 0, 7, 3), range(4), (0, 4), outputs=(0, 3))
    got = compute(lambda ops, load: ops.embed(load(floats(table))), step)
    np.testing.assert_array_equal(got, table[[7, 3]])


def test_add_and_scale_round_once(instruction_set):
    a, b = noise(5, 24), noise(5, 24, seed=1)
    np.testing.assert_array_equal(
        compute(on(lambda ops, x, y: ops.add(x, y), a, b), tokens(5)), a + b
    )
    scaled = compute(on(lambda ops, x: ops.scale(x, 0.1), a), tokens(5))
    np.testing.assert_array_equal(scaled, a * np.float32(0.1))


@pytest.mark.parametrize(("heads", "size"), [(1, 8), (3, 16), (2, 576)])
def test_rms_norm(heads, size, instruction_set):
    x, weight = noise(5, heads * size), noise(size, seed=1)
    x[1] *= 1e-3
    x[2] = 0

    def forward(ops, load):
        return ops.rms_norm(ops.embed(load(floats(x))), load(floats(weight)), 1e-5)

    got, exact = both(forward, tokens(5))
    # size / 8 squares a lane, each a product and a sum, then 3 sums; the root halves their error.
    # The mean, eps, the root, its inverse and two products are one rounding each.
    close(got, exact, (2 * size / 8 + 3) / 2 + 6)


@pytest.mark.parametrize(("heads", "half"), [(1, 8), (3, 32), (2, 128)])
def test_rope(heads, half, instruction_set):
    places, x = np.array([0, 1, 17, 4095, 100_000]), noise(5, 2 * half * heads)
    inv_freq = (1e4 ** -(np.arange(half) / half)).astype(np.float32)
    step = batch(range(5), places, range(6))  # each token its own sequence
    got, exact = both(on(lambda ops, v: ops.rope(v, inv_freq), x), step)
    # The angle is one float32 product in both. Its cosine and sine are within 2 ulps of 1 in each,
    # then come two products and their sum.
    pairs = np.abs(x.reshape(5, heads, 2, half)).sum(axis=2, keepdims=True)
    bound = 6 * ULP * np.broadcast_to(pairs, (5, heads, 2, half)).reshape(x.shape)
    assert (np.abs(got - exact) <= bound).all()


GATES = np.concatenate([np.linspace(-12, 12, 401), [-1e4, -300, -100, -88, -87, 87, 88, 100, 1e4]])
GATES = np.resize(GATES, (1, 416)).astype(np.float32)


def test_silu_mul(instruction_set):
    up = noise(1, 416)
    got, exact = both(on(lambda ops, g, u: ops.silu_mul(g, u), GATES, up), tokens(1))
    # e^x, its sum with 1, the quotient, the product. Below -87, e^-x is held at e^88 = 1.7e38.
    close(got, exact, 4 + 3, least=1e4 / 1.6e38 * np.abs(up).max())


def test_gelu_mul(instruction_set):
    up = noise(1, 416)
    got, exact = both(on(lambda ops, g, u: ops.gelu_mul(g, u), GATES, up), tokens(1))
    inner = np.sqrt(2 / np.pi) * (np.abs(GATES) + 0.044715 * np.abs(GATES).astype(float) ** 3)
    # The argument -2y has 6 roundings, each worth 2y ulps of e^-2y, which is held where 2y > 88;
    # tanh, in double precision, is within 1e-16 of 1.
    ulps = 6 * np.minimum(2 * inner, 88) + 4 + 3
    close(got, exact, ulps, least=1e4 * (1 / 1.6e38 + 1e-15) * np.abs(up).max())


def test_linear_with_matrices_of_codes_and_floats_of_one_input(instruction_set):
    """They become two stages, the input is quantized once, the answers keep their places."""
    x = noise(5, 64)
    plain, codes = noise(16, 64, seed=1), noise(16, 64, seed=2)
    rounded = np.round(codes * 4).clip(-8, 7)  # whole numbers, so that codes hold them exactly

    def forward(ops, load):
        read = ops.embed(load(floats(x)))
        a, b = ops.linear(read, load(floats(plain))), ops.linear(read, load(q4_0(rounded)))
        return ops.add(a, b)

    got = compute(forward, tokens(5))
    exact = x.astype(float) @ plain.T.astype(float) + x.astype(float) @ rounded.T
    # Activations are rounded to 1/127 of their largest, by half of it at most.
    assert np.abs(got - exact).max() <= np.abs(x).max() / 254 * np.abs(rounded).sum(axis=1).max()
    assert np.abs(got - exact).max() > 0


def q4_0(whole):
    """A matrix of whole numbers in [-8, 8)."""
    blocks = (whole.reshape(len(whole), -1, 32) + 8).astype(np.uint8)
    data = np.zeros((*blocks.shape[:2], 18), np.uint8)
    data[..., :2] = np.array([1], np.float16).view(np.uint8)
    data[..., 2:] = blocks[..., :16] | blocks[..., 16:] << 4
    rows = data.reshape(len(whole), -1)
    return cpu.RawTensor("w", "q4_0", whole.shape, rows)


# ---- programs


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(["add", "scale", "rope", "linear"]), *[st.integers(0, 99)] * 2),
        max_size=14,
    ),
    taken_after=st.integers(0, 14),
    threads=st.integers(1, 2),
)
def test_no_value_is_overwritten_while_it_is_wanted(instruction_set, plan, taken_after, threads):
    """Random programs of ops that both homes compute without any difference: sums, powers of two,
    rotations by nothing (position 0), permutations. What `take` leaves behind is not read again."""
    x = noise(3, 16)

    def forward(ops):
        values = [ops.embed(home.weight(floats(x)))]
        for i, (op, a, b) in enumerate([*plan, ("add", 0, 0)]):
            if i == min(taken_after, len(plan)):
                values, op = [ops.take(values[a % len(values)])], "add"
            op = "scale" if op == "rope" and i > taken_after else op  # positions are the body's
            turn = home.weight(floats(TURN))
            values.append(chosen(ops, op, values[a % len(values)], values[b % len(values)], turn))
        return ops.add(values[-1], values[0])

    step, answers = batch(range(3), [0] * 3, range(4), outputs=(0, 2)), []
    for home in (cpu, reference):
        model = model_of(None, None)
        model.forward = forward
        program = home.compile(model, (), Limits(3, 3, 2, threads))
        program.run(step)
        answers.append(program.logits(0, 2).values.copy())
    np.testing.assert_array_equal(*answers)


TURN = np.eye(16)[np.random.default_rng(0).permutation(16)]


def chosen(ops, op, value, other, turn):
    if op == "add":
        return ops.add(value, other)
    if op == "scale":
        return ops.scale(value, 0.5)
    if op == "rope":
        return ops.rope(value, np.ones(8, np.float32))
    return ops.linear(value, turn)


def test_logits_come_in_blocks_of_rows_in_any_order(instruction_set):
    x, weight = noise(9, 32), noise(24, 32, seed=1)
    model = model_of(None, None)

    def forward(ops):
        taken = ops.take(ops.embed(cpu.weight(floats(x))))
        normed = ops.rms_norm(taken, np.ones(32, np.float32), 0)
        return ops.linear(ops.add(normed, taken), cpu.weight(floats(weight)))

    model.forward = forward
    many, few = (cpu.compile(model, (), Limits(9, 1, rows, 2)) for rows in (9, 2))
    for program in (many, few):
        program.run(tokens(9, outputs=(1, 2, 5, 7, 8)))
    whole = many.logits(0, 5).values.copy()
    for first, last in ((4, 5), (0, 2), (2, 4), (0, 1), (3, 3)):
        np.testing.assert_array_equal(few.logits(first, last).values, whole[first:last])


HEADS = st.sampled_from([1, 8, 37, 63, 64, 65, 520, 1000, 1100])


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(vocabulary=HEADS, rows=st.integers(1, 9), threads=st.integers(1, 3), form=st.integers(0, 2))
def test_logits_come_with_the_maxima_of_their_blocks(
    instruction_set, vocabulary, rows, threads, form
):
    """All logits are below zero, which is what fills up the last rows of a matrix; 1100 rows of 128
    columns are cut among threads."""
    x, weight = np.abs(noise(9, 128)) + 1, -np.abs(noise(vocabulary, 128, seed=1)) - 1
    codes = random_matrix("q8_0", vocabulary, 128, np.random.default_rng(vocabulary))
    codes.reshape(vocabulary, 4, 34)[..., 2:] |= 0x80  # codes are negative, scales positive
    codes.reshape(vocabulary, 4, 34)[..., 1] &= 0x7F
    head = packed("q8_0", codes) if form == 1 else floats(weight)

    def forward(ops, load):
        logits = ops.linear(ops.embed(load(floats(x))), load(head))
        return ops.scale(logits, 0.5) if form == 2 else logits

    model = model_of(None, None)
    model.forward = lambda ops: forward(Taken(ops), cpu.weight)
    program = cpu.compile(model, (), Limits(9, 1, 9, threads))
    program.run(tokens(9, outputs=range(rows)))
    logits = program.logits(0, rows)
    assert (logits.values < 0).all()
    assert logits.values.shape == (rows, vocabulary)
    np.testing.assert_array_equal(logits.maxima, reference.with_maxima(logits.values).maxima)


class Taken:
    """Ops that take the wanted rows as soon as they are embedded, as a head wants them."""

    def __init__(self, ops):
        self._ops = ops

    def embed(self, table):
        return self._ops.take(self._ops.embed(table))

    def __getattr__(self, name):
        return getattr(self._ops, name)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 63, 64, 70])
def test_the_maximum_of_what_is_not_all_numbers_is_none(bad, place, instruction_set):
    weight = noise(71, 16)
    weight[place, 3] = bad
    program = Compiled(lambda ops, load: ops.linear(ops.embed(load(floats(np.ones((1, 16))))),
                                                    load(floats(weight)))).program  # fmt: skip
    program.run(tokens(1))
    logits = program.logits(0, 1)
    np.testing.assert_array_equal(logits.maxima, reference.with_maxima(logits.values).maxima)
    assert np.count_nonzero(np.isfinite(logits.maxima)) == 1


def test_no_tokens_and_no_wanted_rows(instruction_set):
    program = Compiled(on(lambda ops, x: ops.scale(x, 2), noise(4, 16)))
    assert program.run(tokens(0)).shape == (0, 16)
    assert program.run(tokens(4, outputs=())).shape == (0, 16)
    np.testing.assert_array_equal(program.run(tokens(4)), noise(4, 16) * 2)


def test_prompt_tokens_that_want_no_logits_still_fill_their_pages(tmp_path, instruction_set):
    model = tiny_model(write_tiny(tmp_path / "tiny.gguf"), cpu)
    ids, table = np.arange(40) % 300, pages_for(41)
    whole, quiet = Running(cpu, model), Running(cpu, model)
    whole.step((ids, 0, table))
    none = batch(ids, range(40), (0, 40), ([table],), outputs=())
    quiet.program.run(none)
    now = ([7], 40, table)
    np.testing.assert_array_equal(quiet.step(now), whole.step(now))


def test_matrices_that_do_not_fit_are_refused(instruction_set):
    x, weight = noise(1, 16), noise(8, 24)
    with pytest.raises(BadCheckpoint, match="24 columns for 16 inputs"):
        compute(
            lambda ops, load: ops.linear(ops.embed(load(floats(x))), load(floats(weight))),
            tokens(1),
        )
    group = KVGroup(1, 1, 16)
    model = model_of(on(lambda ops, v: ops.attention(v, v, v, KVLayer(0, 0), 1), noise(1, 32)),
                     cpu.weight, (group,))  # fmt: skip
    with pytest.raises(BadCheckpoint, match="1 heads of 16"):
        Running(cpu, model)


# ---- whole models

MIXES = {
    "floats": ["f32", "f16", "bf16"],
    "all": ALL_FORMATS,
    "q4_k_m": ["q4_k", "q6_k", "q5_0", "q8_0", "q4_k"],
}


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("mix", MIXES)
def test_whole_models_against_the_reference(architecture, mix, tmp_path, instruction_set):
    """A quantized activation is off by up to half of 1/127 of the largest of 32, which for normal
    ones is about 2.1 deviations: 2.1 / 127 / sqrt(12) = 0.5 % of their size (RMS), and as much of a
    product's. Six layers of four products in a row, all independent: sqrt(24) 0.5 % = 2.4 %. Twice
    that is allowed. With weights of floats only float32 rounding is left: 1e-7 times a few hundred
    roundings; pages are in half precision in both homes."""
    path = write_tiny(tmp_path / "tiny.gguf", architecture, MIXES[mix], tied=False)
    ids = np.random.default_rng(0).integers(0, 300, 45)
    fast, exact = (
        Running(home, tiny_model(path, home)).step((ids, 0, pages_for(45)))
        for home in (cpu, reference)
    )
    error = np.sqrt(np.mean((fast - exact) ** 2)) / exact.std()
    assert error < (1e-4 if mix == "floats" else 0.048), error
