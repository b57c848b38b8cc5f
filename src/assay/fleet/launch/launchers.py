"""The launchers by name. One that is added here has its settings in `settings.py` and a command of its own."""

from collections.abc import Mapping
from typing import Any

from assay.fleet.launch import kubernetes, modal, skypilot, slurm
from assay.fleet.launch.launcher import Launcher
from assay.fleet.launch.runpod import launcher as runpod

LAUNCHERS: Mapping[str, Launcher[Any]] = {
    "slurm": slurm,
    "kubernetes": kubernetes,
    "skypilot": skypilot,
    "runpod": runpod,
    "modal": modal,
}
