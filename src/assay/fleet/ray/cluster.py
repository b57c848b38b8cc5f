"""A Ray cluster that is joined: what its machines have, whether they fit, and the workers of a run on them."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.data.storage import is_object_url
from assay.errors import InputError, RefusedError, UsageError
from assay.extras import need_packages
from assay.fleet.ray import remote
from assay.machine import Threads
from assay.processes import Json
from assay.runs.driver import WorkerSpec
from assay.runs.placement import Placement
from assay.runs.run import Run
from assay.settings import AUTO, count_of
from assay.telemetry import format_number_of

if TYPE_CHECKING:
    from assay.fleet.ray.crew import Crew

CONNECT_SECONDS = 5.0
LOOK_SECONDS = 120.0
"""For every machine to start a process that looks around; a busy one takes tens of seconds."""
MOST_THREADS = 4
"""Of a worker on CPUs, where nothing is said: its model stays in memory once for so many."""
GPU_SHARE = 0.01
"""Of a GPU, to look at it: whoever computes on it is hardly in the way."""
OWN_FOLDERS = ("cache", "scratch")
"""Settings of a run that name a folder which a machine makes for itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A machine of the cluster, or what it lends of itself."""

    id: str
    address: str
    num_cpus: int
    num_gpus: int


@contextlib.contextmanager
def open_cluster(address: str | None) -> Iterator["RayCluster"]:
    """Join the cluster at an address, `auto` or None for the one that this machine or RAY_ADDRESS names; then leave it.

    A connection that this process has already is used, and kept. What Ray prints meanwhile goes to stderr. Raises
    UsageError where no cluster answers, where it refuses, or where none of its machines has a CPU or GPU to lend;
    RefusedError where its versions differ.
    """
    need_packages("ray", used_by="executor ray")
    _settle_environment(os.environ)
    import ray

    is_own = not ray.is_initialized()
    if is_own:
        _connect(address)
    try:
        cluster = RayCluster(ray.get_runtime_context().gcs_address)
        cluster.refuse_others()
        try:
            # its own notices of what was lost are printed, whatever log_to_driver says
            with contextlib.redirect_stdout(sys.stderr):
                yield cluster
        finally:
            cluster.close()
    finally:
        if is_own:
            ray.shutdown()


class RayCluster:
    """The machines of a Ray cluster; see `runs.placement.Cluster`."""

    def __init__(self, address: str) -> None:
        """Of the cluster to which this process is connected."""
        self.name = f"the Ray cluster at {address}"
        self._crews: list[Crew] = []

    def close(self) -> None:
        """End with every worker."""
        for crew in self._crews:
            crew.close()

    def machines(self) -> list[Machine]:
        """Those that are there now and have something to lend."""
        return [each for each in self._alive() if each.num_cpus or each.num_gpus]

    def _alive(self) -> list[Machine]:
        """Those that are there now, the head with nothing to lend among them."""
        import ray

        return [
            Machine(
                id=node["NodeID"],
                address=node["NodeManagerAddress"],
                num_cpus=int(node["Resources"].get("CPU", 0)),
                num_gpus=int(node["Resources"].get("GPU", 0)),
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def refuse_others(self) -> None:
        """Raise UsageError where no machine has anything to lend, RefusedError where one has other versions."""
        if not self.machines():
            msg = (
                f"{self.name} has no machine with a CPU or a GPU to lend; start one (`ray start --address=...`); "
                "one that scales by itself needs a machine to begin with"
            )
            raise UsageError(msg)
        if problem := self._first_problem({"versions": remote.versions()}):
            raise RefusedError(problem)

    def gpus(self) -> Sequence[bool]:
        """Whether it computes in bf16, of every GPU; machines are asked, for a driver may have none itself.

        Raises InputError where Ray knows of GPUs and PyTorch there finds none.
        """
        machines = [each for each in self.machines() if each.num_gpus]
        answers = self._ask(machines, remote.bf16_of_gpus, num_gpus=GPU_SHARE)
        for each, found in zip(machines, answers, strict=True):
            if not found:
                msg = (
                    f"machine {each.address} of {self.name} lends {format_number_of(each.num_gpus, 'GPU')} and PyTorch "
                    "finds none there; install its driver and torch for CUDA, or start Ray there with --num-gpus=0"
                )
                raise InputError(msg)
        return [
            all(found) for each, found in zip(machines, answers, strict=True) for _ in range(each.num_gpus)
        ]

    def place(self, devices: str, *, num_gpus: int, num_threads: int | None) -> Placement:
        """A worker a GPU where there are some, else on a few CPUs each: as many as have room, or as `devices` says.

        More than there is room for wait for machines to join.
        """
        machines = self.machines()
        kind = "cuda" if num_gpus else "cpu"
        if kind == "cuda":
            threads = num_threads or _least(
                each.num_cpus // each.num_gpus for each in machines if each.num_gpus
            )
        else:
            threads = num_threads or min(
                _least(each.num_cpus for each in machines if each.num_cpus), MOST_THREADS
            )
        room = self.room(needs(kind, threads))
        if not room:
            most = max(each.num_cpus for each in machines)
            msg = (
                f"num_threads {threads}; no machine of {self.name} lends so many CPUs, {most} at most; "
                f"set --num-threads {most} or less"
            )
            raise UsageError(msg)
        return Placement(
            kind=kind,
            num_workers=count_of(devices) or room,
            threads=Threads(
                count=threads, reason=f"{format_number_of(len(machines), 'machine')}, room for {room} now"
            ),
            cluster=self,
            grows=devices == AUTO,
        )

    def place_at_once(self, devices: str, *, num_threads: int | None, work: str) -> Placement:
        """As `place`, for `work` whose workers have to be there all at once: UsageError for more than have room."""
        placement = self.place(devices, num_gpus=len(self.gpus()), num_threads=num_threads)
        needed = needs(placement.kind, placement.threads.count)
        room = self.room(needed)
        if placement.num_workers > room:
            msg = (
                f"devices {placement.num_workers}; {self.name} has room for {describe_workers(room, needed)}, "
                f"and {work} needs all at once; set --devices {room} or less, or add machines first"
            )
            raise UsageError(msg)
        return placement

    def room(self, needed: Mapping[str, int]) -> int:
        """How many workers that need so much the machines could hold, were nothing else on them."""
        if "num_gpus" in needed:
            return sum(each.num_gpus for each in self.machines())
        return sum(each.num_cpus // needed["num_cpus"] for each in self.machines())

    def workers(self, module: str, run: Run, placement: Placement) -> Sequence[WorkerSpec]:
        """The workers of a run, an actor each.

        Raises InputError where a machine does not see the run, or what of this machine the run reads.
        """
        from assay.fleet.ray.crew import Crew

        asked: Json = {
            "versions": remote.versions(),
            "run": run.url,
            "run_id": run.manifest.run_id,
            "paths": local_paths(run),
            "module": module,
            "device": "cpu" if placement.kind == "cpu" else "cuda:0",
            "num_threads": placement.threads.count,
        }
        if problem := self._first_problem(asked):
            raise InputError(problem)
        needed = needs(placement.kind, placement.threads.count)
        crew = Crew(
            asked,
            needed,
            num_workers=placement.num_workers,
            room=(lambda: self.room(needed)) if placement.grows else None,
        )
        self._crews.append(crew)
        return crew.specs

    def first_problem_with(self, paths: Mapping[str, int | None]) -> str | None:
        """Which machine does not see one of these paths, with the bytes of files, in a line; None where all do."""
        return self._first_problem({"versions": remote.versions(), "paths": dict(paths)})

    def address_problem(self, host: str, port: int) -> str | None:
        """Which machine cannot listen on an address, in a line; None where all can."""
        return self._first_answer(self._alive(), remote.find_address_problem, {"host": host, "port": port})

    def _first_problem(self, asked: Json) -> str | None:
        return self._first_answer(self.machines(), remote.find_problem, asked)

    def _first_answer(self, machines: Sequence[Machine], question: Any, asked: Json) -> str | None:  # noqa: ANN401
        """The first machine that has a problem to tell, in a line."""
        for each, problem in zip(machines, self._ask(machines, question, asked), strict=True):
            if problem is not None:
                return f"machine {each.address} of {self.name} {problem}"
        return None

    def _ask(self, machines: Sequence[Machine], question: Any, *values: Json, **needs: float) -> list[Any]:  # noqa: ANN401
        """What a function of `remote` says on each of these machines; None of one that was lost meanwhile.

        Raises RefusedError where a machine cannot call it: another Assay or none is there.
        """
        import ray
        from ray.exceptions import GetTimeoutError, RayError, RayTaskError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        call = ray.remote(max_retries=0, **{"num_cpus": 0, **needs})(question)
        calls = [
            call.options(scheduling_strategy=NodeAffinitySchedulingStrategy(each.id, soft=False)).remote(
                *values
            )
            for each in machines
        ]
        answers = []
        for each, answer in zip(machines, calls, strict=True):
            try:
                answers.append(ray.get(answer, timeout=LOOK_SECONDS))
            except GetTimeoutError:
                msg = (
                    f"machine {each.address} of {self.name} did not answer in {LOOK_SECONDS:.0f} s; "
                    "see `ray status` and its logs, and try again"
                )
                raise UsageError(msg) from None
            except RayTaskError as error:
                why = str(error).strip().splitlines()[-1]
                msg = (
                    f"machine {each.address} of {self.name} cannot run {remote.versions()} ({why}); "
                    "install the same everywhere"
                )
                raise RefusedError(msg) from error
            except RayError:
                answers.append(None)
        return answers


def needs(kind: str, num_threads: int) -> dict[str, int]:
    """What a worker needs of a machine, by Ray's names of options."""
    return {"num_gpus": 1, "num_cpus": 0} if kind == "cuda" else {"num_cpus": num_threads}


def describe_workers(count: int, needed: Mapping[str, int]) -> str:
    """`2 workers with 4 CPUs each`."""
    each = "a GPU" if "num_gpus" in needed else format_number_of(needed["num_cpus"], "CPU")
    return f"{format_number_of(count, 'worker')} with {each} each"


def local_paths(run: Run) -> dict[str, int | None]:
    """What of this machine's disk the workers of a run read: the first source, bundles and the like.

    The bytes of files; None for folders.
    """
    sources = [source.uri for source in run.manifest.sources[:1]]
    named = [
        text
        for key, value in run.manifest.settings.items()
        if key not in OWN_FOLDERS
        for text in _texts(value)
    ]
    paths = [Path(text) for text in [*sources, *named] if not is_object_url(text)]
    return {
        str(path): path.stat().st_size if path.is_file() else None
        for path in paths
        if path.is_absolute() and path.exists()
    }


def _texts(value: object) -> Iterator[str]:
    """The strings within a value of a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _least(counts: Iterator[int]) -> int:
    return max(min(counts, default=1), 1)


def _settle_environment(environment: Any) -> None:  # noqa: ANN401  os.environ has no public type
    """What Ray reads when it is imported or connects; what a user has set stays.

    A mode of authentication is always set: Ray's own default depends on files that it leaves in the home folder.
    """
    has_token = "RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment
    environment.setdefault("RAY_AUTH_MODE", "token" if has_token else "disabled")
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def _connect(address: str | None) -> None:
    import ray

    found = _find(address)
    _refuse_silent(found)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if "ersion mismatch" in str(error):
            msg = f"the Ray cluster at {found} has other versions: {_short(error)}; install the same"
            raise RefusedError(msg) from error
        msg = (
            f"the Ray cluster at {found} cannot be joined ({_short(error)}); see `ray status`, and that "
            f"RAY_AUTH_MODE, {os.environ['RAY_AUTH_MODE']} here, and its token are those of the cluster"
        )
        raise UsageError(msg) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # ray.init puts its own in place of it


def _find(address: str | None) -> str:
    """HOST:PORT of the cluster that an address names; `auto` and None mean RAY_ADDRESS or the one started here."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    named = address or AUTO
    if named == AUTO:
        named = os.environ.get("RAY_ADDRESS") or AUTO
    if named != AUTO and "://" not in named:
        return named
    if "://" in named:
        msg = (
            f"ray_address {named!r} is for Ray's client or its jobs; run this on a machine of the cluster, "
            "for example by `ray job submit`, and give HOST:PORT"
        )
        raise UsageError(msg)
    try:
        found: str = canonicalize_bootstrap_address_or_die(named)
    except ConnectionError:
        msg = (
            "no Ray cluster runs on this machine; start one with `ray start --head`, join one with "
            "`ray start --address=HOST:PORT`, or give --ray-address HOST:PORT"
        )
        raise UsageError(msg) from None
    return found


def _refuse_silent(address: str) -> None:
    """Raise UsageError where nothing listens at an address, for which Ray itself would wait long."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        msg = f"ray_address {address!r}; it must be auto or HOST:PORT, for example 10.0.0.1:6379; change it"
        raise UsageError(msg)
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        msg = (
            f"no Ray cluster at {address} ({_short(error)}); start one with `ray start --head`, "
            "or give the --ray-address of one that runs"
        )
        raise UsageError(msg) from None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
