"""The command line as a person meets it: what is found, what is said, how it ends."""

import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from octavo.cli import app
from octavo.loader import hub
from octavo.registry import names


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def octavo(home):
    def ask(*arguments, stdin=None):
        return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)

    return ask


@pytest.mark.parametrize("command", names("octavo.cli"))
def test_every_command_explains_itself_with_examples(octavo, command):
    said = octavo(command, "--help")
    assert said.exit_code == 0
    assert f"octavo {command}" in said.stdout


def test_the_list_of_commands_is_the_folder(octavo):
    said = octavo("--help").stdout
    listed = [line.split()[0] for line in said.partition("Commands:\n")[2].splitlines()]
    assert tuple(listed) == names("octavo.cli")


def test_a_command_nobody_wrote_and_an_unknown_flag_are_usage_errors(octavo):
    for arguments in (["nope"], ["_words"], ["list", "--nope"]):
        said = octavo(*arguments)
        assert said.exit_code == 2
        assert said.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rnu"], "'run'"),
        (["bench", "ofline"], "'offline'"),
        (["keys", "creat"], "'create'"),
        (["run", "--temprature", "1"], "--temperature"),
    ],
)
def test_a_slip_of_the_fingers_is_told_what_was_meant(octavo, arguments, meant):
    said = octavo(*arguments)
    assert said.exit_code == 2
    assert meant in said.stderr.splitlines()[-1]


def test_list_names_what_is_here_and_what_could_be(octavo, home):
    kept = home / "models" / "hf" / "org" / "repo" / "file.gguf"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(2048))
    lines = octavo("list").stdout.splitlines()
    assert lines[0].split() == ["hf:org/repo/file.gguf", "2.0", "kB", str(kept)]
    assert {line.split()[0] for line in lines[1:]} == set(hub.ALIASES)


def test_pull_prints_the_path_of_a_model_that_is_here(octavo, home):
    kept = home / "models" / "smollm2.gguf"
    kept.parent.mkdir(parents=True)
    kept.touch()
    said = octavo("pull", "smollm2")
    assert said.stdout == f"{kept}\n"
    assert "Apache-2.0" in said.stderr


def test_an_error_is_one_sentence_on_stderr(octavo):
    said = octavo("pull", "smolm2")
    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr == "model: none is called 'smolm2': did you mean 'smollm2'?\n"


def test_a_bug_is_hinted_at_and_shown_when_asked(octavo, monkeypatch):
    monkeypatch.setattr(hub, "installed", lambda: 1 / 0)
    said = octavo("list")
    assert said.exit_code == 1
    assert "ZeroDivisionError" in said.stderr
    assert "--traceback" in said.stderr
    assert isinstance(octavo("--traceback", "list").exception, ZeroDivisionError)


def test_ctrl_c_ends_any_command_quietly(octavo, monkeypatch):
    monkeypatch.setattr(hub, "installed", interrupt)
    said = octavo("list")
    assert (said.exit_code, said.output) == (130, "")


def test_the_version_is_said_at_once(program):
    began = time.monotonic()
    said = program("--version").communicate(timeout=60)
    assert said[0].startswith("octavo 0.")
    assert time.monotonic() - began < 2  # 0.1 s on an idle machine; heavy imports take seconds


def test_the_version_needs_no_heavy_import(home):
    code = (
        "import sys; from octavo.cli import main; sys.argv[1:] = ['--version']\n"
        "try: main()\n"
        "finally: print(sorted({'numpy', 'rich', 'tokenizers', 'jinja2'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.thorough
def test_a_reader_that_leaves_ends_the_program_quietly(program, home):
    kept = home / "models" / "hf" / "org" / "repo"
    kept.mkdir(parents=True)
    for number in range(400):  # more than a pipe holds
        (kept / f"{number:0200}.gguf").touch()
    process = program("list")
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""
