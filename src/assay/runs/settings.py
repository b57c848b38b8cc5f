"""What every kind of run can be told. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.settings import COUNT, Settings, within

Executor = Literal["local", "static", "ray"]


@dataclass(frozen=True, kw_only=True)
class RayAddress(Settings):
    """Where the executor `ray` finds its machines."""

    ray_address: str | None = None
    """Address of the Ray cluster; by default RAY_ADDRESS, or the one on this machine."""


@dataclass(frozen=True, kw_only=True)
class RunPlace(RayAddress):
    """Where a run is, and who works on it."""

    run: str
    """Directory or URL of the run; run the same command again to continue it."""
    executor: Executor = "local"
    """Workers here; static: as one of many machines; ray: on a Ray cluster."""
    rank: int | None = field(default=None, metadata=within(at_least=0))
    """Rank of this machine, from 0; by default from the environment."""
    world_size: int | None = field(default=None, metadata=COUNT)
    """How many machines there are; by default from the environment."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(RunPlace):
    """A run over sources, and how these are cut into units."""

    id_column: str | None = None
    """Column that names a row; by default `id` where it is there, else the row number."""
    unit_rows: int | None = field(default=None, metadata=COUNT)
    """Rows of a unit; by default about a minute of work."""
    limit_rows: int | None = field(default=None, metadata=COUNT)
    """Do only this many rows, the first ones, for a trial."""
    strict: bool = False
    """Stop at the first bad row instead of giving it an error code."""
    dry_run: bool = False
    """Print the plan and do nothing."""
