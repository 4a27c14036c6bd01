"""octavo show against files whose numbers are known."""

import json

import pytest
from checkpoints import HEAD_DIM, write_tiny
from gguf import GGUFReader
from typer.testing import CliRunner

from octavo.cli import app


def shown(path, *flags):
    said = CliRunner().invoke(app, ["show", str(path), *flags])
    assert said.exit_code == 0, said.stderr
    return said.stdout


def test_json_says_what_the_file_holds(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf", "llama", ["q4_1", "q6_k"], context=512)
    facts = json.loads(shown(path, "--json"))
    tensors = GGUFReader(path).tensors  # the oracle of every count
    assert facts["parameters"] == sum(int(tensor.n_elements) for tensor in tensors)
    assert facts["weight_bytes"] == sum(int(tensor.n_bytes) for tensor in tensors)
    assert set(facts["quantization"]) == {"q4_1", "q6_k", "f32"}
    assert sum(facts["quantization"].values()) == pytest.approx(1)
    assert facts["kv_bytes_per_token"] == 2 * 2 * 2 * HEAD_DIM * 2  # layers, k|v, heads, dim, bytes
    assert facts["kv_bytes_per_token_windowed"] == 0
    int8 = json.loads(shown(path, "--json", "--kv-dtype", "int8"))
    assert int8["kv_bytes_per_token"] == 2 * 2 * 2 * (HEAD_DIM + 4)  # a byte each, and a scale
    assert (facts["architecture"], facts["context"]) == ("llama", 512)
    assert facts["license"] == "apache-2.0"
    assert facts["has_chat_template"] is True


def test_layers_with_a_window_are_told_apart(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf", "gemma3", "q8_0")
    facts = json.loads(shown(path, "--json"))
    a_layer = 2 * 1 * HEAD_DIM * 2
    assert facts["kv_bytes_per_token"] == 6 * a_layer
    assert facts["kv_bytes_per_token_windowed"] == 5 * a_layer
    assert "1.3 kB only while within the window" in shown(path)


def test_people_get_the_same_in_their_words(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf", "llama", "q4_1")
    lines = dict(line.split(maxsplit=1) for line in shown(path).splitlines())
    assert lines["architecture"] == "llama"
    assert lines["path"] == str(path)
    assert lines["licence"] == "apache-2.0"
    assert lines["quantization"].startswith("q4_1 9")


def test_pages_of_a_kind_that_is_none_are_refused_by_the_flags_name(tmp_path):
    said = CliRunner().invoke(app, ["show", str(tmp_path / "absent.gguf"), "--kv-dtype", "q4"])
    assert said.exit_code == 2
    assert said.stderr == "kv_dtype: there is no 'q4': give float16, float32, int8\n"


def test_a_file_that_is_no_model_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "poem.gguf").write_text("The sky is blue because ...")
    said = CliRunner().invoke(app, ["show", str(tmp_path / "poem.gguf")])
    assert (said.exit_code, said.stdout) == (1, "")
    problem = "it is in no format that is read (gguf) (at byte 0)"
    assert said.stderr == f"{tmp_path / 'poem.gguf'}: {problem}; take another file\n"
