import pytest

from octavo.kernels import _cpu, cpu


@pytest.fixture(params=_cpu.instruction_sets())
def instruction_set(request, monkeypatch):
    """Each one that this machine can run, best first; programs are made for it."""
    monkeypatch.setattr(cpu, "INSTRUCTION_SET", request.param)
    return request.param
