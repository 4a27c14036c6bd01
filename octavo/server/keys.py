"""Who may ask, and how much: keys are made, listed, revoked and recognised here.

    sk-octavo-<id>-<secret>        the id is no secret: it finds the row, and names it to people

Only the SHA-256 of the whole is stored. A secret has 256 random bits, so nothing slower is needed.
"""

import secrets
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from hmac import compare_digest
from sqlite3 import Row

from octavo.errors import BadConfig, Unauthorized, UnknownName
from octavo.server.state import State, insert

PREFIX = "sk-octavo"
MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one key; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # of prompts, unless cached, and of answers
    concurrency: int | None = None  # requests that run or wait, beside the background
    priority: int = 0  # of its requests; lower runs first

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise BadConfig(name, f"{value} is not in [1, {MOST}]: give a number within")
        if not -MOST <= self.priority <= MOST:
            raise BadConfig(
                "priority", f"{self.priority} is not in [-{MOST}, {MOST}]: give a number within"
            )


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    name: str
    created: int  # seconds since the epoch
    limits: Limits


class Keys:
    def __init__(self, state: State) -> None:
        self._state = state
        with state.change() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, "
                "hash BLOB NOT NULL, created INTEGER NOT NULL, requests_per_minute INTEGER, "
                "tokens_per_minute INTEGER, concurrency INTEGER, priority INTEGER NOT NULL)"
            )

    def create(self, name: str, limits: Limits) -> tuple[Key, str]:
        """The key and its text, which is nowhere kept. Names may repeat."""
        key = Key(secrets.token_hex(4), name, int(time.time()), limits)
        text = f"{PREFIX}-{key.id}-{secrets.token_urlsafe(32)}"
        row = {"id": key.id, "name": name, "hash": _hash(text), "created": key.created}
        row |= asdict(limits)
        with self._state.change() as connection:
            insert(connection, "keys", row)
        return key, text

    def all(self) -> list[Key]:
        """Oldest first."""
        return [_key(row) for row in self._state.rows("SELECT * FROM keys ORDER BY rowid")]

    def revoke(self, id: str) -> Key:
        """From the next request on. Raises UnknownName."""
        with self._state.change() as connection:
            sql = "DELETE FROM keys WHERE id = ? RETURNING *"
            if not (rows := connection.execute(sql, [id]).fetchall()):
                raise UnknownName("the list of keys", id[:100], close=[])
        return _key(rows[0])

    def recognise(self, text: str) -> Key:
        """Raises Unauthorized."""
        parts = text.removeprefix(f"{PREFIX}-").split("-", 1)
        rows = self._state.rows("SELECT * FROM keys WHERE id = ?", parts[0])
        # Compared with something in any case, and as long: time tells nothing.
        known = rows[0]["hash"] if rows else bytes(32)
        if not compare_digest(known, _hash(text)) or not rows:
            raise Unauthorized("the API key is not known here: check it, or ask for a new one")
        return _key(rows[0])

    def named(self, id: str) -> Key:
        """Raises Unauthorized."""
        if not (rows := self._state.rows("SELECT * FROM keys WHERE id = ?", id)):
            raise Unauthorized(f"the API key {id} has been revoked")
        return _key(rows[0])

    @property
    def are_there(self) -> bool:
        return bool(self._state.rows("SELECT 1 FROM keys LIMIT 1"))


def tenant_of(key: Key | None) -> str:
    """Whose things and whose share they are; "": those of nobody in particular."""
    return key.id if key else ""


def _hash(text: str) -> bytes:
    return sha256(text.encode(errors="surrogateescape")).digest()


def _key(row: Row) -> Key:
    limits = Limits(**{name: row[name] for name in Limits.__slots__})
    return Key(row["id"], row["name"], row["created"], limits)
