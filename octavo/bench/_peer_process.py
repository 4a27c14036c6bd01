"""Peers from this side: each in a process of its own, stopped while it is not its turn.

Two libraries with the same symbols must not meet, what a peer's memory and crashes cost is its own,
and its threads, which spin on after their work, must not take a core from whoever is timed next.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.errors import BadConfig
from octavo.registry import entry

FOLDER = "octavo.bench._peers"
CHILD = Path(__file__).with_name("_peers") / "_child.py"
LIMIT = 900  # seconds for one order; a peer whose threads are deadlocked is ended then


class Failed(Exception):
    """A sentence on what a peer could not do."""


@dataclass(frozen=True, slots=True)
class Asked:
    name: str
    python: str  # the interpreter that has it


def parse(text: str) -> Asked:
    """NAME or NAME=PYTHON. Raises UnknownName, BadConfig."""
    name, _, python = text.partition("=")
    entry(FOLDER, name)
    found = shutil.which(os.path.expanduser(python)) if python else sys.executable
    if not found:
        raise BadConfig("peer", f"{python!r} is no program: give the path of a Python interpreter")
    return Asked(name.lower().replace("_", "-"), found)


class PeerProcess:
    """Started by its first order, and again by the next one after it died."""

    def __init__(self, asked: Asked) -> None:
        self.name, self._python = asked.name, asked.python
        self._file = str(entry(FOLDER, asked.name).__file__)
        self._process: subprocess.Popen[bytes] | None = None

    def order(self, name: str, **arguments: object) -> Any:
        """Raises Failed; whatever was open is gone where `is_alive` is false afterwards."""
        process = self._process = self._process or self._start()
        process.send_signal(signal.SIGCONT)
        assert process.stdin, "a pipe"
        try:
            process.stdin.write(json.dumps([name, arguments]).encode() + b"\n")
            line = self._answer(process)
        except BrokenPipeError:
            line = b""
        if not line:
            raise Failed(f"{self.name} {self._end(process)} at the order {name}")
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        answer = json.loads(line)
        if "problem" in answer:
            raise Failed(answer["problem"])
        return answer["ok"]

    @property
    def is_alive(self) -> bool:
        return self._process is not None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._reap(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [self._python, str(CHILD), self._file],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Without programs to find: a library that crashes would call a debugger.
            env={**os.environ, "PATH": os.devnull},
        )

    def _answer(self, process: "subprocess.Popen[bytes]") -> bytes:
        """Empty where there is none, and none will come."""
        assert process.stdout, "a pipe"
        ready, _, _ = select.select([process.stdout], [], [], LIMIT)
        if not ready:
            process.kill()
        return process.stdout.readline()

    def _end(self, process: "subprocess.Popen[bytes]") -> str:
        status = self._reap(process)
        if status == -signal.SIGKILL:
            return f"was ended (no answer within {LIMIT} s, or no memory)"
        if status < 0:
            return f"crashed ({signal.Signals(-status).name})"
        return f"ended with status {status}"

    def _reap(self, process: "subprocess.Popen[bytes]") -> int:
        self._process = None
        with process:  # closes its pipes and waits for it
            pass
        return process.returncode
