"""Oracle: transformers computes the logits of the tiny checkpoints under golden/. This remakes
the golden files:

    pytest -m oracle tests/models/test_transformers.py --bless
"""

import numpy as np
import pytest

from octavo.kernels import reference
from octavo.loader.checkpoint import Weights, open_checkpoint
from octavo.registry import entry

CLOSE = {"rtol": 0, "atol": 1e-4}  # derived in test_golden.py


@pytest.mark.oracle
def test_transformers_gives_the_golden_logits(case, request):
    logits = transformers_logits(case)
    if request.config.getoption("--bless"):
        np.save(case.golden, logits)
    np.testing.assert_allclose(np.load(case.golden), logits, **CLOSE)
    np.testing.assert_allclose(case.logits(), logits, **CLOSE)


@pytest.mark.oracle
@pytest.mark.models
@pytest.mark.parametrize("path", ["smollm2_path", "gemma3_path"])
def test_transformers_reads_the_same_model_out_of_a_real_file(path, request, run):
    """Names, rotary pairs, norms and metadata, as the loader translates them."""
    path = request.getfixturevalue(path)
    checkpoint = open_checkpoint(path)
    metadata, weights = checkpoint.metadata, Weights(checkpoint.tensors, reference.weight)
    module = entry("octavo.models", metadata.text("model_type"))
    config = module.Config.read(metadata)
    model = module.Model(config, weights)
    metadata.refuse_unread()
    weights.refuse_unread()

    token_ids = np.random.RandomState(0).randint(0, config.vocab_size, 600)  # past Gemma's window
    logits = run(model, num_pages=40).step((token_ids, 0, range(38)), last=8)
    # Up to six times the size and 15 times the depth of the tiny checkpoints.
    np.testing.assert_allclose(transformers_opens(path, token_ids), logits, rtol=0, atol=2e-3)


def transformers_opens(path, token_ids):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        return model(torch.from_numpy(token_ids)[None], logits_to_keep=8).logits[0].numpy()


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
