"""How the cpu home reads a checkpoint's file: one copy of the weights at a time, and no crash."""

from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import pytest

from octavo.errors import BadCheckpoint
from octavo.kernels import cpu
from octavo.registry import entry
from octavo.types import RawTensor

MIB = 1 << 20
PEAK = Path("/proc/self/clear_refs")


def mapped(path, form, size):
    """A matrix of 2048 columns over a mapping of a file of about so many bytes."""
    quant = entry("octavo.quant", form)
    row = 2048 // quant.BLOCK * quant.BYTES
    rows = size // row // 8 * 8
    path.write_bytes(bytes(rows * row))
    with path.open("rb") as file:
        data = np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_READ), np.uint8)
    return RawTensor("w", form, (rows, 2048), data.reshape(rows, row))


def memory(which):
    """Bytes: VmRSS now, or VmHWM, the most since PEAK was written."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{which}:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not PEAK.exists(), reason="only Linux tells a process its peak")
@pytest.mark.parametrize("form", ["f16", "q4_k"])
def test_a_file_and_the_weights_made_of_it_are_never_both_in_memory(form, tmp_path):
    size = 48 * MIB
    raw = mapped(tmp_path / "weights", form, size)
    before = memory("VmRSS")
    PEAK.write_text("5")
    with cpu.loader(2) as load:
        weight = load(raw)
    took = memory("VmHWM") - before
    # Beside the weights: a slice for each thread and what is split off it, and pages of 2 MiB.
    assert weight.bytes <= took + 4 * MIB
    assert took < cpu.weight_bytes(weight) + size // 4


def test_a_file_that_became_shorter_is_refused(tmp_path):
    raw = mapped(tmp_path / "weights", "q4_0", 4 * MIB)
    with (tmp_path / "weights").open("r+b") as file:
        file.truncate(2 * MIB)
    for tensor in (raw, replace(raw, format="f32", shape=(raw.data.size // 4,))):
        with pytest.raises(BadCheckpoint, match="shorter before tensor 'w'"):
            cpu.weight(tensor)
