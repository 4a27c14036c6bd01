"""Oracle: transformers reads the same GGUF files, into its own names, order and config."""

import numpy as np
import pytest
from checkpoints import write_tiny

from octavo.kernels import reference
from octavo.loader.checkpoint import open_checkpoint

pytestmark = pytest.mark.oracle

NUMBERS = (
    "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "head_dim vocab_size rms_norm_eps max_position_embeddings"
)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_transformers_reads_the_same_tensors_and_numbers(architecture, tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf", architecture, "q8_0", tied=False)
    same_as_transformers(path)


@pytest.mark.models
def test_transformers_reads_the_same_smollm2(smollm2_path):
    same_as_transformers(smollm2_path)


def same_as_transformers(path):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    ours = open_checkpoint(path)
    for name in NUMBERS.split():
        assert ours.metadata.number(name) == pytest.approx(getattr(theirs.config, name))
    parameters = dict(theirs.named_parameters())
    assert parameters.keys() == ours.tensors.keys()
    for name, raw in ours.tensors.items():
        # Gemma's checkpoints keep w where the norm multiplies by 1 + w; GGUF, and we, keep 1 + w.
        one = "norm" in name and ours.metadata.text("model_type") == "gemma3"
        expected = parameters[name].detach().float().numpy()
        np.testing.assert_array_equal(reference.weight(raw) - np.float32(one), expected, name)
