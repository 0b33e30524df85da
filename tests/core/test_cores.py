"""Cores that a process may use: those of its affinity, and of the CPU quota of its control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from depthsieve.core.processes import cores

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

V1 = "4:memory:{0}\n2:cpu,cpuacct:{0}\n0::/\n"
V2 = "0::{0}\n"


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A folder with the files of control groups that the kernel would show to a process."""
    for name, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{name}": files[name] for name in files}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_cores_are_those_that_this_process_may_run_on(tmp_path: Path) -> None:
    assert cores(tmp_path) == ALLOWED  # a system without control groups
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    script += "from depthsieve.core.processes import cores; print(cores())"
    if hasattr(os, "sched_setaffinity"):
        assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        (V2.format("/"), {"cpu.max": "100000 100000\n"}),  # in a container
        (
            V2.format("/kubepods/pod1/c1"),
            {"kubepods/pod1/cpu.max": "50000 100000\n", "kubepods/cpu.max": "max 100000\n"},
        ),
        (V2.format("/system.slice/c1"), {"cpu.max": "20000 20000\n"}),  # it sees its own group at the top
        (V2.format("/../c2"), {"cpu.max": "20000 20000\n"}),
        (V1.format("/"), {"unified/cpu.max": "100000 100000\n"}),
        (V1.format("/docker/c1"), {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}),
        (
            V1.format("/docker/c1"),
            {"cpu,cpuacct/docker/c1/cpu.cfs_quota_us": "5000\n", "cpu,cpuacct/docker/c1/cpu.cfs_period_us": "50000\n"},
        ),
    ],
)
def test_a_quota_of_a_container_makes_them_fewer(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    assert cores(system(tmp_path, cgroup, files)) == 1


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        (V2.format("/a"), {"cpu.max": "max 100000\n", "a/cpu.max": "max 100000\n"}),
        (V2.format("/a"), {"b/cpu.max": "100000 100000\n"}),  # of another group
        (V2.format("/"), {"cpu.max": "100000000 100000\n"}),  # more than there are
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
        (V1.format("/"), {"memory/cpu.cfs_quota_us": "100000\n", "memory/cpu.cfs_period_us": "100000\n"}),
    ],
)
def test_without_a_quota_that_holds_they_stay(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    assert cores(system(tmp_path, cgroup, files)) == ALLOWED


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or ALLOWED < 2, reason="needs two cores")
def test_a_part_of_a_core_counts_as_one(tmp_path: Path) -> None:
    assert cores(system(tmp_path, V2.format("/"), {"cpu.max": "110000 100000\n"})) == 2
