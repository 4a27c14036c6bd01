"""What a model asks of a checkpoint, and GGUF's answers in Hugging Face's words."""

import struct

import numpy as np
import pytest
from checkpoints import HEAD_DIM, HEADS, HIDDEN, write_tiny

from octavo.errors import BadCheckpoint
from octavo.kernels import reference
from octavo.loader.checkpoint import Metadata, Weights, open_checkpoint
from octavo.loader.gguf import read_gguf
from octavo.registry import entry
from octavo.types import RawTensor


@pytest.fixture
def opened(tmp_path):
    """Writes a tiny checkpoint with these options, and opens it."""

    def write_and_open(*args, **options):
        return open_checkpoint(write_tiny(tmp_path / "tiny.gguf", *args, **options))

    return write_and_open


@pytest.fixture
def refused(opened):
    """The sentence with which a tiny checkpoint of these options is refused."""

    def words(*args, **options):
        with pytest.raises(BadCheckpoint) as error:
            read_like_an_engine(opened(*args, **options))
        return str(error.value)

    return words


def read_like_an_engine(checkpoint):
    model = entry("octavo.models", checkpoint.metadata.text("model_type"))
    config = model.Config.read(checkpoint.metadata)
    checkpoint.metadata.refuse_unread()
    weights = Weights(checkpoint.tensors, reference.weight)
    model.Model(config, weights)
    weights.refuse_unread()
    return config


@pytest.mark.parametrize("options", [{}, {"tied": False, "biases": True}, {"window": 40}])
def test_a_llama_is_read_to_the_last_tensor(opened, options):
    config = read_like_an_engine(opened("llama", **options))
    assert (config.num_layers, config.head_dim, config.mlp_size) == (2, HEAD_DIM, 512)
    assert config.window == options.get("window")


def test_a_gemma_is_read_to_the_last_tensor(opened):
    config = read_like_an_engine(opened("gemma3"))
    assert config.windows() == [24] * 5 + [None]
    assert (config.rope.theta, config.local_rope.theta) == (1_000_000, 10_000)


def test_head_dim_and_kv_heads_follow_from_the_rest_where_a_file_leaves_them_out(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf")
    content = path.read_bytes()
    for key in (b"llama.attention.key_length", b"llama.attention.value_length"):
        content = content.replace(key, key[:-1] + b"X")  # a key that nobody knows
    path.write_bytes(content)
    assert open_checkpoint(path).metadata.integer("head_dim") == HIDDEN // HEADS


def test_who_made_it_and_how_it_may_be_used(opened):
    checkpoint = opened()
    assert (checkpoint.name, checkpoint.license) == ("Tiny llama", "apache-2.0")
    assert "<|im_start|>" in checkpoint.chat_template
    assert checkpoint.metadata.integer("max_position_embeddings") == 2048


def permute(rows, heads):
    """How llama.cpp's converter puts transformers' rows into adjacent rotary pairs."""
    paired = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return paired.swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize(("name", "heads"), [("q", HEADS), ("k", 2)])
def test_llamas_rotary_rows_come_in_transformers_order(tmp_path, name, heads):
    path = write_tiny(tmp_path / "tiny.gguf", formats="q8_0", biases=True)
    ours, stored = open_checkpoint(path).tensors, read_gguf(path).tensors
    for kind in ("weight", "bias"):
        as_stored = reference.weight(stored[f"blk.1.attn_{name}.{kind}"].tensor)
        weight = reference.weight(ours[f"model.layers.1.self_attn.{name}_proj.{kind}"])
        np.testing.assert_array_equal(permute(weight, heads), as_stored)
        assert not np.array_equal(weight, as_stored)


def test_gemmas_rows_stay_as_they_are(opened):
    tensors = opened("gemma3").tensors
    assert all(raw.rows is None for raw in tensors.values())


def test_norms_stand_where_transformers_has_them(tmp_path):
    for architecture, ffn_norm in (
        ("llama", "post_attention_layernorm"),
        ("gemma3", "pre_feedforward_layernorm"),
    ):
        path = write_tiny(tmp_path / f"{architecture}.gguf", architecture)
        ours = open_checkpoint(path).tensors[f"model.layers.1.{ffn_norm}.weight"]
        stored = read_gguf(path).tensors["blk.1.ffn_norm.weight"].tensor
        assert ours.data.tobytes() == stored.data.tobytes()


def test_linear_rope_scaling_is_told_and_none_is_not(opened):
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    section = opened(metadata=linear).metadata.section("rope_scaling")
    assert (section.text("rope_type"), section.number("factor")) == ("linear", 4)
    old = opened(metadata={"llama.rope.scale_linear": 2.0}).metadata.section("rope_scaling")
    assert (old.text("rope_type"), old.number("factor")) == ("linear", 2)
    none = opened(metadata={"llama.rope.scaling.type": "none"})
    assert none.metadata.section("rope_scaling") is None


def test_llama_3s_rotary_factors_are_told_as_numbers(opened, refused):
    factors = np.linspace(1, 8, 32, dtype=np.float32)
    checkpoint = opened(rope_factors=factors)
    assert checkpoint.metadata.numbers("rope_freqs") == tuple(factors.tolist())
    assert read_like_an_engine(checkpoint).rope.slowdowns == tuple(factors.tolist())
    assert "not one f32 a rotary pair" in refused(rope_factors=factors[:31])
    assert "a factor that is not positive" in refused(rope_factors=factors - 1)


SPECIAL = {
    "llama.expert_count": (8, "num_local_experts (llama.expert_count) is 8"),
    "llama.attn_logit_softcapping": (50.0, "attn_logit_softcapping"),
    "llama.final_logit_softcapping": (30.0, "final_logit_softcapping"),
    "llama.rope.dimension_count": (32, "partial_rotary_factor is 0.5"),
    "llama.attention.value_length": (32, "v_head_dim is 32"),
    "llama.attention.scale": (0.5, "attention_multiplier"),
    "llama.embedding_scale": (12.0, "embedding_multiplier"),
    "llama.residual_scale": (0.2, "residual_multiplier"),
    "llama.logit_scale": (0.1, "logits_scaling"),
    "llama.attention.clamp_kqv": (8.0, "clip_qkv"),
    "llama.attention.max_alibi_bias": (8.0, "alibi_bias_max"),
    "llama.rope.scaling.type": ("yarn", "'yarn'"),
    "llama.rope.scaling.factor": (-1.0, None),  # alone it says nothing
}


@pytest.mark.parametrize("key", SPECIAL)
def test_what_an_architecture_does_not_compute_is_refused_by_name(opened, refused, key):
    value, words = SPECIAL[key]
    if words is None:
        read_like_an_engine(opened(metadata={key: value}))
    else:
        assert words in refused(metadata={key: value})


@pytest.mark.parametrize("key", [key for key, (value, _) in SPECIAL.items() if value == 8])
def test_zero_asks_for_nothing(opened, key):
    read_like_an_engine(opened(metadata={key: type(SPECIAL[key][0])(0)}))


WRONG = {
    "llama.embedding_length": (128, "is 304 by 256, not vocab_size by hidden_size"),
    "llama.feed_forward_length": (256, "not intermediate_size by hidden_size"),
    "llama.attention.head_count": (3, "is 3, not a multiple of 2 KV heads"),
    "llama.attention.head_count_kv": (4, "not kv_size by hidden_size"),
    "llama.attention.key_length": (63, "a head is 63 wide, not even"),
    "llama.block_count": (2**20, "llama.block_count is 1048576, there are 20 tensors"),
    "llama.context_length": (0, "llama.context_length is 0, not in [1, 2147483647]"),
    "llama.attention.layer_norm_rms_epsilon": (-1.0, "not above 0"),
    "llama.rope.freq_base": (float("nan"), "is nan, not finite"),
    "llama.vocab_size": (9, None),
    "split.count": (2, "split.count is 2, join the parts"),
    "general.type": ("adapter", "only a 'model' is read"),
    "general.quantization_version": (1, "only 2 is read"),
    "tokenizer.ggml.model": ("bert", "is 'bert', these are read: gpt2, llama"),
    "tokenizer.ggml.tokens": (["a"], "1 tokens"),
    "tokenizer.ggml.token_type": ([1, 2], "2 for 304 tokens"),
    "tokenizer.ggml.bos_token_id": (304, "is 304, there are 304 tokens"),
    "tokenizer.ggml.merges": ([1], "not an array of strings"),
    "tokenizer.ggml.add_bos_token": ("yes", "is 'yes', not true or false"),
    "tokenizer.chat_template": (1, "not text"),
}


@pytest.mark.parametrize("key", WRONG)
def test_fields_that_contradict_the_rest_are_refused_by_name(opened, refused, key):
    value, words = WRONG[key]
    if words is None:
        read_like_an_engine(opened(metadata={key: value}))
    else:
        sentence = refused(metadata={key: value})
        assert words in sentence
        assert "(at byte " in sentence


def test_a_vocabulary_says_what_the_file_says(opened):
    bpe, spm = opened("llama").vocabulary, opened("gemma3").vocabulary
    assert (bpe.kind, bpe.pre, bpe.scores, len(bpe.merges)) == ("bpe", "smollm", None, 39)
    assert (bpe.bos_id, bpe.eos_id, bpe.unk_id, bpe.pad_id) == (1, 2, 0, 2)
    assert bpe.eot_ids == (0, 2)
    assert (spm.kind, spm.pre, spm.merges) == ("spm", "default", None)
    assert (spm.add_bos, spm.add_eos, spm.add_space_prefix) == (True, False, False)
    assert spm.tokens[spm.eot_ids[0]] == "<end_of_turn>"
    assert len(spm.tokens) == len(spm.types) == len(spm.scores)


def test_a_file_of_a_vocabulary_alone_opens_whatever_it_is_for(tmp_path):
    """Such files are made of other models' tokenizers; this one by leaving the tensors away."""
    path = write_tiny(tmp_path / "tiny.gguf")
    content = bytearray(path.read_bytes().replace(b"llama", b"bloom"))
    content[8:16] = bytes(8)  # the number of tensors
    path.write_bytes(content)
    checkpoint = open_checkpoint(path)
    assert not checkpoint.tensors
    assert checkpoint.metadata.text("model_type") == "bloom"
    assert checkpoint.metadata.integer("vocab_size") == len(checkpoint.vocabulary.tokens) == 304


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight", "mlp.up_proj.weight' is missing"),
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_up.wright", "mlp.up_proj.weight' is missing"),
        (b"token_embd.weight", b"token_embx.weight", "embed_tokens.weight' is missing"),
        (b"output_norm.weight", b"output_normeweight", "model.norm.weight' is missing"),
        (b"blk.1.attn_q.bias", b"blk.1.attn_x.bias", "'blk.1.attn_x.bias' would not be used"),
        (b"blk.1.attn_q.bias", b"model.norm.weight", "two tensors are model.norm.weight"),
        (b"blk.0.attn_norm.weight", b"blk.1.attn_norm.weight", "is there twice"),
        (b"blk.1.ffn_down.weight", b"blk.1.ffn_norm.weight", "is there twice"),
    ],
)
def test_tensors_that_are_missing_or_left_over_are_refused_by_name(tmp_path, name, other, words):
    path = write_tiny(tmp_path / "tiny.gguf", biases=True)
    content = path.read_bytes()
    other += b"x" * (len(name) - len(other))
    path.write_bytes(content.replace(name, other))
    with pytest.raises(BadCheckpoint, match=words.replace(".", r"\.")):
        read_like_an_engine(open_checkpoint(path))


def test_an_embedding_without_a_row_for_every_token_is_refused(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf")
    all_rows, too_few = (struct.pack("<2Q", HIDDEN, rows) for rows in (304, 303))
    path.write_bytes(path.read_bytes().replace(all_rows, too_few))
    with pytest.raises(BadCheckpoint, match="has 303 rows for 304 tokens"):
        open_checkpoint(path)


def raw(name, value):
    data = np.array([[value]], np.float32).view(np.uint8)
    return RawTensor(name, "f32", (1,), data)


@pytest.fixture
def weights():
    names = ["norm.weight", "layers.0.q.weight", "layers.0.q.bias"]
    tensors = {name: raw(name, i) for i, name in enumerate(names)}
    return Weights(tensors, load=lambda tensor: tensor.name)


def test_weights_are_found_by_short_names(weights):
    assert weights["norm"] == "norm.weight"
    layer = weights.under("layers.0")
    assert (layer["q"], layer["q.bias"], layer.get("k")) == (
        "layers.0.q.weight",
        "layers.0.q.bias",
        None,
    )
    with pytest.raises(BadCheckpoint, match=r"'layers\.0\.k\.weight' is missing"):
        layer["k"]


def test_weights_that_nobody_asked_for_are_refused(weights):
    weights["norm"], weights.under("layers").under("0")["q"]
    with pytest.raises(BadCheckpoint, match=r"'layers\.0\.q\.bias' would not be used"):
        weights.refuse_unread()
    weights.get("layers.0.q.bias")
    weights.refuse_unread()


FIELDS = {"layers": 2, "eps": 1e-6, "act": "silu", "freqs": (1.0, 2.0), "rope": {"factor": 2.0}}


def test_metadata_are_read_by_type():
    meta = Metadata(FIELDS)
    assert meta.integer("layers") == meta.number("layers") == 2
    assert (meta.number("eps"), meta.text("act"), meta.numbers("freqs")) == (1e-6, "silu", (1, 2))
    assert meta.section("rope").number("factor") == 2
    assert "act" in meta
    assert "width" not in meta


def test_a_missing_field_is_its_default_or_an_error():
    meta = Metadata({"null": None}, spelled={"width": "x.width"})
    assert (meta.integer("width", 3), meta.integer("width", None)) == (3, None)
    assert meta.text("null", "none") == "none"
    assert meta.section("rope") is None
    with pytest.raises(BadCheckpoint, match=r"does not say width \(x\.width\)"):
        meta.integer("width")


@pytest.mark.parametrize(
    ("read", "value"), [("integer", 2.5), ("integer", True), ("number", "2"), ("text", 2)]
)
def test_a_field_of_another_type_is_refused(read, value):
    with pytest.raises(BadCheckpoint, match=f"width is {value!r}, not"):
        getattr(Metadata({"width": value}), read)("width")


def test_require_lets_pass_what_is_implemented_or_not_said():
    meta = Metadata(FIELDS)
    meta.require(act="silu", bias=False)
    with pytest.raises(BadCheckpoint, match="act is 'silu', only 'gelu' is implemented"):
        meta.require(act="gelu")


def test_vital_fields_must_be_asked_for():
    meta = Metadata(FIELDS, vital=["eps", "rope", "experts"])
    meta.number("eps")
    with pytest.raises(BadCheckpoint, match=r"rope is .*, which Octavo does not"):
        meta.refuse_unread()
    meta.section("rope")
    meta.refuse_unread()
