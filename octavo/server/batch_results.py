"""Results of the lines of batches, from when a line is answered until its batch is over.

Owns the table of results. Knows neither what a batch is nor what an entry says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from sqlite3 import Connection

from octavo.server.state import State, insert

MANY = 256  # results that are held while they are read


@dataclass(frozen=True, slots=True)
class Result:
    """Of one line."""

    line: int
    is_success: bool
    entry: bytes  # its line in the output or the error file
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0  # of these, in thoughts


class Results:
    def __init__(self, state: State) -> None:
        self._state = state
        with state.change() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS batch_results (batch TEXT NOT NULL, "
                "line INTEGER NOT NULL, is_success INTEGER NOT NULL, entry BLOB NOT NULL, "
                "PRIMARY KEY (batch, line))"
            )

    @staticmethod
    def insert(connection: Connection, batch: str, result: Result) -> None:
        """Within a change of the caller's. Raises sqlite3.IntegrityError for a second one."""
        row = {"batch": batch, "line": result.line, "is_success": result.is_success}
        insert(connection, "batch_results", row | {"entry": result.entry})

    @staticmethod
    def delete(connection: Connection, batch: str) -> None:
        """Likewise, all of them."""
        connection.execute("DELETE FROM batch_results WHERE batch = ?", [batch])

    def lines(self, batch: str) -> set[int]:
        """The numbers of those that have their result."""
        sql = "SELECT line FROM batch_results WHERE batch = ?"
        return {row["line"] for row in self._state.rows(sql, batch)}

    def of(self, batch: str) -> Iterator[Result]:
        """In the order of lines, without their tokens."""
        sql = (
            "SELECT line, is_success, entry FROM batch_results WHERE batch = ? AND line > ? "
            f"ORDER BY line LIMIT {MANY}"
        )
        last = 0
        while rows := self._state.rows(sql, batch, last):
            for row in rows:
                yield Result(row["line"], bool(row["is_success"]), row["entry"])
            last = rows[-1]["line"]
