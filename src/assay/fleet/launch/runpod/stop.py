"""`assay launch runpod stop`: every pod of a fleet deleted, by its name, whoever made it and whatever it does."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from assay.errors import InputError, WorkError
from assay.fleet.launch.cloud_settings import RunPodStopSettings
from assay.fleet.launch.runpod.follow import delete_fleet, describe_left
from assay.fleet.launch.runpod.launcher import open_account
from assay.fleet.launch.runpod.pods import GONE, Pod, hourly, own_pods
from assay.telemetry import format_number_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """What went, and what stays."""

    pods: tuple[Pod, ...]
    others: tuple[Pod, ...]
    """Of the account, in no way of this fleet."""
    is_dry_run: bool

    def __str__(self) -> str:
        """A line for people."""
        what = "would be deleted" if self.is_dry_run else "deleted"
        pods = format_number_of(len(self.pods), "pod")
        return f"{pods} {what} ({hourly(self.pods):.2f} $/h){_others(self.others)}"


def stop_fleet(settings: RunPodStopSettings) -> Stopped:
    """Delete the pods; what they published stays, and so does the ledger.

    Raises InputError where the account has no pod of the fleet, WorkError where one could not be deleted.
    """
    api = open_account(os.environ)
    everything = api.list_pods()
    pods = own_pods(everything, settings.name)
    others = [pod for pod in everything if pod not in pods and pod.status not in GONE]
    if not pods:
        numbered = f"{settings.name}-0, {settings.name}-1 and so on"
        msg = f"no pod is called {numbered}{_others(others)}; give the name of the fleet, without a number"
        raise InputError(msg)
    left = {} if settings.dry_run else delete_fleet(api, settings.name)
    if left:
        raise WorkError(describe_left(left))
    return Stopped(pods=tuple(pods), others=tuple(others), is_dry_run=settings.dry_run)


def _others(others: Sequence[Pod]) -> str:
    if not others:
        return ""
    names = ", ".join(sorted(pod.name or pod.id for pod in others)[:5])
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"; other pods of the account stay: {names}{more}"
