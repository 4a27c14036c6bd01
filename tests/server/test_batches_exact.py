"""Batches over a real engine: beside interactive requests, and through kill -9."""

import asyncio
import random
import re
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from signal import SIGKILL, SIGTERM

import httpx
import openai
import pytest
from batching import asked, client_of, ended, entries, reached, started
from checkpoints import write_tiny
from echoes import EchoEngine
from leavers import leave
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.server.state import State


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")


def line(k, **fields):
    """Two of three have a seed of their own. Prompts are long and short, and share a beginning."""
    text = "the words of the line " * (1 + 4 * (k % 3)) + str(k)
    seed = {} if k % 3 == 0 else {"seed": k}
    shape = {"max_tokens": 8 + k % 24, "ignore_eos": True, "model": "tiny", **seed}
    return asked(k, text, **shape, **fields)


def done(batch):
    return batch.request_counts.completed


def metrics(client):
    return httpx.get(str(client.base_url).replace("/v1/", "/metrics")).text


def said(choice):
    return choice["message"]["content"], choice["logprobs"], choice["finish_reason"]


def answers(client, batch):
    """custom_id -> what was said and with which seed; each id is there once."""
    lines = entries(client, batch.output_file_id)
    found = {one["custom_id"]: one["response"]["body"] for one in lines}
    assert len(found) == len(lines) == batch.request_counts.total
    return {id: (said(body["choices"][0]), body["seed"]) for id, body in found.items()}


def alone(client, body):
    reply = client.chat.completions.with_raw_response.create(
        **{name: value for name, value in body.items() if name != "ignore_eos"},
        extra_body={"ignore_eos": True},
    )
    return said(reply.http_response.json()["choices"][0])


def test_a_batch_and_its_guests_get_what_they_would_get_alone(model):
    # Some have more choices than there is room for beside others: these wait, and are answered.
    lines = [line(k, logprobs=True, n=1 if k % 4 else 5) for k in range(40)]
    guests = [line(100 + 3 * k + 1)["body"] for k in range(8)]
    config = Config(str(model), memory=64 << 20, max_running=4, max_waiting=4, step_tokens=32)
    with serving(AsyncEngine(config)) as (_, url), client_of(url) as client:
        quiet = [alone(client, guest) for guest in guests]
        batch = started(client, lines)
        reached(client, batch, lambda now: now.status == "in_progress")
        assert [alone(client, guest) for guest in guests] == quiet
        batch = ended(client, batch)
        assert (batch.status, batch.error_file_id) == ("completed", None)
        found = answers(client, batch)
        for one in lines[::5]:
            heard, seed = found[one["custom_id"]]
            assert alone(client, one["body"] | {"seed": seed}) == heard


PROGRAM = """
import os
import sys
from pathlib import Path
from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.server.process import Server, listen
from octavo.server.state import State
model, home = sys.argv[1:]
listener = listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
engine = AsyncEngine(Config(model, memory=64 << 20, max_running=4, threads=1))

class Begun:
    def __init__(self, reply):
        with open(Path(home) / f"{os.getpid()}.begun", "a") as log:
            print(repr(engine.tokenizer.decode(reply.prompt_ids[0])), file=log)

    def hear(self, index, event):
        pass

    close = lambda self: None

Server(engine, state=State(Path(home) / "state.db"), listeners=[Begun]).run([listener])
"""


@contextmanager
def process(model, home):
    """A server of its own and a client of it; killed at the end."""
    command = [sys.executable, "-c", PROGRAM, str(model), str(home)]
    with (
        (home / "log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            with client_of(url) as client:
                yield server, client
        finally:
            server.kill()


def numbers_begun(home, server):
    """Of the lines that this process began, as often as it did."""
    path = home / f"{server.pid}.begun"
    said = path.read_text().splitlines() if path.exists() else []
    return [int(found[1]) for one in said if (found := re.search(r"of the line (\d+)", one))]


def numbers_recorded(home):
    """Of the lines that have their result, while nobody runs."""
    with closing(State(home / "state.db")) as state:
        return {row["line"] - 1 for row in state.rows("SELECT line FROM batch_results")}


@contextmanager
def disturbed(client, chance):
    """Meanwhile clients come and leave, and what others want in the background is cancelled."""
    is_over = threading.Event()
    place = str(client.base_url).removeprefix("http://").split("/")[0].split(":")

    async def some_leave():
        chances = [random.Random(chance.random()) for _ in range(3)]
        await asyncio.gather(*(leave(place, one) for one in chances), return_exceptions=True)

    def disturb():
        while not is_over.wait(0.05):
            asyncio.run(some_leave())
            with suppress(openai.APIError):  # it is killed or drains, or all was over before
                made = client.responses.create(
                    model="tiny", input="not for long", max_output_tokens=900, background=True
                )
                other = started(client, [asked(k, "nor this", model="tiny") for k in range(9)])
                client.responses.cancel(made.id)
                client.batches.cancel(other.id)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.processes
def test_killed_again_and_again_it_completes_each_line_once_bit_for_bit(model, tmp_path):
    """Beside clients that leave and cancel; once it is told to end, and drains."""
    lines, rng = [line(k, logprobs=True) for k in range(120)], random.Random(5)
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    quiet.mkdir()
    killed.mkdir()
    with process(model, quiet) as (_, client):
        undisturbed = answers(client, ended(client, started(client, lines), 120))
    with process(model, killed) as (server, client):
        batch = started(client, lines)
        server.send_signal(SIGKILL)  # perhaps before it was checked
    for enough, end in ((5, SIGKILL), (30, SIGTERM), (60, SIGKILL), (90, SIGKILL)):
        recorded = numbers_recorded(killed)
        with process(model, killed) as (server, client), disturbed(client, rng):
            wanted = enough + rng.randrange(10)
            now = reached(client, batch, lambda now, n=wanted: done(now) >= n, 60)
            assert now.status == "in_progress"
            server.send_signal(end)
            assert server.wait(20) == (0 if end == SIGTERM else -SIGKILL)
        begun = numbers_begun(killed, server)
        assert len(begun) == len({*begun} - recorded)
    recorded = numbers_recorded(killed)
    with process(model, killed) as (server, client):
        with disturbed(client, rng):
            batch = ended(client, batch, 120)
        assert sorted(numbers_begun(killed, server)) == sorted({*range(120)} - recorded)
        wait_until(lambda: 'group="0",model_name="tiny",state="held"} 0.0' in metrics(client))
        assert (batch.status, batch.error_file_id) == ("completed", None)
        assert batch.request_counts.completed == 120
        found = answers(client, batch)
        for one in lines:
            id, (heard, seed) = one["custom_id"], found[one["custom_id"]]
            if "seed" in one["body"]:
                assert (heard, seed) == undisturbed[id]
            else:
                assert heard == alone(client, one["body"] | {"seed": seed})
        wait_until(lambda: not list((killed / "batches").glob("*.jsonl")), 30)
        ends = [other.status for other in client.batches.list()]
        assert ends.count("cancelled") > 4  # it was disturbed
        known = {file.id for file in client.files.list()}
        assert known <= {file.name for file in (killed / "files").iterdir()}
    assert "Traceback" not in (killed / "log").read_text()


@pytest.mark.processes
def test_a_server_that_is_told_to_end_leaves_the_rest_to_the_next(model, tmp_path):
    lines = [line(k) for k in range(120)]
    with process(model, tmp_path) as (server, client):
        batch = started(client, lines)
        reached(client, batch, lambda now: now.request_counts.completed >= 5, 60)
        server.send_signal(SIGTERM)
        assert server.wait(10) == 0
    sql = "SELECT status, num_completed FROM batches"
    state = State(tmp_path / "state.db")
    (row,) = state.rows(sql)
    state.close()
    assert row["status"] == "in_progress"
    assert 5 <= row["num_completed"] < 120
    with process(model, tmp_path) as (_, client):
        batch = ended(client, batch, 120)
        assert (batch.status, batch.request_counts.completed) == ("completed", 120)
        assert len(answers(client, batch)) == 120
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.processes
def test_fifty_thousand_lines_are_taken(tmp_path):
    """Through the front door; the lines themselves are refused by the engine, at once."""
    with (
        serving(EchoEngine(), state=State(tmp_path / "state.db")) as (_, url),
        client_of(url) as client,
    ):
        batch = started(client, [asked(k, model="other") for k in range(50_000)])
        reached(client, batch, lambda now: now.status == "in_progress", 20)
        assert client.batches.retrieve(batch.id).request_counts.total == 50_000
        client.batches.cancel(batch.id)
        batch = ended(client, batch)
        assert (batch.status, batch.request_counts.failed) == ("cancelled", 50_000)
        assert len(entries(client, batch.error_file_id)) == 50_000
        batch = ended(client, started(client, [asked(k) for k in range(50_001)]))
        assert (batch.status, batch.errors.data[0].code) == ("failed", "too_many_lines")
