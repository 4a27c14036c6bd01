import subprocess
import sys

import pytest

MAIN = "from octavo.cli import main; main()"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(*arguments) starts octavo as a process of its own; none outlives the test, nor what
    it keeps, and none sees what others kept."""
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    started = []

    def start(*arguments, **options):
        command = [sys.executable, "-c", MAIN, *map(str, arguments)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, **(pipes | options)))
        return started[-1]

    yield start
    for process in started:
        with process:  # closes its pipes and waits
            process.kill()
