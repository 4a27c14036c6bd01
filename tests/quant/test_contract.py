"""What every weight format promises. A new file in octavo/quant/ is tested here by existing."""

import gguf
import numpy as np
import pytest

from octavo.registry import entry, names


@pytest.fixture(params=names("octavo.quant"))
def quant(request):
    return entry("octavo.quant", request.param)


@pytest.fixture
def kind(quant):
    return gguf.GGMLQuantizationType[quant.__name__.rpartition(".")[2].upper()]


def test_a_block_has_the_size_that_gguf_says(quant, kind):
    assert gguf.GGML_QUANT_SIZES[kind] == (quant.BLOCK, quant.BYTES)


def test_the_bytes_mean_what_gguf_says(quant, kind):
    assert_same_bits(quant.dequantize(quant.tiny()), gguf.dequantize(quant.tiny(), kind))


def test_random_blocks_mean_what_gguf_says(quant, kind):
    packed = random_blocks(quant)
    assert_same_bits(quant.dequantize(packed), gguf.dequantize(packed, kind))


def test_a_mapped_read_only_file_will_do(quant):
    packed = quant.tiny()
    packed.flags.writeable = False
    assert_same_bits(quant.dequantize(packed), quant.dequantize(quant.tiny()))


def test_floats_come_as_they_are_and_the_rest_as_codes(quant):
    assert hasattr(quant, "split") == (quant.BLOCK > 1)


def test_codes_and_scales_say_what_dequantize_says(quant):
    """The formula of _codes.py, read aloud in float64. A product has at most 11 + 8 + 6 bits, so
    it is exact there, and so is the sum but for the last rounding, which float32 makes too."""
    if not hasattr(quant, "split"):
        return
    packed = quant.tiny()
    c = quant.split(packed)
    k = c.codes.shape[1]
    scale = over_columns(c.scale, k)
    if c.sub_scale is not None:
        scale = scale * over_columns(c.sub_scale, k)
    weights = scale * (c.codes.astype(np.float64) - c.offset)
    if c.sub_min is not None:
        weights -= over_columns(c.min, k) * over_columns(c.sub_min, k)
    elif c.min is not None:
        weights += over_columns(c.min, k)
    np.testing.assert_array_equal(weights.astype(np.float32), quant.dequantize(packed))


def test_codes_have_the_types_and_shapes_that_packing_expects(quant):
    if not hasattr(quant, "split"):
        return
    c = quant.split(random_blocks(quant))
    rows, k = c.codes.shape
    span = 32 if c.sub_scale is None else 256
    assert c.bits in (2, 3, 4, 5, 6, 8)
    assert c.codes.flags.c_contiguous
    assert c.codes.dtype == (np.int8 if c.bits == 8 else np.uint8)
    assert c.bits == 8 or c.codes.max() == 2**c.bits - 1
    assert c.scale.shape == (rows, k // span)
    assert c.scale.dtype == np.float16
    assert c.min is None or (c.min.shape, c.min.dtype) == (c.scale.shape, np.float16)
    for factors, dtype in ((c.sub_scale, np.int8), (c.sub_min, np.uint8)):
        assert factors is None or (factors.shape, factors.dtype) == ((rows, k // c.group), dtype)
        assert factors is None or factors.flags.c_contiguous


def test_codes_and_scales_are_views_as_packing_reads_them(quant):
    """A copy would cost more than packing does."""
    if not hasattr(quant, "split"):
        return
    packed = random_blocks(quant)
    c = quant.split(packed)
    planes = {3: [2, 1], 5: [4, 1], 6: [4, 2]}.get(c.bits, [c.bits])
    assert [plane.bits for plane in c.planes] == planes
    for plane in c.planes:
        assert np.shares_memory(plane.bytes, packed)
        assert plane.bytes.shape[-1] % 16 == 0 or plane.bytes.shape[-2:] == (4, 1)
    assert np.shares_memory(c.scale, packed)
    assert c.min is None or np.shares_memory(c.min, packed)


def over_columns(groups, k):
    return np.repeat(groups.astype(np.float64), k // groups.shape[1], axis=1)


def random_blocks(quant):
    """Sixty rows of random bytes; their half-precision numbers may be as large, small or negative
    as can be, but finite: NaN has no one bit pattern."""
    random = np.random.default_rng(7)
    columns = max(64, 4 * quant.BLOCK)
    packed = random.integers(0, 256, (60, columns // quant.BLOCK * quant.BYTES), dtype=np.uint8)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(quant.dequantize(packed)).all(axis=1)
    assert finite.sum() > 4
    return packed[finite]


def assert_same_bits(ours, theirs):
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))
