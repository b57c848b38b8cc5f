"""What a user may set for `assay launch` on clouds that cost money by the hour. Imports nothing heavy."""

import re
from dataclasses import dataclass, field
from typing import Literal

from assay.errors import UsageError
from assay.fleet.launch.settings import HOURS, LaunchSettings, refuse_kind_of_none
from assay.settings import MOST_DEVICES, Settings, positional, within

DOLLARS = within(above=0, at_most=10_000_000)
GIGABYTES = within(at_least=1, at_most=65_536)


@dataclass(frozen=True, kw_only=True)
class RunPodSettings(LaunchSettings):
    """Pods of RunPod, watched until the run verifies or their budget is spent."""

    image: str
    """Container image that has `assay` and no entrypoint, which RunPod could not replace."""
    gpus: int = field(default=1, metadata=within(at_least=1, at_most=MOST_DEVICES))
    """GPUs of a worker."""
    gpu_type: str | None = None
    """Kind of these GPUs, such as RTX4090; several with commas are tried in that order."""
    budget: float | None = field(default=None, metadata=DOLLARS)
    """Dollars that all pods may cost, since the first of the fleet; this or --hours is needed."""
    hours: float | None = field(default=None, metadata=HOURS)
    """Hours for which there may be pods, since the first of the fleet."""
    cloud: Literal["secure", "community"] = "secure"
    """Kind of machines."""
    volume: str | None = None
    """Id of a network volume to mount; pods then start where it lies."""
    mount: str = "/workspace"
    """Folder of a pod where the volume is mounted."""
    disk_gb: int = field(default=50, metadata=GIGABYTES)
    """Disk of a container in GB."""
    min_cuda: str | None = None
    """Oldest CUDA version that a machine's driver may have, such as 12.8."""
    data_centers: tuple[str, ...] = ()
    """Data centers to start in; by default any."""
    registry: str | None = None
    """Id of RunPod's credentials for a private image."""

    def check(self) -> None:
        """Raise UsageError where there is no kind of GPU, no budget, or a mount that is not a folder."""
        if not self.kinds():
            raise UsageError(
                "gpu_type is missing, and RunPod rents out machines by it; set for example --gpu-type RTX4090"
            )
        if self.budget is None and self.hours is None:
            raise UsageError(
                "there is no budget, and pods cost money until they are deleted; set --budget or --hours"
            )
        if self.min_cuda is not None and not re.fullmatch(r"\d+\.\d+", self.min_cuda):
            raise UsageError(f"min_cuda is {self.min_cuda!r}; it must be a version such as 12.8; change it")
        if self.mount != type(self).mount and self.volume is None:
            raise UsageError(
                f"mount is {self.mount!r} and there is no volume to mount there; add --volume ID, or leave --mount out"
            )
        if not self.mount.startswith("/"):
            raise UsageError(
                f"mount is {self.mount!r}; it must be an absolute path of the pods; set --mount /workspace"
            )

    def shared_folders(self) -> tuple[str, ...]:
        """The volume is shared too."""
        return self.shared if self.volume is None else (*self.shared, self.mount)

    def kinds(self) -> tuple[str, ...]:
        """The kinds of GPU in the order to try."""
        return tuple(kind.strip() for kind in (self.gpu_type or "").split(",") if kind.strip())


@dataclass(frozen=True, kw_only=True)
class RunPodStopSettings(Settings):
    """Delete the pods of one fleet."""

    name: str = field(metadata=positional("NAME"))
    """Name of the fleet, as `assay launch runpod` says it."""
    dry_run: bool = False
    """Say what would be deleted, and delete nothing."""


@dataclass(frozen=True, kw_only=True)
class SkyPilotSettings(LaunchSettings):
    """Managed jobs of SkyPilot, one a worker."""

    infra: tuple[str, ...] = ()
    """Clouds to start on, such as aws/us-east-1, runpod or kubernetes; by default any that SkyPilot may use."""
    spot: bool = False
    """Take spot machines, which are replaced when they are taken away."""
    image: str | None = None
    """Container image that has `assay`; by default the machine's own system, with --setup."""
    setup: tuple[str, ...] = ()
    """Lines of shell that install `assay` on a machine, for example 'pip install assay-corpus'."""
    hours: float | None = field(default=None, metadata=HOURS)
    """Hours from submission after which workers drain and are not started again."""
    pool: str | None = None
    """Pool of SkyPilot to run in; its machines, image and volumes are then the pool's."""
    disk_gb: int = field(default=100, metadata=GIGABYTES)
    """Disk of a machine in GB."""
    volumes: tuple[str, ...] = ()
    """Volumes of SkyPilot to mount, each as NAME:/folder."""
    copies: tuple[str, ...] = ()
    """What is copied to each machine before it starts, each as s3://bucket/model:/folder."""
    most_failures: int = field(default=0, metadata=within(at_least=0, at_most=100))
    """How often a worker that failed is started again; one that drained always is, and others do its share."""

    def check(self) -> None:
        """Raise UsageError where nothing installs `assay`, or a volume or copy has no folder."""
        refuse_kind_of_none(self)
        if self.hours is not None and self.most_failures:
            raise UsageError(
                "hours and most_failures are both set, and SkyPilot would start workers again after the hours; keep one"
            )
        if self.image is None and not self.setup and self.pool is None:
            raise UsageError("nothing says where machines get assay from; set --image, --setup or --pool")
        if self.pool is not None:
            for name in ("image", "setup", "volumes", "copies", "spot"):
                if getattr(self, name):
                    raise UsageError(
                        f"pool and {name} are both set, and machines of a pool are as the pool has them; leave "
                        f"--{name} out, and say with --shared which folders they have"
                    )
        for name in ("volumes", "copies"):
            for value in getattr(self, name):
                source, _, folder = value.rpartition(":")
                if not source or not folder.startswith("/") or folder.startswith("//"):
                    raise UsageError(f"{name} has {value!r}; write SOURCE:/folder")

    def mounts(self, name: str) -> dict[str, str]:
        """Folder -> source of `volumes` or `copies`."""
        pairs = [value.rpartition(":") for value in getattr(self, name)]
        return {folder: source for source, _, folder in pairs}

    def shared_folders(self) -> tuple[str, ...]:
        """Volumes are shared, and copies are the same everywhere."""
        return (*self.shared, *self.mounts("volumes"), *self.mounts("copies"))


@dataclass(frozen=True, kw_only=True)
class ModalSettings(LaunchSettings):
    """An app of Modal: functions that wrap commands, deployed once and called from anywhere."""

    image: str | None = None
    """Container image that has `assay`; without one a small Debian with --packages."""
    packages: tuple[str, ...] = ()
    """What to install in place of an image, such as the address of a wheel of `assay`."""
    python: str | None = None
    """Python of the functions where there is no image, by default 3.12."""
    hours: float = field(default=23.0, metadata=within(above=0, at_most=23))
    """Hours after which workers drain; a call of Modal ends after 24."""
    secret: str = "assay-environment"  # noqa: S105  a name
    """Secret of Modal that holds the variables of --env."""
    volumes: tuple[str, ...] = ("assay-models:/models", "assay-data:/data", "assay-cache:/cache")
    """Volumes of Modal for models, inputs and caches, each as NAME:/folder; never for a run."""
    bundle: str | None = None
    """Bundle or cascade that `infer` and `two_stage` load by default, in a volume or the image."""
    most_failures: int = field(default=3, metadata=within(at_least=0, at_most=10))
    """How often a worker that failed is started again."""

    def check(self) -> None:
        """Raise UsageError for a kind of no GPUs, a volume without a folder, or where nothing installs `assay`."""
        refuse_kind_of_none(self)
        if self.image is None and not self.packages:
            raise UsageError("nothing says where functions get assay from; set --image or --packages")
        if self.image is not None and (self.packages or self.python):
            raise UsageError(
                "image is set, and packages and python are for functions without one; leave them out"
            )
        for value in self.volumes:
            name, _, folder = value.partition(":")
            if not name or not folder.startswith("/"):
                raise UsageError(f"volumes has {value!r}; write NAME:/folder, such as assay-models:/models")

    def mounts(self) -> dict[str, str]:
        """Folder -> name of each volume."""
        return {
            folder.rstrip("/"): name for name, _, folder in (value.partition(":") for value in self.volumes)
        }

    def shared_folders(self) -> tuple[str, ...]:
        """Volumes are the same everywhere, for what is only read."""
        return (*self.shared, *self.mounts())
