"""What `octavo bench offline` and `roofline` print: keys that scripts read, shares that can be."""

import json

import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo.cli import app


def bench(*words):
    done = CliRunner().invoke(app, ["bench", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_batch_with_context_is_timed_and_told_as_json(tmp_path, architecture):
    path = write_tiny(tmp_path / "tiny.gguf", architecture)
    work = ("--prompt-tokens", 40, "--new-tokens", 3, "--batch", 3, "--context", 70, "--runs", 1)
    found = json.loads(bench("offline", path, *work, "--threads", 1, "--json"))
    assert (found["batch"], found["context"], found["new_tokens"]) == (3, 70, 3)
    for figure in (
        "prompt_tokens_per_second",
        "generation_tokens_per_second",
        "prompt_share_of_int8_peak",
        "generation_share_of_bandwidth",
    ):
        assert found[figure] > 0
    assert found["roofline"]["threads"] == 1


def test_people_get_a_table(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf")
    said = bench("offline", path, "--prompt-tokens", 20, "--new-tokens", 2, "--runs", 1)
    assert "of the int8 peak" in said
    assert "of read bandwidth" in said


def test_a_peer_that_is_not_there_is_named(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf")
    done = CliRunner().invoke(app, ["bench", "offline", str(path), "--peer", "vllm"])
    assert done.exit_code == 2
    assert "vllm" in done.output


def test_the_limits_are_positive():
    found = json.loads(bench("roofline", "--threads", 1, "--json"))
    assert min(found[key] for key in found if key.endswith("per_second")) > 0
