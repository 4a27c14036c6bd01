"""octavo bench schemas on a suite of three files, and, where pip may be asked, on all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo.bench.schemas import read_suite
from octavo.cli import app

CASES = {
    "type": [
        {
            "description": "a number",
            "schema": {"type": "integer"},
            "tests": [{"data": 1, "valid": True}, {"data": "x", "valid": False}],
        }
    ],
    "not": [{"description": "not a text", "schema": {"not": {"type": "string"}}, "tests": []}],
    "optional/format/date": [{"description": "a day", "schema": {"format": "date"}, "tests": []}],
    "optional/bignum": [],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")


def written(folder, cases):
    for name, content in cases.items():
        file = folder / "json/tests/draft2020-12" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    return folder


def ask(*arguments):
    return CliRunner().invoke(app, ["bench", "schemas", *map(str, arguments)])


def test_keywords_are_counted_and_written_into_their_place(model, tmp_path):
    suite = written(tmp_path / "suite", CASES)
    assert [name for name, _ in read_suite(suite)] == ["not", "type", "format/date"]
    document = tmp_path / "doc.md"
    document.write_text("Before\n<!-- figures: keywords -->\nold\n<!-- end of figures -->\nafter\n")
    asked = ask(suite, model, "--samples", 3, "--document", document)
    assert asked.exit_code == 0, asked.output
    table = document.read_text()
    assert "| type | 1 | 1 | 100% | 3 |" in table
    assert "| not | 1 | 0 | 0% | 0 | 0 | 0 |" in table
    assert "| **all** | 3 | 2 | 66% | 6 |" in table
    assert "old" not in table


def test_what_is_allowed_and_wrong_is_told(model, tmp_path):
    wrong = [{**CASES["type"][0], "tests": [{"data": 1, "valid": False}]}]
    asked = ask(written(tmp_path / "suite", {"type": wrong}), model, "--samples", 1)
    assert asked.exit_code == 1
    assert "type, a number: allows 1" in asked.output


def test_a_folder_without_a_suite_is_named(model, tmp_path):
    asked = ask(tmp_path, model)
    assert asked.exit_code != 0


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    """As the sdist of jsonschema carries it."""
    folder = tmp_path_factory.mktemp("suite")
    pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:")
    subprocess.run([*pip, "--dest", folder, "jsonschema==4.26.0"], check=True)
    return next(Path(folder).glob("*.tar.gz"))


def check(suite, model):
    asked = ask(suite, model, "--json")
    assert asked.exit_code == 0, asked.output
    counts = json.loads(asked.output).values()
    assert sum(count["accepted"] for count in counts) >= 172
    assert sum(count["answers"] for count in counts) == 20 * sum(
        count["accepted"] for count in counts
    )
    assert sum(count["whole"] for count in counts) > 3000


@pytest.mark.processes
def test_all_answers_of_a_tiny_model_to_the_whole_suite_are_valid(suite, model):
    check(suite, model)


@pytest.mark.models
def test_all_answers_of_a_real_model_to_the_whole_suite_are_valid(suite, smollm2_path):
    check(suite, smollm2_path)
