"""What the pods of a fleet have cost, kept where whoever watches next finds it.

A pod that is deleted is in no listing, so its cost is written down here: one small file, replaced at each change. A
pod counts from its creation until it was first seen dead or gone, so a watcher that was away counts too much rather
than too little. Lost, it costs nothing but what the pods that are gone had cost.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from assay.data.storage import Store
from assay.fleet.launch.runpod.pods import Pod
from assay.runs.notes import LAUNCHES

_Amount = Annotated[float, Field(ge=0, lt=2**53, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One pod that was there."""

    name: str
    dollars_per_hour: _Amount
    """The most that it was seen to cost."""
    since: _Amount
    """Unix seconds."""
    until: _Amount | None = None
    """None while it is alive."""

    def seconds(self, now: float) -> float:
        """For how long it was there."""
        return max((now if self.until is None else self.until) - self.since, 0.0)


class Ledger:
    """The pods of one fleet since its first."""

    def __init__(self, store: Store, fleet: str) -> None:
        """Read what an earlier watcher wrote, if one did."""
        self._store = store
        self._path = f"{LAUNCHES}{fleet}.json"
        self._entries: dict[str, Entry] = {}
        self._saved: dict[str, Entry] | None = None
        if store.info(self._path) is not None:
            with contextlib.suppress(ValueError):  # advice: what is alive is counted from its listing
                files = TypeAdapter(dict[Literal["pods"], dict[str, Entry]])
                self._entries = files.validate_json(store.read_bytes(self._path), strict=True).get("pods", {})

    def saw(self, pods: Iterable[Pod], now: float) -> None:
        """Take in a listing of the fleet's pods: those that it lacks are gone."""
        seen = {pod.id: pod for pod in pods}
        for pod_id, entry in self._entries.items():
            if entry.until is None and pod_id not in seen:
                self._entries[pod_id] = replace(entry, until=now)
        for pod in seen.values():
            self.add(pod, now)

    def add(self, pod: Pod, now: float) -> None:
        """Take in one pod; one that was thought gone and is alive was there all the time."""
        before = self._entries.get(pod.id)
        ended = (before.until if before else None) or now
        self._entries[pod.id] = Entry(
            name=pod.name,
            dollars_per_hour=max(pod.dollars_per_hour, before.dollars_per_hour if before else 0.0),
            since=min(before.since if before else pod.created_at, now),
            until=None if pod.is_alive else ended,
        )

    def save(self) -> None:
        """Write it, if anything changed."""
        if self._entries != self._saved:
            pods = {pod_id: asdict(entry) for pod_id, entry in self._entries.items()}
            self._store.replace(self._path, json.dumps({"pods": pods}, indent=1).encode())
            self._saved = dict(self._entries)

    def dollars(self, now: float) -> float:
        """What all pods have cost."""
        return sum(each.dollars_per_hour * each.seconds(now) / 3600 for each in self._entries.values())

    def hours(self, now: float) -> float:
        """For how long there was any pod."""
        spans = sorted(
            (each.since, now if each.until is None else each.until) for each in self._entries.values()
        )
        total, end = 0.0, float("-inf")
        for since, until in spans:
            total += max(until - max(since, end), 0.0)
            end = max(end, until)
        return total / 3600

    @property
    def num_alive(self) -> int:
        """How many there are now, as far as was seen."""
        return sum(each.until is None for each in self._entries.values())

    @property
    def num_pods(self) -> int:
        """How many there were."""
        return len(self._entries)
