"""The launchers by name. One that is added here has its settings in `settings.py` and a command of its own."""

from collections.abc import Mapping
from typing import Any

from assay.fleet.launch.kubernetes import KUBERNETES
from assay.fleet.launch.launcher import Launcher
from assay.fleet.launch.slurm import SLURM

LAUNCHERS: Mapping[str, Launcher[Any]] = {launcher.name: launcher for launcher in (SLURM, KUBERNETES)}
