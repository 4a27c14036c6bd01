"""That a process still lives, or what it is at, said to others that share a folder: a lock, which
ends with it.

A process id would not do: the next one may get it, and another container has it as well.
"""

import fcntl
import os
import secrets
import struct
from hashlib import sha256
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


class Exclusive:
    """Things of which each is done by one process at a time: a byte of one file for each, locked.

    The lock is the open file's, not the process's as fcntl's others are, which end when anybody
    here closes the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def take(self, name: bytes) -> bool:
        """Until `give_back`, `close`, or the end of the process. False: another has it. To take
        what one has is well."""
        try:
            self._lock(fcntl.F_WRLCK, name)
        except BlockingIOError:
            return False
        return True

    def give_back(self, name: bytes) -> None:
        self._lock(fcntl.F_UNLCK, name)

    def close(self) -> None:
        self._file.close()

    def _lock(self, kind: int, name: bytes) -> None:
        """Places are drawn from 2^62: two names have the same one as good as never, and then one
        of them waits."""
        place = int.from_bytes(sha256(name).digest()[:8]) >> 2
        start, length, no_process = place, 1, 0
        asked = struct.pack("hhqqi", kind, os.SEEK_SET, start, length, no_process)
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, asked)
