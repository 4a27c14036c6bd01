"""One page of a list, as OpenAI's clients turn them: newest first, after an id, so many.

Owns no table: whoever does has columns `id` and `tenant` in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Row

from octavo.errors import BadRequest
from octavo.server.state import State
from octavo.types import Json


@dataclass(frozen=True, slots=True)
class Page:
    limit: int
    after: str | None = None  # the last id of the page before
    is_oldest_first: bool = False


def rows_of(
    state: State, table: str, page: Page, *, tenant: str, **equal: str | None
) -> tuple[list[Row], bool]:
    """Those whose columns are as `equal` says, None being any, and whether there are more. Raises
    BadRequest for an `after` that is not the tenant's."""
    wanted: dict[str, str | int] = {"tenant": tenant}
    wanted |= {column: value for column, value in equal.items() if value is not None}
    conditions = [f"{column} = ?" for column in wanted]
    if page.after is not None:
        sql = f"SELECT rowid FROM {table} WHERE id = ? AND tenant = ?"
        if not (last := state.rows(sql, page.after, tenant)):
            raise BadRequest(f"{page.after[:100]!r} is not in the list, give an id of it", "after")
        conditions.append("rowid > ?" if page.is_oldest_first else "rowid < ?")
        wanted["after"] = last[0]["rowid"]
    order = "ASC" if page.is_oldest_first else "DESC"
    where = " AND ".join(conditions)
    sql = f"SELECT * FROM {table} WHERE {where} ORDER BY rowid {order} LIMIT ?"
    rows = state.rows(sql, *wanted.values(), page.limit + 1)
    return rows[: page.limit], len(rows) > page.limit


def listed(data: Sequence[Json], *, has_more: bool) -> Json:
    """The envelope."""
    ids = [one["id"] for one in data] or [None]
    return {
        "object": "list",
        "data": data,
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": has_more,
    }
