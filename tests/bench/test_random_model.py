"""Models made here: `gguf` reads what we wrote, our loader and the engine open it, the same bytes
come every time, and weights are as large as they should be."""

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from octavo import LLM, SamplingParams
from octavo.bench._random_model import DEVIATION, FLOATS, FORMATS, SHAPES, Shape, path_of, write
from octavo.cli import app
from octavo.errors import BadConfig

TINY = Shape(
    hidden=256, mlp=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocab=600, context=512
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("form", FORMATS)
def test_gguf_reads_the_same_names_shapes_and_deviation(form, tmp_path):
    write(tmp_path / "random.gguf", TINY, form)
    reader = gguf.GGUFReader(tmp_path / "random.gguf")
    read = {tensor.name: tensor for tensor in reader.tensors}
    assert read.keys() == {*TINY.matrices, *TINY.norms}
    for name, (rows, columns) in TINY.matrices.items():
        tensor = read[name]
        assert [*tensor.shape] == [columns, rows]
        assert tensor.tensor_type == gguf.GGMLQuantizationType[form.upper()]
    weights = gguf.dequantize(
        read["blk.1.ffn_up.weight"].data, read["blk.1.ffn_up.weight"].tensor_type
    )
    # 131,072 weights in blocks of up to 256, whose scales differ in Q6_K and its like: 512 blocks
    # give the deviation to some 3 %; floats are spread over an octave about it.
    assert weights.std() == pytest.approx(DEVIATION, rel=0.25 if form in FLOATS else 0.1)
    if not form.endswith("_k"):
        # The mean of 32 has the 32nd part of the variance; codes from -8 to 7 add 1/85 of it.
        means = weights.reshape(-1, 32).mean(axis=1)
        assert means.std() < 1.3 * weights.std() / 32**0.5
    assert abs(weights.mean()) < DEVIATION / 10
    assert (read["output_norm.weight"].data == 1).all()
    tokens = reader.fields["tokenizer.ggml.tokens"]
    assert len(set(tokens.contents())) == TINY.vocab


def test_the_engine_answers_with_it_and_its_text_comes_back(tmp_path):
    write(tmp_path / "random.gguf", TINY, "q4_0")
    with LLM(tmp_path / "random.gguf") as llm:
        assert llm.tokenizer.decode(llm.tokenizer.encode("the sea, é 12\n")) == "the sea, é 12\n"
        (one,) = llm.generate(["the sea"], SamplingParams(max_tokens=4, ignore_eos=True, seed=1))
        assert one.usage.completion_tokens == 4
        assert np.isfinite([scored.logprob for scored in llm.score("the sea")]).all()


def test_a_name_is_written_once_and_always_the_same(home, monkeypatch):
    shapes = {"tiny": TINY}
    monkeypatch.setattr("octavo.bench._random_model.SHAPES", shapes)
    path = home / "bench" / "random-tiny-q5_0.gguf"
    assert path_of("random-tiny-q5_0") == str(path)
    write(home / "again.gguf", TINY, "q5_0", name="random-tiny-q5_0")
    assert path.read_bytes() == (home / "again.gguf").read_bytes()
    assert [*path.parent.iterdir()] == [path]
    path.write_bytes(b"kept")
    assert path_of("random-tiny-q5_0") == str(path)
    assert path.read_bytes() == b"kept"


def test_its_name_means_something_to_benchmarks_only(home):
    assert path_of("smollm2") == "smollm2"
    for wrong in ("random-7b", "random-1b-q4_2"):
        with pytest.raises(BadConfig, match=f"{wrong}' is not made here: .* 1b, 100m .*q4_0"):
            path_of(wrong)
    with pytest.raises(BadConfig, match="columns are not whole blocks of 256"):
        write(home / "x.gguf", Shape(96, 96, 1, 1, 1, 96, 600), "q6_k")
    assert CliRunner().invoke(app, ["show", "random-1b"]).exit_code == 2


def test_the_large_one_has_the_shape_of_llama_3_2_1b():
    shape = SHAPES["1b"]
    total = sum(rows * columns for rows, columns in shape.matrices.values())
    assert total + len(shape.norms) * shape.hidden == 1_235_814_400  # as its config.json counts
