"""Who is who among several processes that train one model: rank, world size and device.

`torchrun`, Slurm (`srun`) and `launch.launch` tell each process its rank in the environment; where none of them does,
there is one process.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from assay.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class RankPlace:
    """What a launcher told this process."""

    launcher: str
    """Its name, for messages."""
    rank: int
    """From 0."""
    world_size: int
    """Processes in all."""
    local_rank: int
    """Rank among the processes of this host."""
    host: str
    """Where rank 0 runs."""
    port: int
    """Where rank 0 answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """This process among those that train together."""

    rank: int
    """From 0; rank 0 writes and reports."""
    world_size: int
    """Processes in all; 1: there is no group."""
    local_rank: int
    """Rank among the processes of this host."""
    device: torch.device
    """What this process computes on."""


# ---------------------------------------------------------------- who is who


def find_place(environment: Mapping[str, str]) -> RankPlace | None:
    """The rank that `torchrun`, Slurm or `launch` gave this process, None where none of them started it.

    A Slurm batch script that calls `assay` without `srun` is one process, whatever the job asked for.
    Raises UsageError where the variables do not fit together.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        launcher, default_host, default_port = "torchrun", None, None
    elif "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        names = ("SLURM_PROCID", size, "SLURM_LOCALID")
        launcher, default_host = "Slurm", first_host(environment.get("SLURM_JOB_NODELIST", ""))
        # Two jobs that share a node are unlikely to meet, two steps of a job never do.
        job, step = _number(environment, "SLURM_JOB_ID", 0), _number(environment, "SLURM_STEP_ID", 0)
        default_port = 15_000 + (job * 37 + step) % 15_000
    else:
        return None
    rank, world_size, local_rank = (
        _number(environment, name, 0 if "LOCAL" in name else None) for name in names
    )
    if world_size < 1 or not 0 <= rank < world_size:
        raise UsageError(
            f"{names[0]}={rank} and {names[1]}={world_size} (from {launcher}); a rank lies from 0 to world "
            f"size - 1; start the processes with {launcher}, or unset both"
        )
    host = environment.get("MASTER_ADDR") or default_host
    port = _number(environment, "MASTER_PORT", default_port if world_size > 1 else 0)
    if not host and world_size > 1:
        raise UsageError(
            f"{names[0]}={rank} but MASTER_ADDR is not set; every rank must know where rank 0 runs; "
            "start with torchrun or srun, or set MASTER_ADDR and MASTER_PORT"
        )
    if world_size > 1 and not 0 < port < 65_536:
        raise UsageError(
            f"MASTER_PORT={port}; the ranks meet at a port from 1 to 65535; set one, or use torchrun --standalone"
        )
    return RankPlace(
        launcher=launcher,
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        host=host or "localhost",
        port=port,
    )


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: "gpu003" of "gpu[003-010,12],login1"; "" of ""."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _number(environment: Mapping[str, str], name: str, default: int | None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise UsageError(
            f"{name}={text!r} is not a whole number; start with torchrun or srun, or set it"
        ) from None


def pick_device(local_rank: int) -> torch.device:
    """The GPU of this process, or the CPU; UsageError for more processes than GPUs."""
    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        return torch.device("cpu")
    index = 0 if num_gpus == 1 else local_rank  # Slurm may show each task its own GPU alone
    if index >= num_gpus:
        raise UsageError(
            f"local rank {local_rank}; this machine has {num_gpus} GPUs; start {num_gpus} processes on it at most"
        )
    return torch.device("cuda", index)
