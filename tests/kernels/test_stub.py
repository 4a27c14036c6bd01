"""The native module's surface, kept in git so that changing it is a diff; --bless rewrites it."""

import ast
from pathlib import Path

from nanobind.stubgen import StubGen

from octavo.kernels import _cpu, cpu

STUB = Path(cpu.__file__).with_name("_cpu.pyi")
HEADER = "# Written by nanobind.stubgen: pytest tests/kernels/test_stub.py --bless\n"


def test_the_stub_says_what_the_native_module_offers(request):
    generator = StubGen(_cpu)
    generator.put(_cpu)
    offered = HEADER + generator.get()
    if request.config.getoption("--bless"):
        STUB.write_text(offered)
    # Compared as syntax: nanobind's next version may break lines elsewhere.
    assert ast.dump(ast.parse(STUB.read_text())) == ast.dump(ast.parse(offered))
