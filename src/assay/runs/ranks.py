"""Which of how many static workers this process is: from flags, else from the launcher's environment.

Pure: the environment is passed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from assay.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class RankVariables:
    """The variables by which one launcher tells a process its place."""

    name: str
    rank: str
    world_sizes: tuple[str, ...]
    """Variables that may hold the world size, first found wins."""
    first_rank: str | None = None
    """Variable with the number of the first rank, where it need not be 0."""


RANK_VARIABLES = (
    RankVariables(name="torchrun", rank="RANK", world_sizes=("WORLD_SIZE",)),
    RankVariables(
        name="Slurm array",
        rank="SLURM_ARRAY_TASK_ID",
        world_sizes=("SLURM_ARRAY_TASK_COUNT",),
        first_rank="SLURM_ARRAY_TASK_MIN",
    ),
    RankVariables(
        name="Kubernetes indexed Job", rank="JOB_COMPLETION_INDEX", world_sizes=("NUM_WORKERS", "WORLD_SIZE")
    ),
    RankVariables(name="SkyPilot jobs", rank="SKYPILOT_JOB_RANK", world_sizes=("SKYPILOT_NUM_JOBS",)),
    RankVariables(name="SkyPilot", rank="SKYPILOT_NODE_RANK", world_sizes=("SKYPILOT_NUM_NODES",)),
    RankVariables(name="pods", rank="POD_ID", world_sizes=("NUM_WORKERS",)),
)
"""In order of precedence."""


def find_rank(
    environment: Mapping[str, str], *, rank: int | None = None, world_size: int | None = None
) -> tuple[int, int]:
    """Rank and world size, each from its flag where given, else from the first launcher that set it.

    Raises UsageError where one of the two cannot be found, or they do not fit together.
    """
    found_rank, found_size, where = rank, world_size, "flags"
    for launcher in RANK_VARIABLES:
        if launcher.rank not in environment or (found_rank is not None and found_size is not None):
            continue
        where = launcher.name
        if found_rank is None:
            first = launcher.first_rank and environment.get(launcher.first_rank)
            found_rank = _number(environment, launcher.rank) - int(first or 0)
        if found_size is None:
            names = [name for name in launcher.world_sizes if name in environment]
            found_size = _number(environment, names[0]) if names else None
        break
    if found_rank is None or found_size is None:
        missing = "rank" if found_rank is None else "world size"
        flag = "--rank" if found_rank is None else "--world-size"
        known = ", ".join(launcher.rank for launcher in RANK_VARIABLES)
        msg = f"no {missing} for the static executor; set {flag}, or run where one of {known} is set"
        raise UsageError(msg)
    if found_size < 1 or not 0 <= found_rank < found_size:
        msg = (
            f"rank {found_rank} of world size {found_size} (from {where}); "
            "rank must be from 0 to world size - 1; set --rank and --world-size"
        )
        raise UsageError(msg)
    return found_rank, found_size


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        msg = f"{name}={environment[name]!r} is not a whole number; unset it or set --rank and --world-size"
        raise UsageError(msg) from None
