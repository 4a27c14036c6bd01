"""Whole models in the cpu home: every float of the logits is the same, however a prompt is cut,
placed, accompanied and shared out among threads."""

from itertools import pairwise

import numpy as np
import pytest
from checkpoints import ALL_FORMATS, write_tiny
from programs import Running, pages_for, tiny_model

from octavo.kernels import cpu

LENGTH = 300  # beyond one span of 256 keys
PAGES = pages_for(64 * 16)  # all of them, in no order
OWN, OTHERS = PAGES[:19], [PAGES[19:30], PAGES[30:31], PAGES[31:36]]


class Subject:
    """A model, and the kind of its pages."""

    def __init__(self, path, kind):
        self.model, self.kind = tiny_model(path, cpu), kind

    def running(self, threads=1):
        return Running(cpu, self.model, threads=threads, dtype=self.kind)


@pytest.fixture(scope="module", params=[("llama", "int8"), ("gemma3", "float16")], ids=str)
def subject(request, tmp_path_factory):
    architecture, kind = request.param
    path = tmp_path_factory.mktemp("exact") / "tiny.gguf"
    return Subject(write_tiny(path, architecture, ALL_FORMATS), kind)


def ids(count, seed=0):
    return np.random.default_rng(seed).integers(0, 200, count)


@pytest.fixture(scope="module")
def alone(subject):
    return subject.running().step((ids(LENGTH), 0, OWN))


OTHER_COUNTS = [pytest.param(threads, marks=pytest.mark.thorough) for threads in (1, 3)]


@pytest.mark.parametrize("cuts", [(1,), (16, 255, 256), (7, 123, 299)])
@pytest.mark.parametrize("threads", [2, *OTHER_COUNTS])
def test_a_prompt_cut_anywhere_has_the_same_logits(subject, alone, cuts, threads):
    running = subject.running(threads)
    edges = [0, *cuts, LENGTH]
    parts = [running.step((ids(LENGTH)[first:last], first, OWN)) for first, last in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), alone)


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbours_do_not_change_the_logits(subject, alone, threads):
    running = subject.running(threads)
    before = [(ids(170, 1), 0, OTHERS[0]), (ids(1, 2), 0, OTHERS[1])]
    together = running.step(*before, (ids(LENGTH), 0, OWN), (ids(33, 3), 0, OTHERS[2]))
    np.testing.assert_array_equal(together[171 : 171 + LENGTH], alone)
