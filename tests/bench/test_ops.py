"""Where a step's time goes: nothing is lost, and what was counted is what the shapes say."""

import json

import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo.cli import app


@pytest.fixture
def told(tmp_path):
    """The line of --json for a tiny model."""
    model = str(write_tiny(tmp_path / "tiny.gguf"))

    def tell(*words):
        said = CliRunner().invoke(app, ["bench", "ops", model, "--json", *map(str, words)])
        assert said.exit_code == 0, said.output
        return json.loads(said.stdout)

    return tell


@pytest.mark.parametrize(
    "words", [("--prompt", 40), ("--batch", 3, "--context", 40, "--new-tokens", 4)]
)
def test_every_moment_of_a_step_is_in_one_line(told, words):
    found = told(*words)["ops"]
    assert sum(line["share"] for line in found) == pytest.approx(1)
    assert {line["kind"] for line in found} == {"linear", "attention", "rows", "waiting", "python"}
    assert all(line["seconds"] > 0 for line in found if line["kind"] != "waiting")
    limited = {line["kind"] for line in found if line["limit_share"] is not None}
    assert limited == {"linear", "attention"}


def test_multiply_adds_are_those_of_the_shapes(told):
    """Two layers of 256 columns, an MLP of 512, 4 heads and 2 KV heads of 64, 304 tokens."""

    def multiply_adds(kind, *words):
        lines = [line for line in told(*words)["ops"] if line["kind"] == kind]
        return sum(line["seconds"] * line["multiply_adds_per_second"] for line in lines)

    layer = 256 * (256 + 128 + 128 + 256) + 3 * 256 * 512
    head = 256 * 304
    step = ("--batch", 3, "--context", 40, "--new-tokens", 4)
    assert multiply_adds("linear", "--prompt", 40) == pytest.approx(40 * 2 * layer + head)
    assert multiply_adds("linear", *step) == pytest.approx(3 * (2 * layer + head))
    seen = 40 * 41 / 2
    assert multiply_adds("attention", "--prompt", 40) == pytest.approx(2 * 2 * 256 * seen)
    # A sequence of 40 has its first token, so the four steps see 41 to 44.
    assert multiply_adds("attention", *step) == pytest.approx(3 * 2 * 2 * 256 * 42.5)


def test_it_reads_as_a_table(told, tmp_path):
    model = str(tmp_path / "tiny.gguf")
    said = CliRunner().invoke(app, ["bench", "ops", model, "--prompt", "8"])
    lines = said.stdout.splitlines()
    assert lines[0].split() == ["op", "us", "share", "GB/s", "GMAC/s", "of", "limit"]
    assert any(line.startswith("linear 4 bits, 512 x 256 ") for line in lines)


def test_what_only_generation_knows_is_refused_beside_a_prompt():
    said = CliRunner().invoke(app, ["bench", "ops", "tiny", "--prompt", "8", "--batch", "2"])
    assert said.exit_code == 2
    assert said.stderr.startswith("prompt: it is measured alone")
