"""The launchers by name. One that is added here has its settings in `settings.py` and a command of its own."""

from collections.abc import Mapping
from typing import Any

from assay.fleet.launch.kubernetes import KUBERNETES
from assay.fleet.launch.launcher import Launcher
from assay.fleet.launch.modal import MODAL
from assay.fleet.launch.runpod.launcher import RUNPOD
from assay.fleet.launch.skypilot import SKYPILOT
from assay.fleet.launch.slurm import SLURM

LAUNCHERS: Mapping[str, Launcher[Any]] = {
    launcher.name: launcher for launcher in (SLURM, KUBERNETES, SKYPILOT, RUNPOD, MODAL)
}
