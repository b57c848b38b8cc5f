"""Devices and precisions."""

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
    assert devices.parse_precision("auto", cpu) == "fp32"
    assert devices.parse_precision("bf16", cpu) == "bf16"
    with pytest.raises(UsageError, match="fp64"):
        devices.parse_precision("fp64", cpu)
