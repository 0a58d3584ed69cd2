"""Number of threads that a call may use on the CPU."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

from ..forks import is_forked_child

_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def usable_threads() -> int:
    """Number of threads: the least of PyTorch's setting, the affinity, and the CPU quota of the control group.

    It is 1 in a forked child.
    """
    return 1 if is_forked_child() else max(1, min(torch.get_num_threads(), _affinity(), quota() or os.cpu_count() or 1))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def quota() -> int | None:
    """CPU quota of this process in CPUs, rounded up, read once; `None` without one."""
    return cgroup_quota(_MEMBERSHIP, _CGROUPS)


def cgroup_quota(membership: Path, cgroups: Path) -> int | None:
    """CPU quota of a process in CPUs, rounded up: the least of its control groups and all above them; `None` without one.

    Args:
        membership: File with the control groups of the process, as `/proc/self/cgroup`.
        cgroups: Root of the control groups. In a container, this may be the group of the process itself.
    """
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return None
    groups = [line.split(":", 2)[1:] for line in lines]
    quotas = [quota for controllers, group in groups for quota in _quotas(controllers, group, cgroups)]
    return max(1, math.ceil(min(quotas))) if quotas else None


def _quotas(controllers: str, group: str, cgroups: Path) -> Iterator[float]:
    """Yield the quotas in CPUs of a control group and all above it; no `controllers` means version 2."""
    if controllers and "cpu" not in controllers.split(","):
        return
    for path in {*PurePosixPath(group).parents, PurePosixPath(group)}:
        folder = cgroups / controllers / path.relative_to("/")
        try:
            if controllers:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("utf-8") for name in ("quota", "period"))
            else:
                quota, period = (folder / "cpu.max").read_text("utf-8").split()
            if quota != "max" and float(quota) > 0:
                yield float(quota) / float(period)
        except (OSError, ValueError):
            continue
