"""The number of threads: PyTorch's setting, the affinity, and the quota of control groups."""

from __future__ import annotations

import os

import pytest
import torch

from blazen_codec_core.torch_backend import cpu_threads
from blazen_codec_core.torch_backend.cpu_threads import cgroup_quota, usable_threads

V2 = "0::/a/b\n"
V1 = "12:memory:/a\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a\n"


def quota(folder, membership, files):
    """Quota with a fake `/proc/self/cgroup`, and a fake `/sys/fs/cgroup` of these files."""
    (folder / "membership").write_text(membership)
    for name, content in files.items():
        path = folder / "cgroups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return cgroup_quota(folder / "membership", folder / "cgroups")


@pytest.mark.parametrize(
    ("membership", "files", "wanted"),
    [
        (V2, {"a/b/cpu.max": "200000 100000\n"}, 2),
        (V2, {"a/b/cpu.max": "150000 100000\n"}, 2),
        (V2, {"a/b/cpu.max": "5000 100000\n"}, 1),
        (V2, {"a/b/cpu.max": "max 100000\n"}, None),
        (V2, {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (V2, {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        (V2, {"a/b/cpu.max": "nonsense\n"}, None),
        (V2, {}, None),
        ("", {}, None),
    ],
)
def test_quota_of_version_2(tmp_path, membership, files, wanted):
    assert quota(tmp_path, membership, files) == wanted


@pytest.mark.parametrize("group", ["cpu,cpuacct/a/b", "cpu,cpuacct"], ids=["host", "container, where the group is the root"])
@pytest.mark.parametrize(("microseconds", "wanted"), [("-1\n", None), ("50000\n", 1), ("350000\n", 4)])
def test_quota_of_version_1(tmp_path, group, microseconds, wanted):
    files = {f"{group}/cpu.cfs_quota_us": microseconds, f"{group}/cpu.cfs_period_us": "100000\n"}
    assert quota(tmp_path, V1, files) == wanted


def test_no_control_groups(tmp_path):
    assert cgroup_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(("pytorch", "affinity", "quota", "usable"), [(8, 4, 2, 2), (8, 3, 4, 3), (1, 3, 4, 1), (2, 2, 2, 2)])
def test_the_least_counts(monkeypatch, pytorch, affinity, quota, usable):
    monkeypatch.setattr(torch, "get_num_threads", lambda: pytorch)
    monkeypatch.setattr(cpu_threads, "_affinity", lambda: affinity)
    monkeypatch.setattr(cpu_threads, "quota", lambda: quota)
    assert usable_threads() == usable


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can set the affinity")
def test_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_threads() == 1
    finally:
        os.sched_setaffinity(0, before)
