"""The default models through our reader, against the `gguf` package's."""

import time

import gguf
import numpy as np
import pytest

from octavo.loader.checkpoint import open_checkpoint
from octavo.loader.gguf import read_gguf
from octavo.registry import entry

pytestmark = pytest.mark.models
ROWS = 8192  # dequantized at a time


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def path(request):
    return request.getfixturevalue(f"{request.param}_path")


@pytest.fixture(scope="module")
def theirs(path):
    return gguf.GGUFReader(path)  # takes seconds


def test_every_tensor_is_where_and_what_gguf_says(path, theirs):
    ours = read_gguf(path).tensors
    assert ours.keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        raw = ours[tensor.name].tensor
        assert raw.format == tensor.tensor_type.name.lower()
        assert raw.shape == tuple(reversed(tensor.shape.tolist()))
        dequantize = entry("octavo.quant", raw.format).dequantize
        packed = tensor.data.view(np.uint8).reshape(raw.data.shape)
        for first in range(0, len(packed), ROWS):
            rows = slice(first, first + ROWS)
            expected = gguf.dequantize(packed[rows], tensor.tensor_type)
            found = dequantize(raw.data[rows])
            np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_opening_takes_less_than_half_a_second(path):
    start = time.process_time()  # a neighbour's work is not ours
    checkpoint = open_checkpoint(path)
    assert len(checkpoint.vocabulary.tokens) == checkpoint.metadata.integer("vocab_size")
    assert time.process_time() - start < 0.5


def test_the_tokenizers_data_is_what_gguf_says(path, theirs):
    vocabulary = open_checkpoint(path).vocabulary

    def contents(name):
        field = theirs.fields.get(f"tokenizer.ggml.{name}")
        return None if field is None else field.contents()

    assert vocabulary.tokens == contents("tokens")
    assert vocabulary.types == contents("token_type")
    assert vocabulary.merges == contents("merges")
    assert vocabulary.scores == contents("scores")
    assert vocabulary.bos_id == contents("bos_token_id")
    assert vocabulary.eos_id == contents("eos_token_id")
    assert vocabulary.add_bos == contents("add_bos_token")
