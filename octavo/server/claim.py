"""That a process still lives, said to others that share a folder: a lock, which ends with it.

A process id would not do: the next one may get it, and another container has it as well.
"""

import fcntl
import os
import secrets
from pathlib import Path


class Claim:
    def __init__(self, folder: Path) -> None:
        """Holds it until `release`, or the end of the process, however it comes."""
        self.name = secrets.token_hex(8)  # by which others ask
        self._folder = folder
        for path in folder.glob("process-*.lock"):  # of those who could not clear up
            self.lives(path.stem.removeprefix("process-"))
        unnamed = folder / f"{self.name}.new"  # until it is locked, nobody takes it for a dead one
        self._lock = os.open(unnamed, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self._path(self.name))

    def lives(self, name: str) -> bool:
        """Does whoever holds the claim of that name? The file of one who does not is removed."""
        path = self._path(name)
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        path.unlink(missing_ok=True)
        return False

    def release(self) -> None:
        self._path(self.name).unlink(missing_ok=True)
        os.close(self._lock)

    def _path(self, name: str) -> Path:
        return self._folder / f"process-{name}.lock"
