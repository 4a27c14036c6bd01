import gc
import os
import ssl
from functools import cache

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its threads spin, ours compute

import pytest
from hypothesis import settings

from octavo.loader import hub

gc.disable()  # while tests are collected: nothing of it is garbage, and it is gone through often

# Each HTTP client would read all authorities anew, 30 ms; none here speaks TLS.
ssl.create_default_context = cache(ssl.create_default_context)

settings.register_profile("thorough", max_examples=100, deadline=None)
settings.register_profile("fast", max_examples=30, deadline=None)
settings.load_profile("fast")  # a share of every property's examples, see examples.py


def pytest_addoption(parser):
    parser.addoption("--bless", action="store_true", help="rewrite golden files")


def pytest_collection_modifyitems(items):
    """What the plain instruction set computes is thorough: most processors never run it."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("instruction_set") == "generic":
            item.add_marker(pytest.mark.thorough)


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture
def golden(request):
    """golden(path, data): data must equal the file; --bless makes it so."""

    def check(path, data):
        if request.config.getoption("--bless"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        assert path.read_bytes() == data

    return check


@pytest.fixture(scope="session")
def smollm2_path():
    """For tests marked `models`: SmolLM2-135M-Instruct in Q4_1, fetched on first use."""
    return hub.resolve("smollm2")


@pytest.fixture(scope="session")
def gemma3_path():
    """For tests marked `models`: Gemma 3 270M, base, in Q4_K_M, fetched on first use."""
    return hub.resolve("gemma3-270m")
