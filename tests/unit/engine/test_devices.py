"""Devices, precisions and cores."""

import pytest
import torch

from assay.engine import devices
from assay.errors import UsageError


def test_the_cpu_is_there_where_no_gpu_is():
    """There is always a device, and it can be described in one line."""
    found = devices.available_devices()
    assert found
    assert devices.parse_device(found[0].name).type in {"cpu", "cuda"}
    assert found[0].hardware in devices.describe()


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99", ""])
def test_an_unknown_device_is_refused(name):
    """A device that does not exist or is not supported is a UsageError."""
    with pytest.raises(UsageError, match="cpu"):
        devices.parse_device(name)


def test_precision_names():
    """Auto means fp32 on a CPU; others must be known."""
    cpu = torch.device("cpu")
    assert devices.parse_precision("auto", cpu) == torch.float32
    assert devices.parse_precision("bf16", cpu) == torch.bfloat16
    with pytest.raises(UsageError, match="fp64"):
        devices.parse_precision("fp64", cpu)


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000", None), ("150000 100000", 1.5), ("garbage", None), ("400000 100000\n", 4)],
)
def test_container_quota_v2(tmp_path, content, cores):
    """cpu.max holds quota and period in microseconds, or "max"."""
    (tmp_path / "cpu.max").write_text(content)
    assert devices.cgroup_cores(tmp_path) == cores


def test_container_quota_v1_and_none(tmp_path):
    """The older files are read too; without any there is no quota."""
    assert devices.cgroup_cores(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("250000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert devices.cgroup_cores(tmp_path) == 2.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert devices.cgroup_cores(tmp_path) is None


def test_threads_follow_the_quota(monkeypatch):
    """A quota below the cores wins, but never goes below one thread."""
    monkeypatch.setattr(devices, "cgroup_cores", lambda: 0.3)
    assert devices.default_num_threads() == 1
    monkeypatch.setattr(devices, "cgroup_cores", lambda: None)
    assert devices.default_num_threads() >= 1
