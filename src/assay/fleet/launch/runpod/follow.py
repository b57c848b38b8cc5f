"""A fleet of pods watched until its run verifies or its budget is spent: made, replaced, deleted.

Nothing here needs to live on: a listing tells which pods there are, the ledger what they cost, the run what is done.
Whoever runs the same command again goes on, from any machine, and two at once do no harm.

    each look: list the pods; what is done?; what was spent?; delete what died or is double; make what is missing

A pod whose creation was not answered is looked for by its name for a while before another is made in its place. One
that shows up later still is a second pod of its rank, which the next look deletes.
"""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from assay.errors import AssayError, InputError, StorageError, WorkError
from assay.fleet.launch.runpod.api import (
    KeyRefusedError,
    LostError,
    NoAnswerError,
    NoCapacityError,
    RunPod,
)
from assay.fleet.launch.runpod.ledger import Ledger
from assay.fleet.launch.runpod.pods import (
    Difference,
    Pod,
    Shape,
    find_difference,
    hourly,
    own_pods,
    pod_name,
    rank_of,
    request_body,
)
from assay.telemetry import format_duration, format_number_of, printable

Why = Literal["verified", "budget", "hopeless", "stopped"]
LOOK_SECONDS = 30.0
LAG_SECONDS = 60.0
"""For so long a new pod may be missing in listings."""
FIRST_WAIT_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 300.0
"""Between two requests for a machine where there is none."""
IDLE_SECONDS = 900.0
"""Without a new part, after which the first pod's last line is shown."""
GONE_LOOKS = 2
"""That find no pod where there were some, after which they were deleted by someone."""
MOST_DEATHS = 3
"""Of one rank in a row, without a new part from anyone; then it is not made again."""
DELETING_SECONDS = 120.0
DELETING_LOOK_SECONDS = 2.0
"""Between two listings while pods are deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How far the run is."""

    line: str
    """For people."""
    num_done: int = 0
    """Rises as the run goes on."""
    num_needed: int | None = None
    """Pods that still have work, from rank 0 on; None for all."""
    is_verified: bool = False
    hopeless: str | None = None
    """Why no pod can bring the run further, and what to do."""


class Watched(Protocol):
    """The run, as it is seen from here."""

    def look(self, pods: Sequence[Pod]) -> Look:
        """How far it is, proved where it can be whole; `pods` are those of the fleet, dead ones among them."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What the fleet may cost, since its first pod; at least one of the two."""

    dollars: float | None = None
    hours: float | None = None
    """With any pod there."""

    def is_spent(self, ledger: Ledger, *, dollars_per_hour: float, now: float) -> bool:
        """Whether it would be by the next look."""
        ahead = dollars_per_hour * LOOK_SECONDS / 3600
        return (self.dollars is not None and ledger.dollars(now) + ahead >= self.dollars) or (
            self.hours is not None and ledger.hours(now) + LOOK_SECONDS / 3600 >= self.hours
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """What to make: so many pods of a shape."""

    name: str
    num_pods: int
    shape: Shape
    gpus: tuple[str, ...]
    """Ids, the one to try first at the front."""
    dollars_per_hour: float = 0.0
    """Of all its pods, by the price list; what they are seen to cost counts where it is more."""
    args_of_first: str | None = None
    """Of rank 0, where it does more than the others."""

    def body(self, rank: int, gpu: str) -> dict[str, object]:
        """The request for one pod."""
        body = request_body(self.shape, fleet=self.name, rank=rank, num_pods=self.num_pods, gpu=gpu)
        return body if rank or self.args_of_first is None else {**body, "args": self.args_of_first}


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """How it ended; no pod of the fleet is left."""

    why: Why
    look: Look
    num_pods: int
    """That there were."""
    dollars: float
    hours: float


class Follower:
    """The loop, with what it remembers from look to look."""

    def __init__(
        self,
        api: RunPod,
        fleet: Fleet,
        watched: Watched,
        *,
        budget: Budget,
        ledger: Ledger,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        chance: random.Random | None = None,
    ) -> None:
        self._api = api
        self._fleet = fleet
        self._watched = watched
        self._budget = budget
        self._ledger = ledger
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._chance = chance or random.SystemRandom()
        self._not_before: dict[int, float] = {}
        """When a rank may be asked for again."""
        self._num_refusals = 0
        """In a row, for lack of machines."""
        self._no_machine_before = 0.0
        self._fresh: list[tuple[Pod, float]] = []
        """Pods made here, and when, that no listing has shown yet."""
        self._unsure_until = 0.0
        """Until then a pod that was asked for may yet show up."""
        self._deaths: Counter[int] = Counter()
        self._counted: set[str] = set()
        """Pods whose death is in there."""
        self._done_at = clock()
        self._alive: set[str] = set()
        """Ids at the end of the last look, of those that a listing has shown if there are such."""
        self._num_gone = 0
        """Looks in a row that found none of them."""
        self._last_line = ""
        self._look = Look(line="not looked at yet")

    def follow(self) -> Followed:
        """Watch until the end; raises WorkError where pods are left that could not be deleted."""
        try:
            while True:
                try:
                    ended = self._step()
                except NoAnswerError as error:
                    self._say(f"{error}; the pods go on, and so does this")
                    ended = None
                if ended is not None:
                    return ended
                self._sleep(LOOK_SECONDS * self._chance.uniform(0.8, 1.2))
        except KeyRefusedError as error:
            raise KeyRefusedError(f"{error}{self._may_run_on()}") from None
        except BaseException:
            if running_on := self._may_run_on():
                self._say(f"no longer watched{running_on}")
            raise

    def _step(self) -> Followed | None:
        pods = self._list()
        now = self._clock()
        found = find_difference(pods, self._fleet.name, self._fleet.num_pods, now=now)
        alive = [*found.alive.values()]
        self._look_at_run(pods, now)
        if self._look.is_verified:
            return self._end("verified")
        if self._look.hopeless is not None:
            return self._end("hopeless")
        rate = max(hourly(alive), self._fleet.dollars_per_hour)
        now = self._clock()  # a proof takes long
        if self._budget.is_spent(self._ledger, dollars_per_hour=rate, now=now):
            return self._end("budget")
        if self._are_gone(pods):
            return self._end("stopped") if self._num_gone == GONE_LOOKS else None
        needed = self._fleet.num_pods if self._look.num_needed is None else self._look.num_needed
        self._clear(found, needed)
        missing = [rank for rank in found.missing if rank < needed]
        alive += self._make(missing)
        if not alive and missing and all(self._deaths[rank] >= MOST_DEATHS for rank in missing):
            hopeless = (
                f"every pod ended {MOST_DEATHS} times in a row and nothing was published; read a pod's log in RunPod's "
                "console, and try the image and its command on one machine"
            )
            self._look = replace(self._look, hopeless=hopeless)
            return self._end("hopeless")
        fresh = {pod.id for pod, _ in self._fresh}
        everyone = {pod.id for pod in alive}
        self._alive = everyone - fresh or everyone
        self._tell(alive)
        return None

    def _are_gone(self, pods: Sequence[Pod]) -> bool:
        """Whether all pods of the last look are in no listing any more: someone else deleted them.

        Pods that end by themselves stay listed. What was deleted on purpose is not made again, see `stop`.
        """
        if not self._alive or self._alive & {pod.id for pod in pods}:
            self._num_gone = 0
            return False
        self._num_gone += 1
        return True

    def _look_at_run(self, pods: Sequence[Pod], now: float) -> None:
        """Look; a run that cannot be read now is left to the pods, and to the budget."""
        before = self._look
        try:
            self._look = self._watched.look(pods)
        except AssayError as error:
            self._look = replace(before, line=f"the run cannot be read from here now ({error})")
        if self._look.num_done > before.num_done:
            self._deaths.clear()
            self._done_at = now

    # ------------------------------------------------------------ pods

    def _list(self) -> list[Pod]:
        """The fleet's pods; those made a moment ago count though the listing may not show them yet."""
        now = self._clock()
        pods = own_pods(self._api.list_pods(), self._fleet.name)
        listed = {pod.id for pod in pods}
        self._fresh = [
            (pod, at) for pod, at in self._fresh if pod.id not in listed and now - at < LAG_SECONDS
        ]
        pods = own_pods([*pods, *(pod for pod, _ in self._fresh)], self._fleet.name)
        pods = [self._priced(pod) for pod in pods]
        self._ledger.saw(pods, now)
        self._save()
        return pods

    def _priced(self, pod: Pod) -> Pod:
        """A pod that works and is listed at no cost costs what the price list says: the budget must see it."""
        if not pod.is_alive or pod.dollars_per_hour > 0:
            return pod
        return replace(pod, dollars_per_hour=self._fleet.dollars_per_hour / self._fleet.num_pods)

    def _clear(self, found: Difference, needed: int) -> None:
        """Delete what is double or has ended."""
        for pod in found.dead:
            rank = rank_of(pod.name, self._fleet.name)
            assert rank is not None
            if rank >= needed or pod.id in self._counted:
                continue
            self._counted.add(pod.id)
            self._deaths[rank] += 1
            again = (
                "is made again"
                if self._deaths[rank] < MOST_DEATHS
                else "is not made again: nothing was published"
            )
            self._say(f"{pod.name} ended ({pod.status}) and {again}{self._last_words(pod)}")
        for pod in found.extra:
            self._say(f"{pod.name} ({pod.id}) is one too many and is deleted")
        for pod in (*found.dead, *found.extra):
            if (error := _delete(self._api, pod)) is not None:
                self._say(f"{pod.name} ({pod.id}) is not deleted yet ({error})")

    def _make(self, missing: Sequence[int]) -> list[Pod]:
        """Ask for the pods that are missing and due; those that were made."""
        made: list[Pod] = []
        for rank in missing:
            now = self._clock()
            if self._deaths[rank] >= MOST_DEATHS or now < max(
                self._not_before.get(rank, now), self._no_machine_before
            ):
                continue
            try:
                pod = self._ask(rank)
            except NoCapacityError as error:
                self._wait_for_machine(error)
                break  # the others would be refused too
            except LostError as error:
                self._not_before[rank] = self._unsure_until = self._clock() + LAG_SECONDS
                self._say(f"{error}; {pod_name(self._fleet.name, rank)} is looked for by its name")
                continue
            except (InputError, NoAnswerError) as error:
                if self._ledger.num_alive == 0:
                    raise
                self._no_machine_before = now + LONGEST_WAIT_SECONDS
                self._say(f"{error}; the pods that are there go on")
                break
            self._num_refusals = 0
            self._fresh.append((pod, self._clock()))
            self._ledger.add(self._priced(pod), now)
            self._save()
            made.append(pod)
        return made

    def _ask(self, rank: int) -> Pod:
        """The pod, on the first kind of GPU that is free."""
        for gpu in self._fleet.gpus[:-1]:
            with contextlib.suppress(NoCapacityError):
                return self._api.create_pod(self._fleet.body(rank, gpu))
        return self._api.create_pod(self._fleet.body(rank, self._fleet.gpus[-1]))

    def _wait_for_machine(self, error: NoCapacityError) -> None:
        """Ask again later, each time later and at random, so that many do not come at once."""
        self._num_refusals += 1
        most = min(FIRST_WAIT_SECONDS * 2**self._num_refusals, LONGEST_WAIT_SECONDS)
        wait = self._chance.uniform(most / 2, most)
        self._no_machine_before = self._clock() + wait
        self._say(f"{error}; asking again in {format_duration(wait)}")

    def _end(self, why: Why) -> Followed:
        """Delete every pod, and say what it came to."""
        unlisted = []
        for pod, at in self._fresh:
            self._unsure_until = max(self._unsure_until, at + LAG_SECONDS)
            unlisted.append(_delete(self._api, pod))
        left = delete_fleet(
            self._api,
            self._fleet.name,
            sleep=self._sleep,
            clock=self._clock,
            at_least_until=self._unsure_until,
        )
        now = self._clock()
        self._ledger.saw(left, now)
        self._save()
        if left:
            cost = f" and may cost {hourly([*left]):.2f} $/h"
            raise WorkError(describe_left(left, cost))
        if error := next(filter(None, unlisted), None):
            raise error
        return Followed(
            why=why,
            look=self._look,
            num_pods=self._ledger.num_pods,
            dollars=self._ledger.dollars(now),
            hours=self._ledger.hours(now),
        )

    # ------------------------------------------------------------ words

    def _tell(self, alive: Sequence[Pod]) -> None:
        now = self._clock()
        pods = f"{len(alive):,} of {format_number_of(self._fleet.num_pods, 'pod')}"
        line = f"{pods}, {hourly(alive):.2f} $/h, {self._ledger.dollars(now):.2f} $ so far; {self._look.line}"
        if alive and now - self._done_at > IDLE_SECONDS:
            line += f"; nothing new for {format_duration(now - self._done_at)}{self._last_words(alive[0])}"
        if line != self._last_line:
            self._say(line)
        self._last_line = line

    def _last_words(self, pod: Pod) -> str:
        """The last line that a pod wrote, for the end of a sentence."""
        lines = [line.strip() for line in self._api.log_lines(pod.id, tail=20) if line.strip()]
        return f"; {pod.name} wrote: {printable(lines[-1])[:200]}" if lines else ""

    def _may_run_on(self) -> str:
        """What to know about pods that nobody watches; "" where there are none."""
        if self._ledger.num_alive:
            pods = f"{format_number_of(self._ledger.num_alive, 'pod runs', 'pods run')} on and cost money"
        elif self._clock() < self._unsure_until:
            pods = "a pod was asked for without an answer, and may run and cost money"
        else:
            return ""
        return f"; {pods}: rerun to watch, or assay launch runpod stop {self._fleet.name}"

    def _save(self) -> None:
        with contextlib.suppress(StorageError):  # advice: the run may not be written to now
            self._ledger.save()


def delete_fleet(
    api: RunPod,
    fleet: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
    at_least_until: float = 0.0,
) -> dict[Pod, str]:
    """Delete every pod of a fleet, and look again until none is listed; the pods that stayed all the same, and why.

    Two empty listings in a row count as none, for a pod that was made a moment ago may be missing in one; where one is
    known that may show up late, it is looked for until `at_least_until`. A pod whose deletion fails keeps no other.
    Raises NoAnswerError where RunPod answers to no listing, or at the end not to a deletion.
    """
    ends, num_empty = max(clock(), at_least_until) + DELETING_SECONDS, 0
    errors: dict[str, AssayError | None] = {}
    while True:
        left = own_pods(api.list_pods(), fleet)
        num_empty = 0 if left else num_empty + 1
        if num_empty >= 2 and clock() >= at_least_until:
            return {}
        if left and clock() >= ends:
            for error in errors.values():
                if isinstance(error, NoAnswerError):
                    raise error
            return {pod: str(errors.get(pod.id) or "") for pod in left}
        errors = {pod.id: _delete(api, pod) for pod in left}
        sleep(DELETING_LOOK_SECONDS)


def _delete(api: RunPod, pod: Pod) -> AssayError | None:
    """Delete a pod; what went wrong, where that concerns this pod or this moment alone."""
    try:
        api.delete_pod(pod.id)
    except KeyRefusedError:
        raise
    except (InputError, NoAnswerError) as error:
        return error
    return None


def describe_left(left: Mapping[Pod, str], cost: str = "") -> str:
    """What to say of pods that could not be deleted, and of what they `cost`."""
    pods = ", ".join(f"{pod.id} ({why})" if why else pod.id for pod, why in left.items())
    return f"{format_number_of(len(left), 'pod')} could not be deleted{cost}: {pods}; delete them in RunPod's console"
