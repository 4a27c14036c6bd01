import pytest
from callers import TEMPLATE
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


@pytest.fixture(scope="session")
def thinker():
    """(engine, base URL): a model that calls tools and reasons."""
    engine = EchoEngine(template=TEMPLATE)
    with serving(engine) as (_, url):
        yield engine, url
