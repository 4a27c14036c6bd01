"""Crashes: whenever one comes, every line is answered exactly once and counted rightly."""

import asyncio
import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing

import pytest
from batching import CHAT, asked, jsonl, told
from callers import TOOL
from echoes import EchoEngine
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.server import batch_worker
from octavo.server.batch_results import Result, Results
from octavo.server.batch_worker import BatchWorker
from octavo.server.batches import LIVE, Batches
from octavo.server.desk import Desk
from octavo.server.exchange import UnknownFields
from octavo.server.files import Files
from octavo.server.gate import Gate
from octavo.server.journal import Journal
from octavo.server.metrics import Metrics
from octavo.server.responses import Responses
from octavo.server.state import State

CHANGES = ("accept", "record", "conclude", "finish")


class Crash(Exception):
    pass


class Mortal(Batches):
    """Does nothing more after so many changes; the last may still reach the disk, or not."""

    def __init__(self, state, files, changes, *, reaches_disk):
        super().__init__(state, files)
        self.left, self.reaches_disk = changes, reaches_disk
        self.died = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def __getattribute__(self, name):
        own = super().__getattribute__(name)
        return (lambda *a, **k: self.change(own, *a, **k)) if name in CHANGES else own

    def change(self, own, *arguments, **named):
        self.left -= 1
        if self.left < 0:
            self.loop.call_soon_threadsafe(self.died.set)
        if self.left < 0 and not (self.left == -1 and self.reaches_disk):
            raise Crash
        own(*arguments, **named)
        if self.left < 0:
            raise Crash


class TornFiles(Files):
    """Breaks off between the two files of a batch."""

    @staticmethod
    def insert(connection, file):
        Files.insert(connection, file)
        raise Crash


@asynccontextmanager
async def working(state, batches):
    """A worker over an engine of its own, at work."""
    engine = EchoEngine()
    desk = Desk(engine, Gate(), Journal(Metrics(engine)))
    responses = Responses(desk, state)
    worker = BatchWorker(batches, Files(state), desk, responses, UnknownFields())
    try:
        async with worker.working():
            yield engine
    finally:
        await responses.stop()


async def live_until(path, crash, batch_id):
    """A process's life: until it crashes, or the batch is over. What it asked the engine."""
    with closing(State(path)) as state:
        changes, reaches_disk = crash
        files = Files(state)
        batches = Mortal(state, files, changes, reaches_disk=reaches_disk)
        async with asyncio.timeout(30), working(state, batches) as engine:
            while not batches.died.is_set():
                check_counts(state, batch_id)
                if batches.find("", batch_id).status not in LIVE:
                    break
                await asyncio.sleep(0.001)
        return engine.requests


def check_counts(state, batch_id):
    """Right at every moment until the results are in their files."""
    sql = "SELECT COUNT(*) FROM batch_results WHERE batch = batches.id AND is_success = "
    counts = f"num_completed, ({sql} 1) AS good, num_failed, ({sql} 0) AS bad"
    live = f"SELECT {counts} FROM batches WHERE id = ? AND status IN {LIVE}"
    for row in state.rows(live, batch_id):
        assert (row["num_completed"], row["num_failed"]) == (row["good"], row["bad"])


lines = st.lists(st.sampled_from(["hello", "hello", "?", "!"]), min_size=1, max_size=12)
crashes = st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=4)


@examples(15)
@given(lines=lines, crashes=crashes)
def test_whenever_it_crashes_every_line_is_answered_once(tmp_path_factory, lines, crashes):
    path = tmp_path_factory.mktemp("home") / "state.db"
    with closing(State(path)) as state:
        files = Files(state)
        batch = begun(state, files, [asked(k, text) for k, text in enumerate(lines)])
    for crash in [*crashes, (10**6, True)]:
        asyncio.run(live_until(path, crash, batch.id))
    with closing(State(path)) as state:
        files = Files(state)
        batch = Batches(state, files).find("", batch.id)
        good, bad = (read(files, id) for id in (batch.output_file_id, batch.error_file_id))
        assert batch.status == "completed"
        assert [one["custom_id"] for one in good] == ids_of(lines, "hello")
        assert [one["custom_id"] for one in bad] == ids_of(lines, "?", "!")
        assert {told(one) for one in good} <= {"hello"}
        assert (batch.num_lines, batch.num_completed, batch.num_failed) == (
            len(lines),
            len(good),
            len(bad),
        )
        assert batch.output_tokens == 5 * len(good)
        assert state.rows("SELECT * FROM batch_results") == []
        kept = {path.name for path in (path.parent / "files").iterdir()}
        assert kept == {batch.input_file_id, batch.output_file_id, batch.error_file_id} - {None}
        assert not list((path.parent / "batches").glob("*.jsonl"))


def begun(state, files, lines):
    with files.draft() as draft:
        draft.contents.write(jsonl(lines))
        file = files.keep(draft, "", "in.jsonl", "batch", None)
    return Batches(state, files).create(file, "echo", CHAT, None, None)


def read(files, id):
    text = "" if id is None else files.path(id).read_text()
    return [json.loads(line) for line in text.split("\n") if line]


def ids_of(lines, *texts):
    return [str(k) for k, text in enumerate(lines) if text in texts]


def test_a_line_that_was_cut_off_is_asked_again_with_the_same_seed(tmp_path):
    path = tmp_path / "state.db"
    with closing(State(path)) as state:
        batch = begun(state, Files(state), [asked(k, f"line {k}") for k in range(20)])
    lives = [asyncio.run(live_until(path, crash, batch.id)) for crash in ((3, False), (99, False))]
    first, second = ({request.prompt_ids: request.params.seed for request in one} for one in lives)
    assert first.keys() & second.keys()
    assert all(first[prompt] == second[prompt] for prompt in first.keys() & second.keys())
    assert len({*first.values(), *second.values()}) == 20


@pytest.fixture
def state(tmp_path):
    with closing(State(tmp_path / "state.db")) as state:
        yield state


def test_a_batch_that_breaks_off_while_it_ends_is_as_before(state):
    files = TornFiles(state)
    batch = begun(state, Files(state), [asked("a")])
    batches = Batches(state, files)
    batches.accept(batch.id, 1)
    batches.conclude(batch.id, is_late=True)
    before = batches.find("", batch.id)
    with pytest.raises(Crash):
        batches.finish(batch.id)
    assert batches.find("", batch.id) == before
    assert [file.name for file in (state.folder / "files").iterdir()] == [batch.input_file_id]
    assert batches.input(batch.id).exists()


def test_inputs_that_a_crash_left_are_cleared_up(state):
    batches = Batches(state, Files(state))
    batch = begun(state, Files(state), [asked("a")])
    (batches.folder / "batch_gone.jsonl").touch()
    batches.clear_up()
    assert list(batches.folder.iterdir()) == [batches.input(batch.id)]


def test_of_two_processes_one_does_the_work(state):
    """The other takes over when it ends."""

    async def both():
        batches = Batches(state, Files(state))
        one = working(state, Batches(state, Files(state)))
        other = working(state, Batches(state, Files(state)))
        async with one as first, other as second:
            batch = begun(state, Files(state), [asked(k) for k in range(20)])
            while batches.find("", batch.id).status in LIVE:
                await asyncio.sleep(0.01)
            requests = [len(engine.requests) for engine in (first, second)]
        assert sorted(requests) == [0, 20]

    asyncio.run(both())


def result(number, **fields):
    return Result(number, is_success=True, entry=b"{}\n", **fields)


def test_only_a_batch_in_progress_takes_results_and_one_a_line(state):
    batches = Batches(state, Files(state))
    batch = begun(state, Files(state), [asked(k) for k in range(3)])
    batches.record(batch.id, result(1))
    assert Results(state).lines(batch.id) == set()
    batches.accept(batch.id, 3)
    counts = {"input_tokens": 3, "cached_tokens": 2, "output_tokens": 5, "reasoning_tokens": 4}
    batches.record(batch.id, result(1, **counts))
    with pytest.raises(sqlite3.IntegrityError):
        batches.record(batch.id, result(1, input_tokens=3))
    now = batches.cancel("", batch.id)
    batches.record(batch.id, result(2))
    assert Results(state).lines(batch.id) == {1}
    assert batches.find("", batch.id) == now
    assert (now.num_completed, now.num_failed) == (1, 0)
    assert {name: getattr(now, name) for name in counts} == counts
    batches.conclude(batch.id, is_late=True)
    assert batches.find("", batch.id) == now
    batches.finish(batch.id)
    assert batches.find("", batch.id).status == "cancelled"


@pytest.mark.thorough
def test_a_batch_that_something_went_wrong_with_is_taken_up_again(state, monkeypatch, caplog):
    monkeypatch.setattr(batch_worker, "AFTER_FAILURE", 0.01)

    class FullDisk(Batches):
        times = 2

        def record(self, id, result):
            if self.times:
                self.times -= 1
                raise OSError("no space left on device")
            super().record(id, result)

    async def work():
        batches = FullDisk(state, Files(state))
        batch = begun(state, Files(state), [asked(k) for k in range(20)])
        async with asyncio.timeout(30), working(state, batches):
            while batches.find("", batch.id).status in LIVE:
                await asyncio.sleep(0.01)
        return batches.find("", batch.id)

    batch = asyncio.run(work())
    assert (batch.status, batch.num_completed) == ("completed", 20)
    assert f"batch {batch.id} is taken up again later" in caplog.text


@pytest.mark.parametrize("held", [(Batches, "record"), (Desk, "prepare")])
def test_the_threads_of_whoever_asks_now_are_left_alone(state, monkeypatch, held):
    """Every line would take one here, for as long as it likes."""
    own, is_held, may_go = getattr(*held), threading.Event(), threading.Event()

    def slow(*arguments):
        is_held.set()
        may_go.wait()
        return own(*arguments)

    monkeypatch.setattr(*held, slow)

    async def work():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        batches = Batches(state, Files(state))
        batch = begun(state, Files(state), [asked(k, tools=[TOOL]) for k in range(20)])
        async with asyncio.timeout(30), working(state, batches):
            try:
                while not is_held.is_set():
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)  # others follow, as many as may
                async with asyncio.timeout(5):
                    await asyncio.to_thread(int)
            finally:
                may_go.set()
            while batches.find("", batch.id).status in LIVE:
                await asyncio.sleep(0.01)
        return batches.find("", batch.id)

    assert asyncio.run(work()).status == "completed"


async def worked_off(state, batch):
    batches = Batches(state, Files(state))
    async with asyncio.timeout(10), working(state, Batches(state, Files(state))) as engine:
        while batches.find("", batch.id).status in LIVE:
            await asyncio.sleep(0.01)
    assert not engine.requests
    return batches.find("", batch.id)


def test_a_batch_whose_input_was_lost_before_it_was_read_has_failed(state):
    batch = begun(state, Files(state), [asked(k) for k in range(3)])
    Batches(state, Files(state)).input(batch.id).unlink()
    over = asyncio.run(worked_off(state, batch))
    (problem,) = json.loads(over.problems)
    assert (over.status, problem["code"]) == ("failed", "input_lost")
    assert (over.output_file_id, over.num_failed) == (None, 0)


@pytest.mark.parametrize("end", ["completed", "expired", "cancelled"])
@pytest.mark.parametrize("num_lines", [1, 3])
def test_a_batch_whose_input_was_lost_ends_with_what_was_answered(state, end, num_lines):
    batch = begun(state, Files(state), [asked(k) for k in range(num_lines)])
    batches = Batches(state, Files(state))
    batches.accept(batch.id, num_lines)
    batches.record(batch.id, result(1))
    batches.input(batch.id).unlink()
    if end == "cancelled":
        batches.cancel("", batch.id)
    if end == "expired":
        batches.conclude(batch.id, is_late=True)
    over = asyncio.run(worked_off(state, batch))
    assert (over.status, over.error_file_id) == (end, None)
    assert (over.num_completed, over.num_failed) == (1, num_lines - 1)
    assert Files(state).path(over.output_file_id).read_bytes() == b"{}\n"
    problems = json.loads(over.problems or "[]")
    assert [one["code"] for one in problems] == ["input_lost"] * (num_lines > 1)
    assert all("2 lines" in one["message"] for one in problems)
