"""What this process may use of the machine: bytes of memory, and CPUs.

Reads /proc and control groups (versions 1 and 2), so that a container's share counts and not its
host's. Decides nothing.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

SLACK = 256 << 20  # bytes left for Python, the tokenizer and the next program
SLACK_SHARE = 16  # and one part in so many of what is free

ROOT = Path("/")  # tests put a tree of their own here


def free_memory(root: Path = ROOT) -> int:
    """Bytes that weights, buffers and pages may take."""
    free = min([_available(root), *_cgroup_rooms(root)])
    return max(0, free - SLACK - free // SLACK_SHARE)


def usable_cpus(root: Path = ROOT) -> int:
    """CPUs this process may run on, no more than its control group's quota lets it keep busy."""
    cpus = len(os.sched_getaffinity(0))
    return max(1, min([cpus, *_cgroup_cpus(root)]))


def _available(root: Path) -> int:
    """The kernel's own estimate of what can be had without swapping."""
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    raise AssertionError("Linux since 3.14 says MemAvailable")


def _cgroup_rooms(root: Path) -> Iterator[int]:
    """Limit minus use of every memory group above this process. Cached file pages can be had back,
    so they are not use."""
    for folder in _cgroup_folders(root, ""):
        yield from _room(folder, "memory.max", "memory.current", "inactive_file")
    for folder in _cgroup_folders(root, "memory"):
        yield from _room(
            folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        )


def _room(folder: Path, limit: str, use: str, cached: str) -> Iterator[int]:
    most, used = _number(folder / limit), _number(folder / use)
    if most is not None and used is not None:
        stat = dict(line.split() for line in (_text(folder / "memory.stat") or "").splitlines())
        yield max(0, most - used + int(stat.get(cached, 0)))


def _cgroup_cpus(root: Path) -> Iterator[int]:
    for folder in _cgroup_folders(root, ""):
        quota, _, period = (_text(folder / "cpu.max") or "max").partition(" ")
        if quota != "max":
            yield math.ceil(int(quota) / int(period))
    for folder in _cgroup_folders(root, "cpu"):
        allowed = _number(folder / "cpu.cfs_quota_us")
        per = _number(folder / "cpu.cfs_period_us")
        if allowed is not None and per and allowed > 0:  # -1: no quota
            yield math.ceil(allowed / per)


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """The group of this process and those above it; "" is version 2, which has one tree for all
    controllers. Inside a container the path may not exist: then its top is the group itself."""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mounts = root / "sys/fs/cgroup"
            top = mounts / controllers if controller else mounts
            below = top / path.lstrip("/")
            yield from (top, *(part for part in (below, *below.parents) if top in part.parents))


def _number(path: Path) -> int | None:
    """None where there is no such file, and where it says "max"."""
    text = _text(path)
    return None if text is None or text == "max" else int(text)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
