"""Pods by name: which there should be, which there are, and what to do about the difference. Pure.

A pod's name is its fleet's and its rank. So a listing tells what an answer that was lost would have told, and whoever
watches a fleet knows its pods without a list of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEAD = ("EXITED", "ERROR")
"""Their process has ended; they hold a disk until they are deleted."""
GONE = ("TERMINATED",)
BEGINNING = ("PROVISIONING", "STARTING")
STUCK_SECONDS = 2_700.0
"""In which a pod that is made should run, a large image included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """A pod as a listing shows it."""

    id: str
    name: str
    status: str
    """PROVISIONING, STARTING, RUNNING, EXITED, ERROR or TERMINATED; one that is unknown counts as alive."""
    dollars_per_hour: float
    created_at: float
    """Unix seconds."""

    @property
    def is_alive(self) -> bool:
        """Whether it works, or will."""
        return self.status not in (*DEAD, *GONE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What every pod of a fleet is, but for its rank."""

    image: str
    args: str
    """Of the image's entrypoint, quoted as for a shell."""
    gpu_count: int = 1
    cloud: str = "SECURE"
    min_vcpus: int | None = None
    """Of a GPU."""
    min_memory_gb: int | None = None
    """Of a GPU."""
    disk_gb: int = 50
    min_cuda: str | None = None
    volume: str | None = None
    """Id of a network volume."""
    mount: str = "/workspace"
    """Where the volume lies in a pod."""
    data_centers: tuple[str, ...] = ()
    registry: str | None = None
    """Id of the credentials for a private image."""
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What to do so that there is one pod a rank."""

    alive: Mapping[int, Pod]
    """By rank."""
    dead: tuple[Pod, ...]
    """Their process ended: to be deleted, and made again."""
    extra: tuple[Pod, ...]
    """A second pod of a rank, or one beyond the last rank: to be deleted."""
    missing: tuple[int, ...]
    """Ranks without a pod that is alive."""


def pod_name(fleet: str, rank: int) -> str:
    """The name of one pod."""
    return f"{fleet}-{rank}"


def rank_of(name: str, fleet: str) -> int | None:
    """The rank of the pod of that name; None for one of another fleet, or of something else."""
    rank = name.removeprefix(f"{fleet}-")
    is_ours = rank != name and rank.isascii() and rank.isdecimal() and (rank == "0" or rank[0] != "0")
    return int(rank) if is_ours else None


def own_pods(pods: Iterable[Pod], fleet: str) -> list[Pod]:
    """The pods of a fleet that are still there, dead ones included, by rank and age."""
    ours = [(rank_of(pod.name, fleet), pod) for pod in pods if pod.status not in GONE]
    ranked = [(rank, pod.created_at, pod.id, pod) for rank, pod in ours if rank is not None]
    return [pod for *_, pod in sorted(ranked, key=lambda each: each[:3])]


def find_difference(pods: Iterable[Pod], fleet: str, num_pods: int, *, now: float) -> Difference:
    """What there is against what there should be; of two pods of one rank the older stays, whoever looks.

    A pod that has not begun to run for `STUCK_SECONDS` counts as dead.
    """
    alive: dict[int, Pod] = {}
    dead, extra = [], []
    for pod in own_pods(pods, fleet):
        rank = rank_of(pod.name, fleet)
        assert rank is not None
        is_stuck = pod.status in BEGINNING and now - pod.created_at > STUCK_SECONDS
        if not pod.is_alive or is_stuck:
            dead.append(pod)
        elif rank in alive or rank >= num_pods:
            extra.append(pod)
        else:
            alive[rank] = pod
    missing = tuple(rank for rank in range(num_pods) if rank not in alive)
    return Difference(alive=alive, dead=tuple(dead), extra=tuple(extra), missing=missing)


def request_body(shape: Shape, *, fleet: str, rank: int, num_pods: int, gpu: str) -> dict[str, Any]:
    """The body of the request that makes a pod (`POST /v2/pods`); unknown fields would be refused there."""
    gpu_wish: dict[str, Any] = {"id": gpu, "count": shape.gpu_count}
    wishes = {
        "minVcpuCountPerGpu": shape.min_vcpus,
        "minRamPerGpu": shape.min_memory_gb,
        "minCudaVersion": shape.min_cuda,
    }
    gpu_wish |= {key: value for key, value in wishes.items() if value is not None}
    body: dict[str, Any] = {
        "name": pod_name(fleet, rank),
        "image": shape.image,
        "args": shape.args,
        "disk": shape.disk_gb,
        "cloud": shape.cloud,
        "gpu": gpu_wish,
        "env": {**shape.env, "POD_ID": str(rank), "NUM_WORKERS": str(num_pods)},
    }
    if shape.volume is not None:
        body["mounts"] = {"network": [{"volumeId": shape.volume, "path": shape.mount}]}
    if shape.data_centers:
        body["dataCenterIds"] = list(shape.data_centers)
    if shape.registry is not None:
        body["registry"] = shape.registry
    return body


def hourly(pods: Sequence[Pod]) -> float:
    """Dollars an hour of these pods."""
    return sum(pod.dollars_per_hour for pod in pods)
