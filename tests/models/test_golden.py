"""The reference home gives the logits that transformers gave; test_transformers.py made them."""

import numpy as np

# Logits are below 10 and float32 keeps 6e-8 of them: 1e-4 leaves room for some hundred roundings
# one after the other, in another order.
CLOSE = {"rtol": 0, "atol": 1e-4}


def test_the_reference_gives_the_logits_of_transformers(case):
    np.testing.assert_allclose(case.logits(), np.load(case.golden), **CLOSE)
