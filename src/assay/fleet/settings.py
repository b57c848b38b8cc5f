"""What a user may set for `assay join`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.engine.settings import CpuThreads
from assay.runs.settings import RayAddress
from assay.settings import AUTO_OR_COUNT, COUNT, positional, within


@dataclass(frozen=True, kw_only=True)
class JoinSettings(CpuThreads, RayAddress):
    """Help with a run that another command created, until it is whole."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run: bundle, settings and sources are those of its plan."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """How many GPUs, or worker processes where there are none or the run needs none."""
    executor: Literal["local", "ray"] = "local"
    """Workers here; ray: on a Ray cluster."""
    rank: int | None = field(default=None, metadata=within(at_least=0))
    """Rank of this machine, from 0, for a share of its own to begin with; by default from the environment."""
    world_size: int | None = field(default=None, metadata=COUNT)
    """How many machines there are; by default from the environment."""
