"""What config.json leaves out, and what it may not ask for."""

import pytest

from octavo.errors import BadCheckpoint
from octavo.loader.checkpoint import Metadata
from octavo.registry import entry

LLAMA = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
}
GEMMA = LLAMA | {"num_key_value_heads": 1, "num_hidden_layers": 13, "sliding_window": 512}


def read(model_type, fields):
    return entry("octavo.models", model_type).Config.read(Metadata(fields))


def test_llama_has_as_many_kv_heads_as_heads_unless_told():
    config = read("llama", LLAMA)
    assert (config.num_kv_heads, config.head_dim, config.window) == (4, 8, None)
    told = read("mistral", LLAMA | {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 7})
    assert (told.num_kv_heads, told.head_dim, told.window) == (2, 16, 7)


def test_every_sixth_layer_of_gemma3_sees_everything():
    config = read("gemma3", GEMMA)
    assert [i for i, window in enumerate(config.windows()) if window is None] == [5, 11]
    assert set(config.windows()) == {512, None}
    assert (config.rope.theta, config.local_rope.theta) == (10_000, 10_000)


@pytest.mark.parametrize(
    ("more", "scalar"),
    [
        ({}, 256),
        ({"head_dim": 128}, 128),
        ({"head_dim": 128, "query_pre_attn_scalar": 168}, 168),
        ({"hidden_size": 5376, "num_attention_heads": 32, "num_hidden_layers": 62}, 168),  # 27B
    ],
)
def test_gemma3_divides_scores_by_what_the_checkpoint_says(more, scalar):
    assert read("gemma3", GEMMA | more).query_scalar == scalar


@pytest.mark.parametrize(
    ("model_type", "field", "value"),
    [
        ("llama", "hidden_act", "gelu"),
        ("llama", "partial_rotary_factor", 0.5),
        ("gemma3", "hidden_activation", "relu"),
        ("gemma3", "attention_bias", True),
        ("gemma3", "attn_logit_softcapping", 50.0),
        ("gemma3", "final_logit_softcapping", 30.0),
        ("gemma3", "use_bidirectional_attention", True),
    ],
)
def test_what_is_not_implemented_is_refused(model_type, field, value):
    with pytest.raises(BadCheckpoint, match=f"{field} is {value!r}, only"):
        read(model_type, GEMMA | {field: value})
