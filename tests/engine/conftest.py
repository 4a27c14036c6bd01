import pytest
from checkpoints import write_tiny

from octavo.config import Config
from octavo.engine.loading import load


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory):
    """Its context is so long that an answer which fills it takes more than any test's patience."""
    path = tmp_path_factory.mktemp("models") / "llama.gguf"
    return write_tiny(path, "llama", "q4_1", context=40_000)


@pytest.fixture(scope="session")
def gemma_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "gemma.gguf"
    return write_tiny(path, "gemma3", ["q5_0", "q8_0"], window=20)


@pytest.fixture(scope="session")
def llama(llama_path):
    return load(Config(str(llama_path)))


@pytest.fixture(scope="session")
def gemma(gemma_path):
    return load(Config(str(gemma_path)))
