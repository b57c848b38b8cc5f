"""What a user may set for `assay launch`. Imports nothing heavy: the command line is made from it."""

import shutil
from dataclasses import dataclass, field

from assay.errors import UsageError
from assay.settings import COUNT, MOST_DEVICES, Settings, after_dashes, within

HOURS = within(above=0, at_most=8_760)


@dataclass(frozen=True, kw_only=True)
class LaunchSettings(Settings):
    """One command for many workers, and what each of them needs."""

    command: tuple[str, ...] = field(metadata=after_dashes("COMMAND"))
    """What every worker runs: a command on a run, without `assay` before it."""
    workers: int = field(default=1, metadata=within(at_least=1, at_most=100_000))
    """How many workers share the run."""
    gpus: int = field(default=0, metadata=within(at_least=0, at_most=MOST_DEVICES))
    """GPUs of a worker."""
    gpu_type: str | None = None
    """Kind of these GPUs, as the launcher names it."""
    cpus: int = field(default=4, metadata=COUNT)
    """CPU cores of a worker."""
    memory_gib: int = field(default=16, metadata=COUNT)
    """Memory of a worker in GiB."""
    name: str | None = None
    """Name of the job; by default that of the run's last folder."""
    env: tuple[str, ...] = ()
    """Names of variables that workers need, such as AWS_REGION; values are never written into the file."""
    shared: tuple[str, ...] = ()
    """Folders that every worker sees at the same path: on a shared disk, or in the image."""
    out: str | None = None
    """File for the job; by default it is printed."""
    submit: bool = False
    """Submit it too."""

    def shared_folders(self) -> tuple[str, ...]:
        """The folders that every worker sees at the same path."""
        return self.shared

    def is_submitted_from_the_fleet(self) -> bool:
        """Whether it is submitted, and by a machine that sees the shared folders too."""
        return False


@dataclass(frozen=True, kw_only=True)
class SlurmSettings(LaunchSettings):
    """An array job of Slurm."""

    hours: float | None = field(default=None, metadata=HOURS)
    """Time limit of a task, which then waits for its next turn and goes on; by default that of the partition."""
    environment: str | None = None
    """Folder of the virtual environment that has `assay`; by default the PATH of whoever submits."""
    setup: tuple[str, ...] = ()
    """Lines of shell to run first, such as 'module load cuda'."""
    partition: str | None = None
    """Partition to run in."""
    account: str | None = None
    """Account to charge."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have."""
    logs: str = "."
    """Folder for the log of each task."""
    max_array_size: int | None = field(default=None, metadata=COUNT)
    """MaxArraySize of the cluster; by default the cluster is asked where there is one, else Slurm's own, 1001."""

    def is_submitted_from_the_fleet(self) -> bool:
        """A node where `sbatch` works has the disk that its tasks have."""
        return self.submit and shutil.which("sbatch") is not None

    def check(self) -> None:
        """Raise UsageError for a kind of no GPUs."""
        refuse_kind_of_none(self)


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings(LaunchSettings):
    """An indexed Job of Kubernetes."""

    image: str
    """Container image that has `assay`."""
    hours: float | None = field(default=None, metadata=HOURS)
    """Time limit of the whole Job; what is published then stays."""
    namespace: str | None = None
    """Namespace; by default that of the current context."""
    queue: str | None = None
    """Queue of Kueue that the Job waits in."""
    secret: str = "assay-environment"  # noqa: S105  the name of one
    """Secret that holds the variables of --env."""
    service_account: str | None = None
    """Service account of the pods, for credentials that come with it."""
    volumes: tuple[str, ...] = ()
    """Volume claims to mount, each as CLAIM:/folder; many pods must be able to write to what holds the run."""

    def check(self) -> None:
        """Raise UsageError for a kind of no GPUs, and for a volume that is not a claim and a folder."""
        refuse_kind_of_none(self)
        if self.secret != type(self).secret and not self.env:
            raise UsageError(
                f"secret is {self.secret!r}, of which pods get the variables of --env, and there are none; name them, "
                "such as --env AWS_REGION, or leave --secret out"
            )
        for volume in self.volumes:
            claim, _, folder = volume.partition(":")
            if not claim or not folder.startswith("/"):
                raise UsageError(f"volumes has {volume!r}; write CLAIM:/folder, such as assay-data:/shared")

    def mounts(self) -> tuple[tuple[str, str], ...]:
        """Claim and folder of each volume; a claim may be mounted at several folders."""
        return tuple((claim, folder) for claim, _, folder in (each.partition(":") for each in self.volumes))

    def shared_folders(self) -> tuple[str, ...]:
        """Mounted volumes are shared too."""
        return (*self.shared, *(folder for _, folder in self.mounts()))


def refuse_kind_of_none(settings: LaunchSettings) -> None:
    """Raise UsageError for a kind of GPU where a worker has none."""
    if settings.gpu_type is not None and not settings.gpus:
        raise UsageError(f"gpu_type is {settings.gpu_type!r}, and a worker has no GPU; add --gpus 1 or more")
