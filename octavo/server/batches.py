"""Batches: what was asked for, how far each is, and the files that it ends in.

Owns the table of batches, and the inputs, which outlive the file they came as. Every change of a
batch is one transaction, so that a crash leaves it before or after. Knows no engine.

    validating ─▶ in_progress ─▶ finalizing ─▶ completed | expired
        │    ╲         ╲
        ▼     ╰─────────┴─▶ cancelling ─▶ cancelled
      failed

Only a batch in progress takes results, one a line.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from sqlite3 import Connection, Row
from typing import Literal, TypeAlias
from uuid import uuid4

import msgspec

from octavo.errors import BadRequest, RateLimited, UnknownName
from octavo.server.batch_lines import Line, Problem, input_lost, lines, unanswered
from octavo.server.batch_results import Result, Results
from octavo.server.files import DAY, File, Files
from octavo.server.lists import Page, rows_of
from octavo.server.state import State, insert

WINDOW = DAY  # seconds that a batch may take
MOST_AT_A_TIME = 100  # of one tenant, before they are over
_WRITTEN = {"output_file_id": "output.jsonl", "error_file_id": "error.jsonl"}
_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")

Status: TypeAlias = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
LIVE = ("validating", "in_progress", "finalizing", "cancelling")
_IS_LIVE = f"status IN {LIVE}"
_COLUMNS = """
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL, metadata TEXT, output_seconds INTEGER, status TEXT NOT NULL,
    created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, in_progress_at INTEGER,
    finalizing_at INTEGER, completed_at INTEGER, failed_at INTEGER, expired_at INTEGER,
    cancelling_at INTEGER, cancelled_at INTEGER, problems TEXT, output_file_id TEXT,
    error_file_id TEXT, num_lines INTEGER NOT NULL, num_completed INTEGER NOT NULL,
    num_failed INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Times are seconds since the epoch."""

    id: str
    tenant: str  # id of a key; "": nobody in particular
    model: str  # whose server does the work
    endpoint: str
    input_file_id: str
    metadata: str | None  # JSON
    output_seconds: int | None  # that its files are kept; None: for ever
    status: Status
    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    problems: str | None = None  # JSON
    output_file_id: str | None = None
    error_file_id: str | None = None
    num_lines: int = 0
    num_completed: int = 0
    num_failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0  # of these, in thoughts

    def seconds_left(self, now: int) -> float:
        """If its lines go on as they did; at most until it expires."""
        left, done = float(self.expires_at - now), self.num_completed + self.num_failed
        if self.in_progress_at is not None and done:
            each = (now - self.in_progress_at) / done
            left = min(left, each * (self.num_lines - done))
        return max(1.0, left)


class Batches:
    def __init__(self, state: State, files: Files) -> None:
        self._state, self._files, self._results = state, files, Results(state)
        self.folder = state.folder / "batches"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with state.change() as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS batches ({_COLUMNS})")

    def create(
        self, file: File, model: str, endpoint: str, metadata: str | None, keep: int | None
    ) -> Batch:
        """`keep`: seconds that its files are kept. Raises RateLimited, and UnknownName where the
        file has just gone."""
        now, id = int(time.time()), f"batch_{uuid4().hex}"
        asked = (file.tenant, model, endpoint, file.id, metadata, keep)
        begun = Batch(id, *asked, "validating", created_at=now, expires_at=now + WINDOW)
        with self._state.change() as connection:
            sql = f"SELECT * FROM batches WHERE tenant = ? AND {_IS_LIVE}"
            live = [_batch(row) for row in connection.execute(sql, [file.tenant])]
            if len(live) >= MOST_AT_A_TIME:
                wait = min(batch.seconds_left(now) for batch in live)
                raise RateLimited("batches at a time", len(live), MOST_AT_A_TIME, wait)
            insert(connection, "batches", asdict(begun))
            try:
                os.link(self._files.path(file.id), self.input(id))
            except FileNotFoundError:
                raise UnknownName("the list of files", file.id, close=[]) from None
        return begun

    def input(self, id: str) -> Path:
        return self.folder / f"{id}.jsonl"

    def find(self, tenant: str, id: str) -> Batch:
        """Raises UnknownName, also for what is another's."""
        return _found(
            self._state.rows("SELECT * FROM batches WHERE id = ? AND tenant = ?", id, tenant), id
        )

    def page(self, tenant: str, page: Page) -> tuple[list[Batch], bool]:
        """And whether there are more. Raises BadRequest."""
        rows, has_more = rows_of(self._state, "batches", page, tenant=tenant)
        return [_batch(row) for row in rows], has_more

    def live(self, model: str) -> list[Batch]:
        """Those that are not over, in the order in which they came."""
        sql = f"SELECT * FROM batches WHERE model = ? AND {_IS_LIVE} ORDER BY rowid"
        return [_batch(row) for row in self._state.rows(sql, model)]

    def cancel(self, tenant: str, id: str) -> Batch:
        """Raises UnknownName, and BadRequest for one that is over, or nearly."""
        self.find(tenant, id)
        self._turn(id, "cancelling", ("validating", "in_progress"))
        batch = self.find(tenant, id)
        if batch.status not in ("cancelling", "cancelled"):
            raise BadRequest(f"it is {batch.status}: nothing is left to cancel", "status")
        return batch

    def refuse(self, id: str, problems: Sequence[Problem]) -> None:
        """For the `problems` that were found in its input: the batch has failed."""
        self._turn(id, "failed", ("validating",), problems=_said(problems))
        self.input(id).unlink(missing_ok=True)

    def accept(self, id: str, num_lines: int) -> None:
        """Its input is valid: results are taken from now on."""
        self._turn(id, "in_progress", ("validating",), num_lines=num_lines)

    def conclude(self, id: str, *, is_late: bool) -> None:
        """No more results are taken: all are there, or it is too late for the others."""
        late = {"expired_at": int(time.time())} if is_late else {}
        self._turn(id, "finalizing", ("in_progress",), **late)

    def record(self, id: str, result: Result) -> None:
        """For good; nothing where the batch is no longer in progress."""
        counts = {"num_completed" if result.is_success else "num_failed": 1}
        counts |= {column: getattr(result, column) for column in _TOKENS}
        sums = ", ".join(f"{column} = {column} + ?" for column in counts)
        with self._state.change() as connection:
            sql = f"UPDATE batches SET {sums} WHERE id = ? AND status = 'in_progress'"
            if connection.execute(sql, [*counts.values(), id]).rowcount:
                self._results.insert(connection, id, result)

    def lines_left(self, batch: Batch) -> Iterator[Line]:
        """The lines without a result. None where the input is gone: `finish` tells of it."""
        recorded = self._results.lines(batch.id)
        with suppress(FileNotFoundError):
            for line in lines(self.input(batch.id), batch.endpoint):
                if line.number not in recorded:
                    yield line

    def finish(self, id: str) -> None:
        """From finalizing or cancelling to the end: the files are there, the results gone, or all
        is as before. What has no result is in the error file, or where the input is gone a
        problem."""
        batch, has_input = self._get(id), self.input(id).exists()
        num_left = batch.num_lines - batch.num_completed - batch.num_failed
        asking = f"ask again for the {num_left} lines without a result"
        lost = {} if has_input or not num_left else {"problems": _said([input_lost(asking)])}
        with self._files.draft() as output, self._files.draft() as errors:
            for result in self._one_a_line(batch) if has_input else self._results.of(id):
                (output if result.is_success else errors).contents.write(result.entry)
            written = {
                field: draft.file(
                    batch.tenant, f"{id}_{name}", "batch_output", batch.output_seconds
                )
                for (field, name), draft in zip(_WRITTEN.items(), (output, errors), strict=True)
                if draft.contents.tell()
            }
            ids = {field: file.id for field, file in written.items()}
            with self._state.change() as connection:
                for file in written.values():
                    self._files.insert(connection, file)
                self._results.delete(connection, id)
                counts = {"num_failed": batch.num_failed + num_left}
                _turn(connection, id, _end(batch), (batch.status,), **counts, **ids, **lost)
            output.is_kept, errors.is_kept = (field in written for field in _WRITTEN)
        self.input(id).unlink(missing_ok=True)

    def _one_a_line(self, batch: Batch) -> Iterator[Result]:
        """In the order of lines."""
        if batch.in_progress_at is None:
            return
        recorded = self._results.of(batch.id)
        result = next(recorded, None)
        for line in lines(self.input(batch.id), batch.endpoint):
            if result and result.line == line.number:
                yield result
                result = next(recorded, None)
            else:
                yield Result(line.number, is_success=False, entry=_undone(batch, line))

    def clear_up(self) -> None:
        """Inputs that a crash left."""
        with self._state.change() as connection:  # nobody creates one meanwhile
            rows = connection.execute(f"SELECT id FROM batches WHERE {_IS_LIVE}")
            live = {self.input(row["id"]) for row in rows}
            for path in set(self.folder.glob("*.jsonl")) - live:
                path.unlink(missing_ok=True)

    def _get(self, id: str) -> Batch:
        return _found(self._state.rows("SELECT * FROM batches WHERE id = ?", id), id)

    def _turn(
        self, id: str, status: Status, before: Sequence[Status], **columns: str | int
    ) -> None:
        with self._state.change() as connection:
            _turn(connection, id, status, before, **columns)


def _turn(
    connection: Connection,
    id: str,
    status: Status,
    before: Sequence[Status],
    **columns: str | int,
) -> None:
    """Into `status`, and `columns` with it; nothing where it was in none of `before`."""
    columns |= {"status": status, f"{status}_at": int(time.time())}
    changes = ", ".join(f"{column} = ?" for column in columns)
    marks = ", ".join("?" * len(before))
    sql = f"UPDATE batches SET {changes} WHERE id = ? AND status IN ({marks})"
    connection.execute(sql, [*columns.values(), id, *before])


def _end(batch: Batch) -> Status:
    if batch.status == "cancelling":
        return "cancelled"
    return "completed" if batch.expired_at is None else "expired"


def _undone(batch: Batch, line: Line) -> bytes:
    if _end(batch) == "cancelled":
        return unanswered(line, "batch_cancelled", "the batch was cancelled before this line ran")
    problem = f"the line did not run within {WINDOW // 3600} hours: ask for it again"
    return unanswered(line, "batch_expired", problem)


def _said(problems: Sequence[Problem]) -> str:
    return msgspec.json.encode(problems).decode()


def _found(rows: Sequence[Row], id: str) -> Batch:
    if not rows:
        raise UnknownName("the list of batches", id[:100], close=[])
    return _batch(rows[0])


def _batch(row: Row) -> Batch:
    return Batch(**dict(row))
