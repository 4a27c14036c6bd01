"""Files that clients leave here and that batches write: whose, for how long, and where they lie.

Owns the table of files and the folder of their contents. A file is there once its row is; contents
without a row are what a crash left, and go. Knows no HTTP and no batches.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Annotated, BinaryIO, Literal
from uuid import uuid4

from msgspec import Meta, Struct

from octavo.errors import BadRequest, UnknownName
from octavo.server.lists import Page, rows_of
from octavo.server.state import State, insert

DAY = 24 * 3600  # seconds
INPUTS_KEPT = 30 * DAY  # files for batches, unless whoever sends them says otherwise
MOST_BYTES = 20 << 30  # of one tenant, before another file is refused


class ExpiresAfter(Struct):
    """As clients say it."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=30 * DAY)]


@dataclass(frozen=True, slots=True)
class File:
    id: str
    tenant: str  # id of a key; "": nobody in particular
    name: str
    purpose: str  # batch, batch_output
    num_bytes: int
    created: int  # seconds since the epoch
    expires: int | None  # likewise; None: never


@dataclass(slots=True)
class Draft:
    """Contents in the making."""

    id: str
    contents: BinaryIO
    is_kept: bool = False  # a file has them

    def file(self, tenant: str, name: str, purpose: str, seconds: int | None) -> File:
        """The contents are safe on disk then. `seconds`: how long it is kept; None: for ever."""
        self.contents.flush()
        os.fsync(self.contents.fileno())
        now = int(time.time())
        expires = None if seconds is None else now + seconds
        return File(self.id, tenant, name, purpose, self.contents.tell(), now, expires)


class Files:
    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.folder / "files"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with state.change() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS files (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, "
                "name TEXT NOT NULL, purpose TEXT NOT NULL, num_bytes INTEGER NOT NULL, "
                "created INTEGER NOT NULL, expires INTEGER)"
            )

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """Gone at the end, unless it is kept."""
        id = f"file-{uuid4().hex}"
        with self.path(id).open("xb") as contents:
            draft = Draft(id, contents)
            try:
                yield draft
            finally:
                if not draft.is_kept:
                    self.path(id).unlink()

    def keep(self, draft: Draft, tenant: str, name: str, purpose: str, seconds: int | None) -> File:
        """As a file, for so many seconds; None: for ever."""
        file = draft.file(tenant, name, purpose, seconds)
        with self._state.change() as connection:
            self.insert(connection, file)
        draft.is_kept = True
        return file

    @staticmethod
    def insert(connection: Connection, file: File) -> None:
        """Within a change of the caller's, who then keeps the draft."""
        insert(connection, "files", asdict(file))

    def find(self, tenant: str, id: str) -> File:
        """Raises UnknownName, also for what is another's."""
        self.forget_expired()
        rows = self._state.rows("SELECT * FROM files WHERE id = ? AND tenant = ?", id, tenant)
        if not rows:
            raise _unknown(id)
        return _file(rows[0])

    def open(self, tenant: str, id: str) -> tuple[File, BinaryIO]:
        """And its contents, which stay whole while they are open, whoever deletes it. Raises
        UnknownName."""
        file = self.find(tenant, id)
        try:
            return file, self.path(id).open("rb")
        except FileNotFoundError:  # it has just been deleted
            raise _unknown(id) from None

    def page(self, tenant: str, page: Page, purpose: str | None = None) -> tuple[list[File], bool]:
        """And whether there are more. Raises BadRequest."""
        self.forget_expired()
        rows, has_more = rows_of(self._state, "files", page, tenant=tenant, purpose=purpose)
        return [_file(row) for row in rows], has_more

    def delete(self, tenant: str, id: str) -> None:
        """Raises UnknownName."""
        with self._state.change() as connection:
            sql = "DELETE FROM files WHERE id = ? AND tenant = ? RETURNING id"
            if not connection.execute(sql, [id, tenant]).fetchall():
                raise _unknown(id)
        self.path(id).unlink(missing_ok=True)

    def check_room(self, tenant: str) -> None:
        """Raises BadRequest for one who has filled it."""
        sql = "SELECT COALESCE(SUM(num_bytes), 0) AS used FROM files WHERE tenant = ?"
        (row,) = self._state.rows(sql, tenant)
        if row["used"] >= MOST_BYTES:
            problem = f"your files take {row['used']} bytes, the limit is {MOST_BYTES}: delete some"
            raise BadRequest(problem, "file")

    def path(self, id: str) -> Path:
        """Of the contents. `id` is ours, not what a client says."""
        return self._folder / id

    def forget_expired(self) -> None:
        now = int(time.time())
        if self._state.rows("SELECT 1 FROM files WHERE expires <= ? LIMIT 1", now):
            with self._state.change() as connection:
                sql = "DELETE FROM files WHERE expires <= ? RETURNING id"
                gone = [row["id"] for row in connection.execute(sql, [now])]
            for id in gone:
                self.path(id).unlink(missing_ok=True)

    def clear_up(self) -> None:
        """Contents that no row knows, unless somebody may still be writing them."""
        known = {row["id"] for row in self._state.rows("SELECT id FROM files")}
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process clears up, too
                if path.name not in known and path.stat().st_mtime < time.time() - DAY:
                    path.unlink()


def _file(row: Row) -> File:
    return File(**dict(row))


def _unknown(id: str) -> UnknownName:
    return UnknownName("the list of files", id[:100], close=[])
