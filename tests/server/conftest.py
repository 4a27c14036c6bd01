import pytest
from echoes import EchoEngine
from serving import serving


@pytest.fixture(scope="session")
def echo():
    """(engine, base URL)"""
    engine = EchoEngine()
    with serving(engine) as (_, url):
        yield engine, url


@pytest.fixture(scope="session")
def slow():
    engine = EchoEngine(pace=0.01)
    with serving(engine) as (_, url):
        yield engine, url
