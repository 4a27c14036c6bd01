"""The file that outlives the process: who opens it first, and which version of it is ours."""

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from threading import Barrier, Timer

import pytest
from typer.testing import CliRunner

from octavo.cli import app
from octavo.errors import BadState
from octavo.server.archive import Archive
from octavo.server.batches import Batches
from octavo.server.files import Files
from octavo.server.keys import Keys, Limits
from octavo.server.replays import Replays
from octavo.server.state import VERSION, State

GOLDEN = Path(__file__).parent / "golden"
OLD = "CREATE TABLE batches (id TEXT PRIMARY KEY, owner TEXT NOT NULL)"


def written(path, version, *statements):
    """As another Octavo left it."""
    with closing(sqlite3.connect(path)) as other:
        for sql in (*statements, f"PRAGMA user_version = {version}"):
            other.execute(sql)
        other.commit()


class Slow(sqlite3.Connection):
    """Each that reads the version thinks about it longer than the one before."""

    pauses = count()

    def execute(self, sql, *values):
        found = super().execute(sql, *values)
        if sql == "PRAGMA user_version":
            time.sleep(0.01 * next(self.pauses))
        return found


def test_of_many_that_open_it_at_once_the_first_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Slow))
    barrier, path = Barrier(8), tmp_path / "state.db"

    def opened(name):
        barrier.wait()
        with closing(State(path)) as state:
            Keys(state).create(name, Limits())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(opened, "abcdefgh"))
    with closing(State(path)) as state:
        assert {key.name for key in Keys(state).all()} == set("abcdefgh")
        assert state.rows("PRAGMA user_version")[0][0] == VERSION


def test_one_that_writes_a_new_file_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "state.db"
    other = sqlite3.connect(path, check_same_thread=False)
    leaves = Timer(0.1, other.close)

    class Met(sqlite3.Connection):
        def execute(self, sql, *values):
            if "journal_mode" in sql and not leaves.ident:
                other.execute("BEGIN IMMEDIATE")
                leaves.start()
            return super().execute(sql, *values)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Met))
    with closing(State(path)) as state:
        assert state.rows("PRAGMA journal_mode")[0][0] == "wal"
    leaves.join()


@pytest.mark.parametrize(
    ("version", "statements"),
    [(0, [OLD]), (VERSION + 1, [OLD]), (VERSION + 1, []), (-VERSION, [])],
)
def test_another_version_is_refused_and_left_as_it_is(tmp_path, version, statements):
    path = tmp_path / "state.db"
    written(path, version, *statements)
    before = path.read_bytes()
    with pytest.raises(BadState) as refused:
        State(path)
    said = str(refused.value)
    assert f"{path} has version {version}, this Octavo reads version {VERSION}" in said
    assert "move the file away" in said
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["state.db"]


@pytest.mark.parametrize("command", [("keys", "list"), ("serve", "--port", "0")])
def test_the_commands_say_so_in_a_sentence(tmp_path, monkeypatch, command):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    written(tmp_path / "state.db", 0, OLD)
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "has version 0" in refused.output
    assert "Traceback" not in refused.output


def test_other_tables_are_another_version(golden):
    """Whoever blesses another file gives it another number: files of the old one are refused."""
    with State.temporary() as state:
        files = Files(state)
        Keys(state)
        asyncio.run(Replays(state).close())
        Batches(state, files)
        archive = Archive(state)
        rows = state.rows("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        archive.release()
    text = "".join(f"{' '.join(row['sql'].split())};\n" for row in rows)
    golden(GOLDEN / f"state_{VERSION}.sql", text.encode())
