"""How far a run is, for the watcher of its pods: read from the run itself, or from what a pod writes."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from assay.errors import SourceError
from assay.fleet.launch.runpod.api import RunPod
from assay.fleet.launch.runpod.follow import Look
from assay.fleet.launch.runpod.pods import Pod, rank_of
from assay.runs.agenda import TRIES_PER_UNIT
from assay.runs.notes import forget, last_message
from assay.runs.run import Run, open_run
from assay.runs.status import Status, status
from assay.runs.verify import VERIFIED, verify
from assay.telemetry import format_number_of

ALL_PUBLISHED = "assay launch: every unit is published; now the proof"
"""A pod writes it where the run is seen by pods alone."""
STAY_SECONDS = 600


class VisibleRun:
    """A run that this machine sees too, in a bucket or on a disk that is mounted here."""

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._url = url
        self._say = say
        self._has_begun = False
        """Whether failures are of these pods, or of others at work; before, they are of an earlier try."""

    def look(self, pods: Sequence[Pod]) -> Look:
        """What is published; once that is all, proved, and what is damaged taken out to be made again."""
        try:
            run = open_run(self._url)
        except SourceError:
            return Look(line="no run yet: no pod has planned it")
        found = status(self._url)
        at_work = any(driver.state == "working" for driver in found.drivers)
        if not self._has_begun and not pods and not at_work:
            forget(run.store)
            found = replace(found, failed_units={})
        self._has_begun = True
        if found.units_published < found.units_total:
            hopeless = None if at_work else _find_dead_end(run, found)
            return Look(line=str(found), num_done=found.units_published, hopeless=hopeless)
        proof = verify(self._url)
        if proof.holds:
            return Look(line=str(found), num_done=found.units_published, is_verified=True)
        if not proof.bad_parts:
            hopeless = f"every unit is published, and {proof.problems[0]}"
            return Look(line=str(found), num_done=found.units_published, hopeless=hopeless)
        taken = len(verify(self._url, repair=True).taken_out)
        self._say(
            f"{format_number_of(taken, 'damaged part is', 'damaged parts are')} taken out, to be made again"
        )
        return Look(line=str(found), num_done=found.units_published - taken)


def _find_dead_end(run: Run, found: Status) -> str | None:
    """Why no pod will publish what is left, where none is at work; None while one may."""
    lost = [name for name, times in found.failed_units.items() if times >= TRIES_PER_UNIT]
    if len(lost) < found.units_total - found.units_published:
        return None
    units = format_number_of(len(lost), "unit")
    first = f"{lost[0]}: {last_message(run.store, lost[0]) or 'as pods noted'}"
    return (
        f"{units} failed {TRIES_PER_UNIT} times, on whichever pod ({first}); the others are published; fix the cause "
        "and run the same command again"
    )


class RunOfPods:
    """A run on a network volume, which pods alone see: each says when all is published, and the first proves it.

    A pod that has ended is read too, for it may have ended well between two looks.
    """

    def __init__(self, api: RunPod, fleet: str) -> None:
        self._api = api
        self._fleet = fleet
        self._is_published = False

    def look(self, pods: Sequence[Pod]) -> Look:
        """What the last lines of the first pod say, and of those that ended."""
        last = "no line of the first pod yet"
        for pod in pods:
            is_first = rank_of(pod.name, self._fleet) == 0
            if not is_first and pod.is_alive:
                continue
            lines = [line.strip() for line in self._api.log_lines(pod.id) if line.strip()]
            self._is_published |= ALL_PUBLISHED in lines
            if is_first and VERIFIED in lines:
                return Look(line=VERIFIED, num_done=2, is_verified=True)
            if is_first and lines:
                last = lines[-1]
        if self._is_published:
            return Look(line=ALL_PUBLISHED.partition(": ")[2], num_done=1, num_needed=1)
        return Look(line=last)


def args_of_pods(command: Sequence[str], run: str) -> tuple[str, str]:
    """What the first pod runs, and the others, where they must say themselves how far the run is.

    The first one stays for a while after its proof, so that a look does not miss it.
    """
    published = f"{shlex.join(('assay', *command))} && echo {shlex.quote(ALL_PUBLISHED)}"
    proof = f"{published} && {shlex.join(('assay', 'verify', run))} && sleep {STAY_SECONDS}"
    return shlex.join(("sh", "-c", proof)), shlex.join(("sh", "-c", published))
