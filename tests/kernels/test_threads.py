"""The worker pool, seen from outside: it ends what it is given, and sleeps when it has nothing."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from programs import Compiled, floats, noise, tokens

STEPS = 300


def forward(ops, load):
    """Two stages of many chunks each, with rows of ops before, between and after them."""
    y = ops.linear(ops.embed(load(floats(noise(3, 64)))), load(floats(noise(512, 64, seed=1))))
    return ops.add(y, ops.linear(ops.scale(y, 2.0), load(floats(np.eye(512)))))


def hammer(threads):
    right, program = Compiled(forward).run(tokens(3)), Compiled(forward, threads=threads)
    for _ in range(STEPS):
        np.testing.assert_array_equal(program.run(tokens(3)), right)


def several_at_once():
    """Pools that come and go, some while they still spin, some asleep."""
    programs = [Compiled(forward, threads=threads) for threads in (1, 2, 3)]
    for i in range(30):
        right = programs[0].run(tokens(3))
        programs[1 + i % 2] = Compiled(forward, threads=2 + i % 2)
        for program in programs[1:]:
            np.testing.assert_array_equal(program.run(tokens(3)), right)
        time.sleep(0.001 * (i % 3))


@pytest.mark.processes
@pytest.mark.parametrize("call", ["hammer(1)", "hammer(2)", "hammer(5)", "several_at_once()"])
def test_short_steps_end_and_are_right(call):
    """In a process of its own, so that a hang fails and does not stop all other tests."""
    path = [str(Path(__file__).parent), *sys.path]
    program = f"import sys; sys.path[:] = {path!r}; import test_threads; test_threads.{call}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.thorough
def test_an_idle_pool_uses_no_cpu():
    program = Compiled(forward, threads=5)
    program.run(tokens(3))
    time.sleep(0.05)  # workers wait for the next step awhile before they sleep
    before = time.process_time()
    time.sleep(0.4)
    # One spinning worker would use 0.4 s; waking a thread now and then takes microseconds.
    assert time.process_time() - before < 0.02
    program.run(tokens(3))
