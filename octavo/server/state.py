"""What outlives the process: one SQLite file under OCTAVO_HOME.

Owns the connection and how it is shared, but no table: each is its owner's to create.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from octavo.errors import BadState

PATIENCE = 10.0  # seconds that another process may hold the file
VERSION = 1  # of all tables together: another column, another version


class State:
    """Threads and processes may share it; a change is there for all, or not at all."""

    def __init__(self, path: Path) -> None:
        """Makes the file if there is none. Raises BadState where it cannot be used."""
        self.path = path
        self.folder = path.parent  # for what is too large for a table
        self._lock = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, PATIENCE, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._check_version()
            self._write_ahead()
        except (OSError, sqlite3.Error) as error:
            problem = f"{path} cannot be used ({error}): set OCTAVO_HOME to another folder"
            raise BadState(problem) from error

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator["State"]:
        """Of which nothing is left at the end."""
        with TemporaryDirectory() as folder, closing(cls(Path(folder) / "state.db")) as state:
            yield state

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, undone by an exception."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection

    def close(self) -> None:
        self._connection.close()

    def _check_version(self) -> None:
        """A file without tables becomes ours, in one change: others may open it now as well. Raises
        BadState for any other that is not."""
        with self.change() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
            if is_new := version == 0 and not tables:
                connection.execute(f"PRAGMA user_version = {VERSION}")
        if version != VERSION and not is_new:
            self.close()
            problem = (
                f"{self.path} has version {version}, this Octavo reads version {VERSION}: use "
                "the one that made it, or move the file away to begin anew"
            )
            raise BadState(problem)

    def _write_ahead(self) -> None:
        """Turns on write-ahead logging. SQLite's own timeout does not hold for this statement: here
        another writer is waited for by trying again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)


def insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """One row, by column, within a change."""
    marks = ", ".join(f":{column}" for column in row)
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", row)
