"""What is piped in: read when it is there, never waited for when it is not."""

import os
import subprocess
import sys

import pytest

ASK = (
    "from octavo.cli._prompt import piped_text\n"
    "print(repr(piped_text({prompt!r}, patience={patience})))"
)


def asked(prompt, patience=20, **stdin):
    code = ASK.format(prompt=prompt, patience=patience)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **stdin)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("prompt", "piped", "wanted"),
    [
        (None, "a text\n", "a text"),
        (None, "two\nlines\n\n", "two\nlines\n"),
        (None, "dos\r\n", "dos"),
        (None, "", ""),
        ("Summarise.", "a text\n", "a text\n\nSummarise."),
        ("Hello", "", "Hello"),
    ],
)
def test_what_is_piped_in_comes_before_the_prompt(prompt, piped, wanted):
    assert eval(asked(prompt, input=piped).stdout) == wanted


def test_a_file_is_read_and_the_null_device_is_silent(tmp_path):
    (tmp_path / "notes").write_text("from a file")
    with (tmp_path / "notes").open() as notes:
        assert eval(asked("Hello", stdin=notes).stdout) == "from a file\n\nHello"
    assert eval(asked("Hello", stdin=subprocess.DEVNULL).stdout) == "Hello"


def test_a_pipe_that_stays_silent_does_not_hold_up_a_prompt():
    read_end, write_end = os.pipe()
    said = asked("Hello", patience=0.1, stdin=read_end)
    assert eval(said.stdout) == "Hello"
    assert "nothing came" in said.stderr
    os.close(read_end)
    os.close(write_end)


def test_bytes_that_are_no_text_are_refused():
    code = ASK.format(prompt=None, patience=20)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, input=b"caf\xe9 au")
    assert b"BadRequest: standard input: byte 3 is not UTF-8" in said.stderr
