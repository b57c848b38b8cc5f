"""Devices and precisions."""

from types import SimpleNamespace

import pytest
import torch

from assay import machine
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
    assert devices.parse_precision("auto", cpu, lambda: None) == "fp32"
    assert devices.parse_precision("bf16", cpu, lambda: None) == "bf16"
    with pytest.raises(UsageError, match="fp64"):
        devices.parse_precision("fp64", cpu, lambda: None)


def test_a_worker_on_a_gpu_stays_near_it(monkeypatch):
    """Its device is looked up on the bus by the address that CUDA gives, whatever the order of the devices there."""
    cards = [SimpleNamespace(pci_domain_id=1, pci_bus_id=bus, pci_device_id=0) for bus in (0x9D, 0x1B)]
    asked, stayed = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", cards.__getitem__)
    monkeypatch.setattr(machine, "stay_on", stayed.append)
    monkeypatch.setattr(machine, "cores_near", lambda *what, **_: asked.append(what) or frozenset({3, 4}))
    devices.stay_near("cuda:1", num_threads=2)
    assert (asked, stayed) == ([(1, ["0001:9d:00.0", "0001:1b:00.0"])], [{3, 4}])
    devices.stay_near("cpu", num_threads=2)
    devices.stay_near("cuda:1", num_threads=None)
    assert len(stayed) == 1
