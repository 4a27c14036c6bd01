"""octavo.AsyncEngine over a tiny model: many listeners, one engine thread, nobody left waiting."""

import asyncio
import dataclasses
import subprocess
import sys
import time

import pytest
from engines import asked, end, engine_over, run, tokens

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.errors import BadRequest, CapacityError, QueueFull
from octavo.scheduler.forecast import UNKNOWN
from octavo.types import Delta, Finished

PATIENCE = 20  # seconds after which a test gives up
SOON = 5  # seconds in which a step is over, and no answer without end
MANY = 2500  # pages: they hold the whole context
FOREVER = {"max_tokens": None}


def in_loop(coroutine):
    """Runs a test in an event loop, and never for good."""

    async def bounded():
        async with asyncio.timeout(PATIENCE):
            await coroutine

    asyncio.run(bounded())


async def listen(engine, request):
    return [event async for event in engine.submit(request)]


async def is_idle(engine):
    async with asyncio.timeout(SOON):
        while engine.engine.has_work:
            await asyncio.sleep(0.001)
    assert not any(group.held for group in engine.engine.pages)


def test_many_listeners_get_what_each_would_get_alone(llama):
    requests = [asked(str(i), [5 + i] * (3 + 7 * i), seed=i) for i in range(6)]
    alone = [tokens(run(engine_over(llama), one)[one.id]) for one in requests]

    async def test():
        async with AsyncEngine(engine_over(llama)) as engine:
            heard = await asyncio.gather(*[listen(engine, one) for one in requests])
        assert [tokens(events) for events in heard] == alone
        assert all(end(events).reason in ("stop", "length") for events in heard)

    in_loop(test())


def test_it_loads_a_config_when_it_starts(llama_path):
    async def test():
        engine = AsyncEngine(Config(str(llama_path)))
        with pytest.raises(CapacityError, match="has not started"):
            engine.submit(asked())
        async with engine:
            assert (engine.name, engine.max_context) == ("llama", 40_000)
            assert engine.fingerprint.startswith("fp_")
            assert end(await listen(engine, asked())).usage.prompt_tokens == 3

    in_loop(test())


def test_two_loops_may_listen_at_once(llama):
    async def test():
        async with AsyncEngine(engine_over(llama)) as engine:

            def elsewhere():
                return asyncio.run(listen(engine, asked("b", seed=1)))

            here, there = await asyncio.gather(
                listen(engine, asked("a", seed=1)), asyncio.to_thread(elsewhere)
            )
            assert tokens(here) == tokens(there)

    in_loop(test())


@pytest.mark.parametrize("leave", ["aclose", "break", "cancel", "before the first event"])
def test_a_listener_that_leaves_frees_its_sequence(llama, leave):
    async def test():
        async with AsyncEngine(engine_over(llama, num_pages=MANY)) as engine:
            events = engine.submit(asked(**FOREVER))
            if leave == "aclose":
                await anext(events)
                await events.aclose()
            elif leave == "break":
                async for _ in events:
                    break
                del events
            elif leave == "cancel":
                task = asyncio.create_task(listen(engine, asked("b", **FOREVER)))
                await anext(events)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await events.aclose()
            else:
                await events.aclose()
            assert end(await listen(engine, asked("c"))).reason == "length"
            await is_idle(engine)

    in_loop(test())


def test_events_end_after_the_last_and_closing_twice_is_no_harm(llama):
    async def test():
        async with AsyncEngine(engine_over(llama, num_pages=MANY)) as engine:
            events = engine.submit(asked(max_tokens=1))
            assert isinstance(await anext(events), Delta)
            assert isinstance(await anext(events), Finished)
            with pytest.raises(StopAsyncIteration):
                await anext(events)
            await events.aclose()
            await events.aclose()

    in_loop(test())


def test_what_cannot_be_served_is_refused_at_once(llama):
    async def test():
        async with AsyncEngine(engine_over(llama, max_waiting=1, max_running=1)) as engine:
            with pytest.raises(BadRequest, match="prompt"):
                engine.submit(asked(prompt=[]))
            running = engine.submit(asked("a", **FOREVER))
            await anext(running)
            with pytest.raises(BadRequest, match="'a' has not finished"):
                engine.submit(asked("a"))
            with pytest.raises(
                QueueFull, match=r"1 requests .* 2 more would be over the limit of 2"
            ):
                engine.submit_all([asked("b"), asked("c")])
            with pytest.raises(BadRequest, match="'b' has not finished"):
                engine.submit_all([asked("b"), asked("b")])
            assert engine.num_requests == 1
            waiting = engine.submit(asked("b", **FOREVER))  # at once: none of those were taken
            with pytest.raises(QueueFull):
                engine.submit(asked("c"))
            await running.aclose()
            await anext(waiting)
            await waiting.aclose()

    in_loop(test())


def test_the_background_fills_a_queue_of_its_own(llama):
    async def test():
        async with AsyncEngine(engine_over(llama, max_waiting=1, max_running=1)) as engine:
            behind = [dataclasses.replace(asked(id, **FOREVER), is_background=True) for id in "bcd"]
            streams = [engine.submit(behind[0])]
            await anext(streams[0])
            streams.append(engine.submit(behind[1]))
            with pytest.raises(QueueFull):
                engine.submit(behind[2])
            streams.append(engine.submit(asked("guest", **FOREVER)))
            await anext(streams[2])
            assert engine.load.num_running == 1
            assert (engine.load.num_waiting, engine.load.num_background) == (0, 2)
            for stream in streams:
                await stream.aclose()

    in_loop(test())


def test_a_closed_engine_finishes_what_runs_and_says_when_to_come_back(llama):
    async def test():
        async with AsyncEngine(engine_over(llama)) as engine:
            assert engine.is_ready
            listening = asyncio.create_task(listen(engine, asked(max_tokens=20)))
            await asyncio.sleep(0)
            engine.close(reopens_in=7)
            assert not engine.is_ready
            with pytest.raises(CapacityError) as refused:
                engine.submit(asked("late"))
            assert refused.value.retry_after == 7
            assert engine.num_requests == 1
            assert end(await listening).reason == "length"
            assert engine.num_requests == 0
            await engine.stop()
            await engine.start()
            assert engine.is_ready

    in_loop(test())


def test_a_full_queue_says_when_to_come_back_before_anything_has_ended(llama):
    async def test():
        async with AsyncEngine(engine_over(llama, max_waiting=1, max_running=1)) as engine:
            behind = dataclasses.replace(asked("b", **FOREVER), is_background=True)
            streams = [engine.submit(one) for one in (behind, asked("a", **FOREVER))]
            await anext(streams[1])
            streams.append(engine.submit(asked("c", **FOREVER)))
            with pytest.raises(QueueFull) as refused:
                engine.submit(asked("d"))
            assert refused.value.retry_after == UNKNOWN
            for one in streams:
                await one.aclose()

    in_loop(test())


def test_what_was_computed_is_told_also_of_what_nobody_heard(llama):
    async def test():
        async with AsyncEngine(engine_over(llama)) as engine:
            first = engine.submit(asked("a", [5] * 40))
            while engine.num_requests:
                await asyncio.sleep(0.001)
            assert first.num_spent == 48
            usage = end([event async for event in first]).usage
            assert usage.prompt_tokens + usage.completion_tokens == first.num_spent
            again = engine.submit(asked("b", [5] * 40))
            usage = end([event async for event in again]).usage
            assert (usage.cached_tokens, again.num_spent) == (32, 16)

    in_loop(test())


def test_a_full_queue_says_how_often_there_is_room_of_late(llama):
    async def test():
        async with AsyncEngine(engine_over(llama, max_waiting=1, max_running=1)) as engine:
            begin = time.monotonic()
            for k in range(4):
                await listen(engine, asked(str(k), max_tokens=5))
            running = [engine.submit(asked(name, **FOREVER)) for name in "a"]
            await anext(running[0])
            running.append(engine.submit(asked("b", **FOREVER)))
            with pytest.raises(QueueFull) as refused:
                engine.submit(asked("c"))
            assert 0 < refused.value.retry_after < time.monotonic() - begin
            for one in running:
                await one.aclose()

    in_loop(test())


def test_stopping_lets_requests_end_within_the_time_given(llama):
    async def test():
        engine = AsyncEngine(engine_over(llama))
        await engine.start()
        listening = asyncio.create_task(listen(engine, asked(max_tokens=100)))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(engine.stop(drain=PATIENCE))
        await asyncio.sleep(0.01)
        assert end(await listening).reason == "length"
        await stopping
        with pytest.raises(CapacityError, match="not running"):
            engine.submit(asked())

    in_loop(test())


def test_stopping_cancels_whoever_is_left(llama):
    async def test():
        engine = AsyncEngine(engine_over(llama, max_running=1))
        await engine.start()
        listening = [
            asyncio.create_task(listen(engine, asked(str(i), **FOREVER))) for i in range(3)
        ]
        await asyncio.sleep(0)
        await engine.stop()
        assert [end(await task).reason for task in listening] == ["cancelled"] * 3
        await engine.stop()
        await engine.start()
        assert end(await listen(engine, asked())).reason == "length"
        await engine.stop()

    in_loop(test())


def test_a_bug_in_the_engine_leaves_nobody_waiting(llama, monkeypatch, caplog):
    async def test():
        engine = AsyncEngine(engine_over(llama))
        await engine.start()
        first = engine.submit(asked("a", **FOREVER))
        await anext(first)

        def broken():
            raise ZeroDivisionError

        second = engine.submit(asked("b", **FOREVER))
        monkeypatch.setattr(engine.engine, "step", broken)
        for events in (first, second):
            finished = end([event async for event in events])
            assert (finished.reason, finished.seed is not None) == ("error", True)
            assert finished.error.startswith("the engine failed")
        with pytest.raises(CapacityError, match="not running"):
            engine.submit(asked("c"))
        await engine.stop()

    in_loop(test())
    assert "ZeroDivisionError" in caplog.text


def test_a_loop_that_is_gone_holds_nothing(llama):
    async def test():
        async with AsyncEngine(engine_over(llama, num_pages=MANY)) as engine:
            kept = []

            async def submit_and_go():
                kept.append(engine.submit(asked(**FOREVER)))

            await asyncio.to_thread(asyncio.run, submit_and_go())
            await listen(engine, asked("c"))
            await is_idle(engine)

    in_loop(test())


def test_an_idle_engine_uses_no_cpu(llama):
    async def test():
        async with AsyncEngine(engine_over(llama, num_pages=MANY)) as engine:
            await listen(engine, asked())
            await asyncio.sleep(0.05)  # the workers' last spin
            before = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - before < 0.05

    in_loop(test())


@pytest.mark.processes
def test_a_program_may_end_without_stopping_it(llama_path):
    code = (
        "import asyncio, octavo\n"
        "async def main():\n"
        "    global engine, events\n"
        f"    engine = octavo.AsyncEngine(octavo.Config({str(llama_path)!r}))\n"
        "    await engine.start()\n"
        "    params = octavo.SamplingParams(ignore_eos=True)\n"
        "    events = engine.submit(octavo.Request('a', (5, 6, 7), params))\n"
        "    await anext(events)\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
