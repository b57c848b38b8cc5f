"""A training on a Ray cluster: its ranks in workers of Ray Train, and the driver that hears them."""

import contextlib
import glob
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from assay.data.storage import is_object_url
from assay.errors import InputError, UsageError, WorkError
from assay.fleet.ray.attempts import Attempts
from assay.fleet.ray.cluster import RayCluster, describe_workers, needs
from assay.fleet.ray.rank import Board, Losses, OwnGroup, train_rank
from assay.processes import Json
from assay.runs.placement import Placement
from assay.train import checkpoints
from assay.train.launch import STOP_SECONDS
from assay.train.settings import TrainSettings

LISTEN_SECONDS = 1.0
"""For which the driver waits for news before it looks whether the training is over."""
WAIT_SECONDS = 60.0
"""Without an attempt, after which the user hears what is waited for."""


class RayRanks:
    """A rank for each device of a cluster; see `train.launch.Ranks`."""

    def __init__(self, cluster: RayCluster, settings: TrainSettings, say: Callable[[str], None]) -> None:
        """As many as `settings.devices` says; raises UsageError where there is no room for so many."""
        if settings.precision == "auto" and len(set(cluster.gpus())) > 1:
            msg = (
                f"precision auto; some GPUs of {cluster.name} compute in bf16 and some do not, and all have to do "
                "the same; set --precision fp32"
            )
            raise UsageError(msg)
        self.placement: Placement = cluster.place_at_once(
            settings.devices, num_threads=settings.num_threads, work="a training"
        )
        self._needs = needs(self.placement.kind, self.placement.threads.count)
        self._cluster = cluster
        self._say = say

    @property
    def num_processes(self) -> int:
        """Ranks."""
        return self.placement.num_workers

    def launch(
        self, job: Json, *, way_out: Callable[[], str], on_event: Callable[[Json], None] | None = None
    ) -> object:
        """As `train.launch.launch`, on the cluster; a rank that is lost costs what came after the last checkpoint.

        Raises InputError where a machine does not see what is read or written.
        """
        self._say(f"workers: {self.placement}")
        self._refuse_unseen(job)
        training = checkpoints.training_folder(job["out"])

        def newest() -> str | None:
            found = checkpoints.newest(training)
            return None if found is None else found.name

        def hear(event: Json) -> None:
            if event["event"] == "printed":
                sys.stderr.write(event["line"])
            elif on_event is not None:
                on_event(event)

        attempts = Attempts(
            job,
            num_processes=self.num_processes,
            newest=newest,
            way_out=way_out,
            on_event=hear,
            say=self._say,
        )
        board = _start_board()
        asked = {
            "board": board,
            "folder": str(Path.cwd()),
            "training": str(training),
            "num_threads": self.placement.threads.count,
        }
        with tempfile.TemporaryDirectory(prefix="assay-ray-train-") as storage:
            fitting = _Fitting(self._trainer(asked, storage), attempts, board)
            try:
                fitting.hear(self._say_waiting)
            except KeyboardInterrupt:
                fitting.interrupt()
                if attempts.result is None:
                    raise (attempts.unsaved or KeyboardInterrupt) from None
        error = attempts.end()
        if fitting.error is not None and attempts.result is None:
            error = fitting.error
        if error is not None:
            raise error
        assert attempts.result is not None, "the training ended well"
        return attempts.result["value"]

    def _trainer(self, asked: Json, storage: str) -> Any:  # noqa: ANN401  Ray's own have no types
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # the processes have their own folder
        is_gpu = self.placement.kind == "cuda"
        return TorchTrainer(
            train_rank,
            train_loop_config=asked,
            torch_config=OwnGroup(),
            scaling_config=ScalingConfig(
                num_workers=self.num_processes,
                use_gpu=is_gpu,
                resources_per_worker={"GPU": 1} if is_gpu else {"CPU": self._needs["num_cpus"]},
            ),
            run_config=RunConfig(
                name="assay",
                storage_path=storage,
                failure_config=FailureConfig(max_failures=-1),  # `Attempts` says when there is no other
                callbacks=[Losses(asked["board"])],
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )

    def _say_waiting(self) -> None:
        workers = describe_workers(self.num_processes, self._needs)
        self._say(f"waiting for room for {workers} on {self._cluster.name}")

    def _refuse_unseen(self, job: Json) -> None:
        """Raise InputError where a machine does not see rows, base or teacher, or the disk of `out`."""
        with _marker_beside(Path(job["out"])) as marker:
            paths = [marker, *_read_paths(job)]
            asked = {str(path): path.stat().st_size if path.is_file() else None for path in paths}
            if problem := self._cluster.first_problem_with(asked):
                raise InputError(problem)


class _Fitting:
    """Ray Train at work in a thread, and the driver's talk with the ranks."""

    def __init__(self, trainer: Any, attempts: Attempts, board: Any) -> None:  # noqa: ANN401
        self.error: WorkError | None = None
        """What Ray Train itself ended of."""
        self._attempts = attempts
        self._board = board
        self._trainer = trainer
        self._is_stopping = False
        self._thread = threading.Thread(target=self._fit, name="ray train", daemon=True)
        self._thread.start()

    def hear(self, say_waiting: Callable[[], None] = lambda: None, *, seconds: float = float("inf")) -> None:
        """Take in what the ranks say until Ray Train has ended, or for so long."""
        began = idle_since = time.monotonic()
        has_said = False
        while self._thread.is_alive() and time.monotonic() - began < seconds:
            self._take()
            if self._attempts.ids and not self._attempts.is_broken:
                idle_since, has_said = time.monotonic(), False
            elif time.monotonic() - idle_since > WAIT_SECONDS and not has_said:
                say_waiting()
                has_said = True
        self._take()

    def interrupt(self) -> None:
        """Ask the ranks to write a checkpoint, and wait for it."""
        self._is_stopping = True
        if self._attempts.ids and self._thread.is_alive():
            ray.get(self._board.stop.remote())
            self.hear(seconds=STOP_SECONDS)

    def _take(self) -> None:
        for rank, event in ray.get(self._board.news.remote(LISTEN_SECONDS)):
            if event["event"] == "begin":
                over: Json = {"job": None, "earlier": []}
                answer = over if self._is_stopping else self._attempts.begin(event["attempt"])
                self._board.answer.remote(event["attempt"], answer)
            elif event["event"] == "lost":
                self._attempts.lose(rank, event["why"])
            else:
                self._attempts.take(rank, event)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:  # noqa: BLE001  whatever it is, the driver must hear of it
            self.error = WorkError(f"Ray Train ended: {_short(error)}; see its logs on the machines")


def _start_board() -> Any:  # noqa: ANN401
    """The board, on this machine: it ends with the driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=here)(Board).remote()
    try:
        ray.get(made.news.remote(0.0))
    except RayError as error:
        msg = f"Ray starts no actor on this machine ({_short(error)}); see `ray status`"
        raise WorkError(msg) from error
    return made


@contextlib.contextmanager
def _marker_beside(out: Path) -> Iterator[Path]:
    """A file on the disk on which `out` will be, for other machines to see; it goes at the end."""
    folder = next(each for each in out.absolute().parents if each.is_dir())
    marker = folder / f".assay-{uuid4().hex}"
    marker.touch()
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def _read_paths(job: Json) -> list[Path]:
    """What of this machine's disk the ranks read, a file for each source."""
    named = [job["base"], job["teacher"], *job["data"], *job["validation_data"]]
    found = []
    for text in named:
        if text is None or is_object_url(text):
            continue
        if Path(text).exists():
            found.append(Path(text).absolute())
        else:
            found += [Path(each).absolute() for each in sorted(glob.glob(text, recursive=True))[:1]]  # noqa: PTH207
    return found


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][:300]
