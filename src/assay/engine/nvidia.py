"""NVIDIA's driver asked for its GPUs through its own library (NVML), in milliseconds and without torch.

Says what is there now, not whether this torch can use it: that torch alone knows, once for each answer.
"""

import ctypes
import os
from collections.abc import Mapping
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"
_VARIABLES = ("CUDA_", "NVIDIA_")
_TEXT_BYTES = 96
_MIG_IS_OFF = 0
_NOT_SUPPORTED = 3


class _NoAnswerError(Exception):
    pass


def describe_gpus(library: Any = None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:  # noqa: ANN401  what ctypes loads is untyped
    """The driver's version, each GPU and what the environment says of them; None where the driver does not tell.

    None too where a GPU is divided (MIG): which part of it a process sees is not in its name.
    """
    try:
        nvml = library or ctypes.CDLL(_LIBRARY)
        _ask(nvml.nvmlInit_v2)
        try:
            gpus = [_text(nvml.nvmlSystemGetDriverVersion), *map(str, _uuids(nvml))]
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError, _NoAnswerError):
        return None
    told = sorted(f"{name}={value}" for name, value in environment.items() if name.startswith(_VARIABLES))
    return (*gpus, *told)


def _uuids(nvml: Any) -> list[str]:  # noqa: ANN401
    count = ctypes.c_uint()
    _ask(nvml.nvmlDeviceGetCount_v2, ctypes.byref(count))
    found = []
    for index in range(count.value):
        handle = ctypes.c_void_p()
        _ask(nvml.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(index), ctypes.byref(handle))
        now, pending = ctypes.c_uint(), ctypes.c_uint()
        status = nvml.nvmlDeviceGetMigMode(handle, ctypes.byref(now), ctypes.byref(pending))
        if status not in {0, _NOT_SUPPORTED} or now.value != _MIG_IS_OFF:
            raise _NoAnswerError
        found.append(_text(nvml.nvmlDeviceGetUUID, handle))
    return found


def _text(function: Any, *arguments: object) -> str:  # noqa: ANN401
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    _ask(function, *arguments, buffer, ctypes.c_uint(_TEXT_BYTES))
    return buffer.value.decode()


def _ask(function: Any, *arguments: object) -> None:  # noqa: ANN401
    if function(*arguments) != 0:
        raise _NoAnswerError
