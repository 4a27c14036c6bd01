"""octavo bench grammar on a tiny model: forced text is the same text, in fewer steps."""

import json

import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo.cli import app


def test_both_figures_are_told(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf")
    asked = CliRunner().invoke(app, ["bench", "grammar", str(path), "--turns", "1", "--json"])
    assert asked.exit_code == 0, asked.output
    found = json.loads(asked.output)
    assert [cost["sequences"] for cost in found["masks"]] == [1, 16]
    assert all(cost["plain_ms"] > 0 < cost["masked_ms"] for cost in found["masks"])
    assert found["forced"]["is_same_text"]
    assert found["forced"]["tokens"] > 100


@pytest.mark.thorough
def test_it_is_told_in_words_too(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf")
    asked = CliRunner().invoke(app, ["bench", "grammar", str(path), "--turns", "1"])
    assert "16 sequences" in asked.output
    assert "the same text" in asked.output
