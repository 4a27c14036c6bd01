"""Flags come out of dataclass fields with their defaults, types and comments."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from octavo.cli._flags import comments, flags
from octavo.cli._words import parse_size, size
from octavo.config import Config
from octavo.types import SamplingParams


@dataclass(frozen=True)
class Asked:
    model: str
    memory: int | None = None  # bytes to take; None: all
    top_p: float = 1.0  # keep the likeliest
    stop: tuple[str, ...] = ()  # text that ends it
    cache: bool = True  # look things up
    shape: Any = None  # of the answer
    words: tuple[str, ...] | None = None  # it may have


def ask(*arguments):
    seen = []
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    @flags("asked", Asked, leave={"model"}, top_p=0.5)
    def command(model: str, *, asked):
        seen.append(Asked(model, **asked))

    said = CliRunner().invoke(app, list(arguments))
    return seen[0] if seen else said


def test_defaults_are_the_fields_or_the_commands_own():
    assert ask("m") == Asked("m", top_p=0.5)


def test_every_kind_of_field_is_read():
    said = "m --memory 4GiB --top-p 0.1 --stop a --stop b --no-cache --shape {} --words c --words d"
    asked = ask(*said.split())
    assert asked == Asked("m", 4 << 30, 0.1, ("a", "b"), False, "{}", ("c", "d"))


def test_the_comment_beside_a_field_is_its_help():
    said = " ".join(ask("--help").output.split())
    assert "Keep the likeliest." in said
    assert "Bytes to take; if not given: all." in said
    assert "Any" not in said


@pytest.mark.parametrize(("flag", "value"), [("--memory", "much"), ("--top-p", "x")])
def test_a_value_of_the_wrong_kind_is_a_usage_error(flag, value):
    said = ask("m", flag, value)
    assert said.exit_code == 2
    assert flag in said.output


@pytest.mark.parametrize("kind", [Config, SamplingParams])
def test_every_field_people_may_set_has_a_comment(kind):
    assert {field.name for field in fields(kind)} - set(comments(kind)) <= {"model"}


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("4GiB", 4 << 30), ("1.5 GB", 1_500_000_000), ("512m", 512_000_000), ("7", 7), ("2ki", 2048)],
)
def test_sizes_are_read_as_people_write_them(text, num_bytes):
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "4 GiG", "1e9", "4GiBB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="write it as 4GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (98_362_432, "98.4 MB"), (5e12, "5.0 TB")]
)
def test_sizes_are_written_short(num_bytes, text):
    assert size(num_bytes) == text
