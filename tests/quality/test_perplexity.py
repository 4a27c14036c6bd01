"""What the fast kernels cost a model in quality: activations rounded to eight bits, keys and values
in half precision."""

from pathlib import Path

import pytest

from octavo.bench.perplexity import measure

pytestmark = pytest.mark.models
PROSE = Path(__file__).parents[1] / "data" / "prose.txt"


def test_perplexity_is_that_of_the_weights_in_floating_point(fast, exact):
    text = PROSE.read_text()
    ours, meant = measure(fast, text), measure(exact, text)
    assert ours.tokens == meant.tokens >= 4000
    assert ours.perplexity == pytest.approx(meant.perplexity, rel=0.005)
