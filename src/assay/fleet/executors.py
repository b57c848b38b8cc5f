"""The verbs of runs on the machines that their settings ask for: this one, or a cluster that is joined for them."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from assay.errors import UsageError
from assay.runs.placement import Cluster
from assay.telemetry import Progress

if TYPE_CHECKING:
    from assay.fleet.ray.cluster import RayCluster


class Asking(Protocol):
    """Settings that say where the workers are."""

    @property
    def executor(self) -> str:
        """`ray` for a Ray cluster; any other for this machine."""
        ...

    @property
    def ray_address(self) -> str | None:
        """Address of that cluster."""
        ...


SettingsT_contra = TypeVar("SettingsT_contra", bound=Asking, contravariant=True)
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Work(Protocol[SettingsT_contra, ResultT_co]):
    """A verb that has workers, here or on a cluster that is handed to it."""

    def __call__(
        self,
        settings: SettingsT_contra,
        *,
        cluster: Cluster | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> ResultT_co:
        """Do what the settings ask."""
        ...


class Verb(Protocol[SettingsT_contra, ResultT_co]):
    """A verb as users call it."""

    def __call__(
        self,
        settings: SettingsT_contra,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> ResultT_co:
        """Do what the settings ask."""
        ...


@contextlib.contextmanager
def cluster_of(settings: Asking) -> Iterator["RayCluster | None"]:
    """The cluster that settings name, joined until the end of the `with`; None where the workers are on this machine.

    Raises UsageError for an address without the executor that uses it, and what `open_cluster` does.
    """
    if settings.executor == "ray":
        from assay.fleet.ray.cluster import open_cluster

        with open_cluster(settings.ray_address) as cluster:
            yield cluster
        return
    if settings.ray_address is not None:
        msg = f"ray_address {settings.ray_address!r} is for the ray executor; add --executor ray"
        raise UsageError(msg)
    yield None


def on_executor(work: Work[SettingsT_contra, ResultT_co]) -> Verb[SettingsT_contra, ResultT_co]:
    """The verb, which joins the cluster that its settings name and leaves it at the end; see `cluster_of`."""

    @functools.wraps(work)
    def verb(
        settings: SettingsT_contra,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> ResultT_co:
        with cluster_of(settings) as cluster:
            return work(settings, cluster=cluster, on_progress=on_progress, on_message=on_message)

    return verb
