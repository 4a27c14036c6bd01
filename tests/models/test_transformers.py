"""Oracle: transformers computes the logits of the tiny checkpoints under golden/. This remakes
the golden files:

    pytest -m oracle tests/models/test_transformers.py --bless
"""

import numpy as np
import pytest

CLOSE = {"rtol": 0, "atol": 1e-4}  # derived in test_golden.py


@pytest.mark.oracle
def test_transformers_gives_the_golden_logits(case, request):
    logits = transformers_logits(case)
    if request.config.getoption("--bless"):
        np.save(case.golden, logits)
    np.testing.assert_allclose(np.load(case.golden), logits, **CLOSE)
    np.testing.assert_allclose(case.logits(), logits, **CLOSE)


def transformers_logits(case):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**case.fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tensors = case.tensors()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_one_less = "norm" in name and config.model_type == "gemma3_text"
            parameter.copy_(torch.from_numpy(tensors[name] - is_one_less))
        return model(torch.from_numpy(case.token_ids)[None]).logits[0].numpy()
