"""Each default model in each home, loaded once for all tests of this folder."""

import pytest

from octavo import LLM

CONTEXT = 4608  # tokens: the fixed text in one window


@pytest.fixture(scope="session", params=["smollm2", "gemma3"])
def name(request):
    return request.param


@pytest.fixture(scope="session")
def path(request, name):
    return request.getfixturevalue(f"{name}_path")


@pytest.fixture(scope="session")
def fast(path):
    """On the best instruction set of this machine."""
    with LLM(path, max_context=CONTEXT) as llm:
        yield llm


@pytest.fixture(scope="session")
def exact(path):
    """The reference home, which reads the same weights as floats."""
    with LLM(path, max_context=CONTEXT, max_running=1, home="reference", kv_dtype="float32") as llm:
        yield llm
