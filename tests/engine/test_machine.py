"""What a process may use, read from trees of files like those of real machines and containers."""

import os

import pytest

from octavo.engine.machine import SLACK, SLACK_SHARE, free_memory, usable_cpus

GIB = 1 << 30


def tree(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1024 kB\nMemAvailable: 8388608 kB\n"
BARE = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n"}
V2 = BARE | {
    "proc/self/cgroup": "0::/user.slice/app\n",
    "sys/fs/cgroup/user.slice/app/memory.max": "max\n",
    "sys/fs/cgroup/user.slice/app/memory.current": f"{GIB}\n",
    "sys/fs/cgroup/user.slice/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/user.slice/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/user.slice/memory.stat": f"anon 5\ninactive_file {GIB}\nfile 7\n",
    "sys/fs/cgroup/user.slice/app/cpu.max": "150000 100000\n",
}
V2_CONTAINER = BARE | {  # the container's own group is the top of what it sees
    "proc/self/cgroup": "0::/docker/5e1f\n",
    "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory.current": "0\n",
    "sys/fs/cgroup/cpu.max": "max 100000\n",
}
V1 = BARE | {
    "proc/self/cgroup": "4:memory:/jobs/7\n2:cpu,cpuacct:/jobs\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/jobs/7/memory.stat": f"total_inactive_file {GIB}\n",
    "sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_quota_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/jobs/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(
    ("files", "room"), [(BARE, 8 * GIB), (V2, 2 * GIB), (V2_CONTAINER, 2 * GIB), (V1, 2 * GIB)]
)
def test_free_memory_is_the_least_that_any_group_leaves(tmp_path, files, room):
    assert free_memory(tree(tmp_path, files)) == room - SLACK - room // SLACK_SHARE


def test_a_group_that_is_full_leaves_nothing(tmp_path):
    full = {"sys/fs/cgroup/memory.current": f"{3 * GIB}\n"}
    assert free_memory(tree(tmp_path, V2_CONTAINER | full)) == 0


@pytest.mark.parametrize(("files", "quota"), [(BARE, 999), (V2, 2), (V2_CONTAINER, 999), (V1, 1)])
def test_cpus_are_those_of_the_process_within_the_quota(tmp_path, files, quota):
    assert usable_cpus(tree(tmp_path, files)) == min(len(os.sched_getaffinity(0)), quota)


def test_this_machine_has_both():
    assert free_memory() > 0
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
