"""Responses that may be asked for again: rows of the state.

Owns the table `responses`: those that are over, and those that run in the background, as they would
be begun anew. Knows neither HTTP nor what runs. All of it may wait for the disk: call it beside the
event loop.

    open ─▶ [ queued: its body, its claim ] ─close─▶ [ over: its events ] ─▶ a month, or less
                                              add ─▶
"""

import sqlite3
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from octavo.errors import BadRequest, UnknownName, UnknownPrevious
from octavo.server.claim import Claim
from octavo.server.state import State
from octavo.types import Json

KEPT_SECONDS = 30 * 24 * 3600  # as OpenAI keeps them
MAX_BYTES = 1 << 30  # of one tenant; the oldest go first
PRUNED_EVERY = MAX_BYTES // 64  # bytes written


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    tenant: str
    created: int  # seconds since the epoch
    model: str
    previous: str | None  # the one that it goes on from
    items: Sequence[Json]  # its input
    response: bytes  # as an object of the protocol
    events: Sequence[bytes] = ()  # that it came in, by their numbers
    body: bytes = b""  # of one that runs: the request, as it came


@dataclass(frozen=True, slots=True)
class Orphan:
    """It ran in the background when its process ended."""

    id: str
    tenant: str
    created: int
    body: bytes
    response: bytes


class Archive:
    def __init__(self, state: State) -> None:
        self._state, self._claim = state, Claim(state.folder)
        self._unpruned = 0  # bytes written since the last time
        with state.change() as connection:
            connection.execute(
                # What is large comes last: who looks for the rest does not read through it.
                "CREATE TABLE IF NOT EXISTS responses (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, "
                "created INTEGER NOT NULL, model TEXT NOT NULL, previous TEXT, claim TEXT, "
                "size INTEGER NOT NULL, items BLOB NOT NULL, response BLOB NOT NULL, events BLOB, "
                "body BLOB)"
            )
            connection.execute(  # those that run: few, and looked for often
                "CREATE INDEX IF NOT EXISTS running ON responses (model, claim) "
                "WHERE claim IS NOT NULL"
            )
            self._prune(connection)

    def open(self, record: Record) -> None:
        """Of one that runs from now on, and is begun anew should this process end before it."""
        self._insert(record, self._claim.name)

    def close(self, record: Record) -> None:
        """Of one that was open, and is over. Does nothing where another process closed it first, or
        where it was removed meanwhile."""
        events = _packed(record.events)
        size = len(record.response) + len(events or b"")
        with self._state.change() as connection:
            connection.execute(
                "UPDATE responses SET response = ?, events = ?, body = NULL, claim = NULL, "
                "size = LENGTH(items) + ? WHERE id = ? AND claim IS NOT NULL",
                [record.response, events, size, record.id],
            )
            self._written(connection, size)

    def add(self, record: Record) -> None:
        """Of one that is over, and was never open."""
        self._insert(record, None)

    def response(self, id: str, tenant: str) -> bytes:
        """Raises UnknownName, as all that follow do."""
        return self._one("response", id, tenant)

    def items(self, id: str, tenant: str) -> list[Json]:
        return msgspec.json.decode(self._one("items", id, tenant))

    def events(self, id: str, tenant: str) -> list[bytes]:
        packed = self._one("events", id, tenant)
        return zlib.decompress(packed).split(b"\n") if packed else []

    def remove(self, id: str, tenant: str) -> None:
        with self._state.change() as connection:
            sql = "DELETE FROM responses WHERE id = ? AND tenant = ?"
            if not connection.execute(sql, [id, tenant]).rowcount:
                raise _unknown(id)

    def conversation(self, id: str, tenant: str) -> list[Json]:
        """All that was said up to the end of that response. Raises UnknownPrevious, BadRequest."""
        rows = self._state.rows(
            "WITH RECURSIVE chain AS ("
            "SELECT *, 0 AS age FROM responses WHERE id = ?1 AND tenant = ?2 UNION ALL "
            "SELECT r.*, age + 1 FROM responses r JOIN chain ON r.id = chain.previous "
            "WHERE r.tenant = ?2) SELECT * FROM chain ORDER BY age DESC",
            *(id, tenant),
        )
        if not rows or rows[0]["previous"] is not None:
            raise UnknownPrevious(rows[0]["previous"] if rows else id)
        said: list[Json] = []
        for row in rows:
            response = msgspec.json.decode(row["response"])
            if (status := response["status"]) not in ("completed", "incomplete", "cancelled"):
                problem = f"{row['id']} is {status}: go on from one that has ended well"
                raise BadRequest(problem, "previous_response_id")
            said += [*msgspec.json.decode(row["items"]), *response["output"]]
        return said

    def orphans(self, model: str) -> list[Orphan]:
        """Those of processes that have ended: from now on they are this one's. Costs next to
        nothing where there are none."""
        own = self._claim.name
        sql = "SELECT DISTINCT claim FROM responses WHERE model = ? AND claim <> ?"
        others = [row["claim"] for row in self._state.rows(sql, model, own)]
        dead = [claim for claim in others if not self._claim.lives(claim)]
        if not dead:
            return []
        with self._state.change() as connection:
            sql = "UPDATE responses SET claim = ? WHERE model = ? AND claim = ? RETURNING *"
            rows = [row for claim in dead for row in connection.execute(sql, [own, model, claim])]
        rows.sort(key=lambda row: row["created"])
        return [Orphan(*(row[name] for name in Orphan.__slots__)) for row in rows]

    def release(self) -> None:
        """This process ends: what it has not closed is an orphan."""
        self._claim.release()

    def _insert(self, record: Record, claim: str | None) -> None:
        events = _packed(record.events)
        items = msgspec.json.encode(record.items)
        body = record.body if claim else None
        size = len(record.response) + len(items) + len(events or b"") + len(body or b"")
        head = [record.id, record.tenant, record.created, record.model, record.previous]
        with self._state.change() as connection:
            connection.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [*head, claim, size, items, record.response, events, body],
            )
            self._written(connection, size)

    def _written(self, connection: sqlite3.Connection, size: int) -> None:
        self._unpruned += size
        if self._unpruned > PRUNED_EVERY:
            self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> None:
        self._unpruned = 0
        sql = "DELETE FROM responses WHERE created < ?"
        connection.execute(sql, [time.time() - KEPT_SECONDS])
        connection.execute(
            "DELETE FROM responses WHERE id IN (SELECT id FROM (SELECT id, SUM(size) OVER "
            "(PARTITION BY tenant ORDER BY created DESC, id) AS newer FROM responses "
            "WHERE claim IS NULL) WHERE newer > ?)",
            [MAX_BYTES],
        )

    def _one(self, column: str, id: str, tenant: str) -> bytes:
        sql = f"SELECT {column} FROM responses WHERE id = ? AND tenant = ?"
        if not (rows := self._state.rows(sql, id, tenant)):
            raise _unknown(id)
        return rows[0][0]


def _packed(events: Sequence[bytes]) -> bytes | None:
    return zlib.compress(b"\n".join(events)) if events else None


def _unknown(id: str) -> UnknownName:
    return UnknownName("the list of kept responses", id[:100], close=[])
