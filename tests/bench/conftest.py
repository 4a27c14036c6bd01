import pytest

from octavo.bench import roofline


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """The machine's limits in a moment: what they are does not matter here."""
    monkeypatch.setattr(roofline, "RUNS", 1)
    monkeypatch.setattr(roofline, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(roofline, "ROUNDS", 1000)
