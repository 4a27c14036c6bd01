"""The native module's door: what does not fit is a ValueError, before anything is read or written.

Python's side (cpu.py) keeps shapes right; these checks keep its mistakes from being crashes.
"""

import numpy as np
import pytest
from programs import NO_PAGE, Running, floats, model_of, noise

from octavo.kernels import _cpu, cpu
from octavo.kernels.ops import KVLayer
from octavo.types import KVGroup

SET = cpu.INSTRUCTION_SET


@pytest.fixture(scope="module")
def native():
    """A program over 9 token ids with one group of 4 pages, at most 8 tokens a step."""

    def forward(ops, load):
        x = ops.embed(load(floats(noise(9, 16))))
        return ops.attention(x, x, x, KVLayer(0, 0), 1)

    running = Running(
        cpu, model_of(forward, cpu.weight, (KVGroup(1, 1, 16, 20),)), pages=4, tokens=8
    )
    return running.program._native


def step(token_ids=(1, 2, 3), positions=(0, 1, 2), starts=(0, 3), tables=([[0, 1]],), outputs=(2,)):
    lists = [np.array(values, np.int32) for values in (token_ids, positions, starts, outputs)]
    arrays = [np.array(table, np.int32) for table in tables]
    return (*lists[:3], arrays, lists[3])


FAR = list(range(1000, 1003))
BAD_STEPS = {
    "a token id past the vocabulary": {"token_ids": (1, 9, 3)},
    "a negative token id": {"token_ids": (1, -1, 3)},
    "more tokens than the limit": {
        "token_ids": [1] * 9,
        "positions": range(9),
        "starts": (0, 9),
    },
    "too few positions": {"positions": (0, 1)},
    "positions that stand still": {"positions": (0, 0, 1)},
    "positions that skip": {"positions": (0, 1, 3)},
    "negative positions": {"positions": (-1, 0, 1)},
    "starts of nothing": {"starts": ()},
    "starts that begin late": {"starts": (1, 3)},
    "starts that end early": {"starts": (0, 2)},
    "starts that go back": {"starts": (0, 2, 1, 3), "tables": ([[0], [1], [2]],)},
    "starts past the end": {"starts": (0, 1000, 3), "tables": ([[0], [1]],)},
    "a sequence without tokens": {"starts": (0, 0, 3), "tables": ([[0], [1]],)},
    "a page past the pool": {"tables": ([[4, 0]],)},
    "a negative page": {"tables": ([[-1, 0]],)},
    "a table too short": {"positions": (31, 32, 33)},
    "a table too short by far": {"positions": FAR},
    "no table": {"tables": ()},
    "a table for nobody": {"tables": ([[0], [1]],)},
    "two groups' tables": {"tables": ([[0]], [[0]])},
    "an output past the tokens": {"outputs": (3,)},
    "a negative output": {"outputs": (-1,)},
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_a_step_that_does_not_hold_together_is_refused(native, case):
    native.run(*step())
    before = native.logits(0, 1)[0].copy()
    with pytest.raises(ValueError, match=r".+"):
        native.run(*step(**BAD_STEPS[case]))
    np.testing.assert_array_equal(native.logits(0, 1)[0], before)


def test_pages_before_the_window_and_after_the_end_are_not_looked_at(native):
    native.run(*step(positions=(37, 38, 39), tables=([[NO_PAGE, 0, 1, NO_PAGE]],)))


@pytest.mark.parametrize("rows", [(-1, 1), (1, 0), (0, 2), (2**31 - 1, 2**31 - 1)])
def test_logits_that_are_not_there_are_refused(native, rows):
    native.run(*step())
    with pytest.raises(ValueError, match="rows"):
        native.logits(*rows)


def test_arrays_of_another_shape_are_refused(native):
    with pytest.raises(TypeError):
        native.run(np.zeros((1, 3), np.int32), *step()[1:])


SHAPES = {
    "bits that no kernel reads": (8, 32, 7, 32, False, False),
    "a group that no kernel reads": (8, 256, 4, 16, True, True),
    "part of a block": (8, 48, 4, 32, False, False),
    "part of a super-block": (8, 128, 4, 32, True, True),
    "rows below zero": (-1, 32, 4, 32, False, False),
    "columns below zero": (8, -32, 4, 32, False, False),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_weight_that_no_kernel_reads_is_refused(case):
    with pytest.raises(ValueError, match=r".+"):
        _cpu.Weight.codes(_cpu.Arena(), *SHAPES[case])


def test_floats_of_an_unknown_format_are_refused():
    with pytest.raises(ValueError, match="f32, f16 or bf16"):
        _cpu.Weight.floats(_cpu.Arena(), 8, 8, "f64")


ROWS = {
    "a first row that is in the middle of eight": (4, 8, 32),
    "a first row below zero": (-8, 8, 32),
    "rows past the end": (16, 8, 32),
    "part of eight rows": (0, 4, 32),
    "other columns": (0, 8, 64),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_the_weight_does_not_have_are_refused(case):
    first, rows, columns = ROWS[case]
    codes = _cpu.Weight.codes(_cpu.Arena(), 20, 32, 4, 32, False, False)
    with pytest.raises(ValueError, match=r".+"):
        codes.put_codes(
            SET,
            first,
            [(4, np.zeros((rows, columns // 32, 1, 16), np.uint8))],
            np.zeros((rows, columns // 32), np.uint16),
            None,
            None,
            None,
        )
    with pytest.raises(ValueError, match=r".+"):
        _cpu.Weight.floats(_cpu.Arena(), 20, 32, "f32").put_floats(
            SET, first, np.zeros((rows, columns * 4), np.uint8)
        )


@pytest.mark.parametrize("missing", ["scale", "min", "sub_scale", "sub_min"])
def test_scales_of_another_shape_are_refused(missing):
    codes = _cpu.Weight.codes(_cpu.Arena(), 8, 256, 4, 32, True, True)
    given = {
        "planes": [(4, np.zeros((8, 1, 4, 32), np.uint8))],
        "scale": np.zeros((8, 1), np.uint16),
        "min": np.zeros((8, 1), np.uint16),
        "sub_scale": np.zeros((8, 8), np.int8),
        "sub_min": np.zeros((8, 8), np.int8),
    }
    codes.put_codes(SET, 0, **given)
    for wrong in (given[missing][:, :0], given[missing][:4]):
        with pytest.raises(ValueError, match=missing):
            codes.put_codes(SET, 0, **given | {missing: wrong})
    if missing != "scale":
        with pytest.raises(ValueError, match=missing):
            codes.put_codes(SET, 0, **given | {missing: None})


PLANES = {
    "none": [],
    "one too many": [(4, (8, 2, 1, 16)), (1, (8, 2, 4, 1))],
    "other bits": [(2, (8, 2, 1, 8))],
    "fewer blocks": [(4, (8, 1, 1, 16))],
    "blocks of other columns": [(4, (8, 1, 2, 16))],
    "runs of other bytes": [(4, (8, 2, 2, 8))],
}


@pytest.mark.parametrize("case", PLANES)
def test_planes_of_another_shape_are_refused(case):
    codes = _cpu.Weight.codes(_cpu.Arena(), 8, 64, 4, 32, False, False)
    planes = [(bits, np.zeros(shape, np.uint8)) for bits, shape in PLANES[case]]
    with pytest.raises(ValueError, match="planes"):
        codes.put_codes(SET, 0, planes, np.zeros((8, 2), np.uint16), None, None, None)


def test_planes_of_unlike_rows_are_refused():
    codes = _cpu.Weight.codes(_cpu.Arena(), 16, 32, 5, 32, False, False)
    planes = [(4, np.zeros((16, 1, 1, 16), np.uint8)), (1, np.zeros((8, 1, 4, 1), np.uint8))]
    with pytest.raises(ValueError, match="planes"):
        codes.put_codes(SET, 0, planes, np.zeros((16, 1), np.uint16), None, None, None)


def test_runs_with_gaps_are_refused():
    codes = _cpu.Weight.codes(_cpu.Arena(), 8, 64, 4, 32, False, False)
    gaps = np.zeros((8, 2, 1, 32), np.uint8)[..., ::2]
    with pytest.raises(ValueError, match="planes"):
        codes.put_codes(SET, 0, [(4, gaps)], np.zeros((8, 2), np.uint16), None, None, None)


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="avx1024"):
        _cpu.Program("avx1024", 1, 8, 8, [])
    assert _cpu.instruction_sets()[-1] == "generic"


@pytest.mark.parametrize("limits", [(0, 8, 8), (1, 0, 8), (1, 8, 0)])
def test_limits_of_nothing_are_refused(limits):
    with pytest.raises(ValueError, match="at least 1"):
        _cpu.Program("generic", *limits, [])


def test_a_group_of_pages_that_no_layer_reads_is_no_trouble():
    def forward(ops, load):
        return ops.embed(load(floats(noise(3, 16))))

    running = Running(cpu, model_of(forward, cpu.weight, (KVGroup(1, 1, 16),)))
    np.testing.assert_array_equal(running.step((range(3), 0, [5])), noise(3, 16))
