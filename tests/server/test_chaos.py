"""Ten thousand clients that leave wherever they are, servers that stop under load: what is left.

Everything is drawn from a seed, which a failure names.
"""

import asyncio
import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import httpx
import pytest
from checkpoints import write_tiny
from leavers import PATHS, leave, request
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.engine import Engine

pytestmark = pytest.mark.processes

NUM_LEAVERS, AT_ONCE = 10_000, 24


class Watched(AsyncEngine):
    """Says in which loop it lives."""

    async def start(self):
        self.loop = asyncio.get_running_loop()
        await super().start()


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")
    # A prompt takes up to twenty steps, so that there is a prefill to leave in.
    limits = {"memory": 64 << 20, "max_running": 4, "max_waiting": 12, "step_tokens": 64}
    return Engine(Config(str(path), **limits))


def is_idle(core):
    held = any(group.held for group in core.pages)
    return not (core.num_running or core.num_waiting or held)


async def leave_all(place, seed):
    chances = (random.Random(f"{seed} {k}") for k in range(NUM_LEAVERS))

    async def one_by_one():
        for chance in chances:
            await leave(place, chance)

    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))


def test_ten_thousand_leave_nothing_behind(core, capfd):
    seed = 4
    with serving(engine := Watched(core)) as (server, url):
        host, port = url.removeprefix("http://").split(":")

        def answer(**fields):
            body = {"model": "tiny", "prompt": "The sky is", "max_tokens": 5, "seed": 1} | fields
            return httpx.post(f"{url}/v1/completions", json=body, timeout=60)

        def left():
            """File descriptors, tasks and threads, once nobody is connected."""
            wait_until(lambda: not server.server_state.connections, 30)
            gc.collect()  # what earlier tests left
            files = sorted(os.readlink(f"/proc/self/fd/{n}") for n in files_open())
            kinds = sorted(name.split(":")[0] for name in files)
            tasks = sorted(task.get_coro().__qualname__ for task in asyncio.all_tasks(engine.loop))
            return kinds, tasks, threads()

        answer(stream=True)  # what is made on first use is there
        asyncio.run(leave_some(host, port))
        first, before = answer().json()["choices"][0]["text"], left()
        asyncio.run(leave_all((host, port), seed))
        wait_until(lambda: is_idle(core), 30)
        with suppress(AssertionError):
            wait_until(lambda: left() == before)  # batches are looked after once a second
        assert left() == before, seed
        assert not engine.num_requests
        assert answer().json()["choices"][0]["text"] == first
        finished = httpx.get(f"{url}/metrics").text
        cancelled = re.search(r'finished_total{.*reason="cancelled"} (\d+)', finished)[1]
        assert int(cancelled) > NUM_LEAVERS / 10  # else it shows little
        assert 'octavo_errors_total{model_name="tiny",status="500"}' not in finished
    assert "Traceback" not in "".join(capfd.readouterr())


async def leave_some(host, port):
    """Every kind of them, so that worker threads are there before they are counted."""
    await asyncio.gather(*(leave((host, port), random.Random(k)) for k in range(100)))


def files_open():
    """As a list that does not hold the descriptor with which it was read."""
    there = os.listdir("/proc/self/fd")
    return [number for number in there if os.path.exists(f"/proc/self/fd/{number}")]


def threads():
    """But asyncio's workers, of which there are as many as were busy at a time."""
    return sorted(t.name for t in threading.enumerate() if not t.name.startswith("asyncio_"))


@pytest.mark.parametrize("seed", range(8))
def test_a_server_that_stops_under_load_ends_every_stream(core, seed):
    """Streams that were begun end whole, in the server's words, or by their client; then it can
    start again."""
    chance = random.Random(seed)
    ends = []
    with serving(Watched(core), drain_seconds=chance.choice([0, 0.2])) as (server, url):
        place = url.removeprefix("http://").split(":")

        async def listen():
            head, body = request(chance, chance.choice(PATHS), stream=True)
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(*place)
                writer.write(head + body)
                heard = b""
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.choice([0.05, 30, 30])):
                        while part := await reader.read(1 << 16):
                            heard += part
                        ends.append(heard)
                writer.close()

        async def scene():
            listening = [asyncio.create_task(listen()) for _ in range(30)]
            await asyncio.sleep(chance.uniform(0, 0.5))
            server.end()
            if chance.random() < 0.5:
                server.force_exit = chance.random() < 0.5
            await asyncio.gather(*listening)

        asyncio.run(scene())
    wait_until(lambda: is_idle(core))
    for heard in ends:
        if heard.startswith(b"HTTP/1.1 200"):
            assert b"data: [DONE]" in heard or b"message_stop" in heard or b"event: error" in heard
        else:
            assert not heard or heard.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503")), heard[:300]


@pytest.mark.parametrize("seed", range(5))
def test_sigterm_at_any_time_is_exit_0(tmp_path, seed):
    """Once it is up; a second signal is no crash either."""
    chance = random.Random(seed)
    path = write_tiny(tmp_path / "tiny.gguf")
    arguments = ["serve", str(path), "--port", "0", "--memory", "64MiB", "--drain-seconds", "0.5"]
    command = [sys.executable, "-c", "from octavo.cli import main; main()", *arguments]
    environment = os.environ | {"OCTAVO_HOME": str(tmp_path)}
    log = tmp_path / "log"
    with (
        log.open("w") as said,
        subprocess.Popen(command, stderr=said, stdout=said, env=environment) as server,
    ):
        try:
            wait_until(lambda: "/v1" in log.read_text(), 60)
            url = log.read_text().split("at ", 1)[1].split("/v1")[0]
            wait_until(lambda: is_ready(url), 60)
            host, port = url.removeprefix("http://").split(":")

            async def scene():
                chances = [random.Random(f"{seed} {k}") for k in range(200)]
                leaving = asyncio.gather(
                    *(leave((host, port), one) for one in chances), return_exceptions=True
                )
                await asyncio.sleep(chance.uniform(0, 0.6))
                for _ in range(chance.choice([1, 1, 2])):
                    server.send_signal(signal.SIGTERM)
                    await asyncio.sleep(chance.uniform(0, 0.3))
                await leaving

            asyncio.run(scene())
            assert server.wait(30) == 0, log.read_text()[-2000:]
        finally:
            server.kill()
    assert "Traceback" not in log.read_text(), log.read_text()


def is_ready(url):
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/ready").status_code == 200
    return False
