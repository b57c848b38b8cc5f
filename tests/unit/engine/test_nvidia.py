"""What the driver says of its GPUs, and when torch need not be asked."""

import pytest

from assay.embed import place
from assay.engine import devices
from assay.engine.nvidia import describe_gpus
from assay.engine.precision import Target


class FakeLibrary:
    """NVML as far as it is asked: functions fill the buffers that they are given and return 0."""

    def __init__(self, *uuids, mig=0, fails=None):
        self.is_open = False

        def begin():
            self.is_open = True

        def end():
            self.is_open = False

        def fill(buffer, text):
            buffer.value = text.encode()

        answers = {
            "nvmlInit_v2": begin,
            "nvmlShutdown": end,
            "nvmlSystemGetDriverVersion": lambda buffer, _: fill(buffer, "570.1"),
            "nvmlDeviceGetCount_v2": lambda count: setattr(count._obj, "value", len(uuids)),
            "nvmlDeviceGetHandleByIndex_v2": lambda k, handle: setattr(handle._obj, "value", k.value + 1),
            "nvmlDeviceGetMigMode": lambda _, now, pending: setattr(now._obj, "value", mig),
            "nvmlDeviceGetUUID": lambda handle, buffer, _: fill(buffer, uuids[handle.value - 1]),
        }
        for name, answer in answers.items():
            setattr(self, name, lambda *given, answer=answer: answer(*given) or 0)
        if fails is not None:
            setattr(self, fails, lambda *_: 999)


def test_what_the_driver_says():
    """Its version, each GPU, and the variables that choose among them; its library is closed again."""
    library = FakeLibrary("GPU-a", "GPU-b")
    found = describe_gpus(library, {"CUDA_VISIBLE_DEVICES": "1", "HOME": "/"})
    assert found == ("570.1", "GPU-a", "GPU-b", "CUDA_VISIBLE_DEVICES=1")
    assert not library.is_open


@pytest.mark.parametrize(
    "library",
    [
        object(),
        FakeLibrary("GPU-a", mig=1),
        *(
            FakeLibrary("GPU-a", fails=name)
            for name in ("nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetMigMode")
        ),
    ],
    ids=["none", "divided", "init", "count", "uuid", "mig"],
)
def test_no_answer(library):
    """A driver that does not tell, and a GPU that is divided, leave the question to torch."""
    assert describe_gpus(library, {}) is None


def test_torch_is_asked_once_for_the_same_gpus(monkeypatch, tmp_path):
    """What it can use is noted for these GPUs, this torch and this environment; that it found none is not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    driver = tmp_path / "driver"
    driver.touch()
    monkeypatch.setattr(place.machine, "GPU_DRIVER_FILES", (driver,))
    asked = []
    there = [Target(kind="cpu")]

    def available():
        asked.append(True)
        return [devices.Device(name="cpu", hardware="x", memory_bytes=None) for _ in there]

    class Parsed:
        type = "cuda"

    monkeypatch.setattr(devices, "available_devices", available)
    monkeypatch.setattr(devices, "parse_device", lambda _: Parsed)
    monkeypatch.setattr(devices, "target_of", lambda _: Target(kind="cuda", has_bf16=False))
    said = {"gpus": ("570.1", "GPU-a")}
    monkeypatch.setattr(place, "describe_gpus", lambda: said["gpus"])
    there.clear()
    assert place.find_gpus() == place.find_gpus() == []
    assert len(asked) == 2
    there.append(Target(kind="cuda"))
    assert place.find_gpus() == place.find_gpus() == [Target(kind="cuda", has_bf16=False)]
    assert len(asked) == 3
    said["gpus"] = ("570.1",)
    there.clear()
    assert place.find_gpus() == []
    said["gpus"] = None
    place.find_gpus()
    assert len(asked) == 5
