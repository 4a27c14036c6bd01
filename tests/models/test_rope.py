"""The frequencies, and what a checkpoint may say of them."""

from decimal import Decimal

import numpy as np
import pytest

from octavo.errors import BadCheckpoint
from octavo.loader.checkpoint import Metadata
from octavo.models._rope import Llama3, Rope

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(**fields):
    return Rope.read(Metadata(fields))


def test_frequencies_fall_from_one_towards_one_over_theta():
    inv_freq = Rope(theta=10_000).inv_freq(8)
    assert inv_freq.dtype == np.float32
    np.testing.assert_allclose(inv_freq, [1, 0.1, 0.01, 0.001], rtol=1e-6)


@pytest.mark.parametrize("theta", [1e4, 1e5, 5e5, 1e6])
def test_powers_are_rounded_right_on_every_processor(theta):
    exponents = np.arange(0, 256, 2, dtype=np.float32) / np.float32(256)
    powers = [np.float32(Decimal(theta) ** Decimal(float(one))) for one in exponents]
    np.testing.assert_array_equal(Rope(theta).inv_freq(256), 1 / np.array(powers))


def test_what_config_json_says_is_read():
    assert read() == Rope(theta=10_000)
    assert read(rope_theta=5e5, rope_scaling=None) == Rope(theta=5e5)
    assert read(rope_scaling={"type": "linear", "factor": 4.0}) == Rope(10_000, slowdown=4)
    assert read(rope_scaling=LLAMA3).llama3 == Llama3(8, 1, 4, 8192)


def test_llama3_keeps_short_waves_and_slows_long_ones():
    plain, scaled = (read(rope_theta=5e5, **more).inv_freq(128) for more in ({}, SCALED))
    waves = 8192 * plain / (2 * np.pi)  # periods within the first context
    np.testing.assert_array_equal(scaled[waves > 4], plain[waves > 4])
    np.testing.assert_array_equal(scaled[waves < 1], plain[waves < 1] / np.float32(8))
    between = (waves < 4) & (waves > 1)
    assert between.any()
    assert ((scaled > plain / 8) & (scaled < plain))[between].all()


SCALED = {"rope_scaling": LLAMA3}


def test_ggufs_factors_say_the_same():
    plain, scaled = (read(**more).inv_freq(64) for more in ({}, SCALED))
    factors = tuple((plain / scaled).tolist())
    np.testing.assert_allclose(read(rope_freqs=factors).inv_freq(64), scaled, rtol=1e-6)


def test_factors_for_another_head_dim_are_refused():
    with pytest.raises(BadCheckpoint, match="rope_freqs has 3 factors, head_dim 8 has 4 pairs"):
        read(rope_freqs=(1.0, 2.0, 3.0)).inv_freq(8)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn', only 'linear' and"),
        ({"rope_scaling": {"rope_type": "linear"}}, "does not say factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0, "beta": 1.0}}, "beta is 1.0"),
        ({"rope_scaling": LLAMA3 | {"attention_factor": 0.9}}, "attention_factor is 0.9"),
        ({"rope_parameters": {"rope_theta": 5e5}}, "rope_parameters is"),
    ],
)
def test_what_is_not_implemented_is_refused(fields, complaint):
    with pytest.raises(BadCheckpoint, match=complaint):
        read(**fields)
