"""A worker process without a model: scores made of the ids. Told to, it is slow, fails, or dies at a step.

What it is told comes as JSON in the environment variable FAKE_WORKER (class `Orders`). Deaths are drawn from
a folder with a file for each: the process that removes the file dies of it, so each happens once, whatever
the driver starts again. Nothing of this is known to the package.
"""

import functools
import json
import os
import random
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay import errors
from assay.data import object_store, storage
from assay.data.reading import read_rows
from assay.errors import RefusedError
from assay.runs.pipeline import StopRequestedError, UnfitError
from assay.runs.run import open_run
from assay.runs.worker import Mailbox, worker_main
from assay.telemetry import Counters

ORDERS = "FAKE_WORKER"
BATCH_ROWS = 64
LABELS = ("ham", "spam")

# The publish protocol, in the order in which a unit meets it.
STEPS: dict[str, tuple[object, str]] = {
    "scratch": (storage.LocalStore, "scratch"),
    "write": (pq.ParquetWriter, "write_table"),
    "footer": (pq.ParquetWriter, "add_key_value_metadata"),
    "close": (pq.ParquetWriter, "close"),
    "create": (storage.LocalStore, "create"),
    "sync": (storage, "sync_file"),
    "folder": (storage, "_make_folder"),
    "link": (os, "link"),
    "syncfolder": (storage, "sync_folder"),
    "unlink": (Path, "unlink"),
    "send": (Mailbox, "send"),
    "put": (object_store.ObjectStore, "create"),
}
LOCAL_STEPS = [name for name in STEPS if name != "put"]


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a fake worker is told."""

    seconds_per_batch: float = 0.0
    """Slept for each batch of 64 rows."""
    deaths: str | None = None
    """Folder of deaths to draw from, see `plan_deaths`."""
    fail_units: tuple[str, ...] = ()
    """Units that fail whenever they are tried."""
    fail_kind: str = "RuntimeError"
    """What they fail of: RuntimeError, the name of an error of ours, or ENOSPC for a full disk."""
    start: str = "well"
    """How the start goes: well, refused, broken or exit."""
    load: str = "well"
    """How loading goes: well; broken or exit, once a unit was read; forever."""
    gate: str | None = None
    """What its gate fails of, once the rows of a unit are made; as `fail_kind`."""
    noisy: bool = False
    """Print to stdout, as libraries do."""
    log: str | None = None
    """File that gets a line for each unit begun: the process id and the unit."""

    def environment(self) -> dict[str, str]:
        """The variable that carries these orders."""
        return {ORDERS: json.dumps(asdict(self))}


def read_orders() -> Orders:
    """The orders in the environment."""
    return Orders(**json.loads(os.environ.get(ORDERS, "{}")))


# ------------------------------------------------------------ the work


class FakeWork:
    """Fills any part schema with values that depend on the id alone; a row with an error has no score."""

    def __init__(
        self, manifest, orders: Orders | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.counters = Counters()
        self._manifest = manifest
        self._orders = orders or Orders()
        self._should_stop = should_stop
        self._schema = manifest.arrow_schema()
        self._rows = 0
        self._has_read = threading.Event()

    def load(self) -> str:
        if self._orders.load == "forever":
            time.sleep(600)
        if self._orders.load != "well":
            assert self._has_read.wait(60), "no unit was read while this loaded"
            if self._orders.load == "exit":
                os._exit(3)
            msg = "no such device"
            raise RuntimeError(msg)
        return "fake worker"

    def prepare(self, unit) -> Iterator[object]:
        if self._orders.log:
            with Path(self._orders.log).open("a") as log:
                log.write(f"{os.getpid()} {unit.name}\n")
        source = self._manifest.source(unit.source)
        columns = self._manifest.source_columns()
        for rows in read_rows(source, columns, unit.start, unit.stop, batch_rows=BATCH_ROWS):
            self._has_read.set()
            yield rows

    def compute(self, rows) -> object:
        return rows

    def finish(self, unit, computed) -> Iterator[pa.RecordBatch]:
        self._rows = 0
        if self._orders.noisy:
            print("a library says hello on stdout")  # noqa: T201
        for rows in computed:
            if unit.name in self._orders.fail_units:
                fail(self._orders.fail_kind)
            if self._orders.seconds_per_batch:
                time.sleep(self._orders.seconds_per_batch)
            if self._should_stop():
                raise StopRequestedError
            self._rows += rows.num_rows
            self.counters.rows += rows.num_rows
            yield fake_batch(self._schema, rows)
        if self._orders.gate:
            try:
                fail(self._orders.gate)
            except Exception as error:  # noqa: BLE001
                raise UnfitError(error) from None

    @property
    def rows_in(self) -> int:
        return self._rows

    def stats(self) -> dict[str, object]:
        return {"num_rows": self._rows, "worker": f"fake-{os.getpid()}"}


def fake_batch(schema: pa.Schema, rows) -> pa.RecordBatch:
    """The rows of a part for the rows of a source."""
    ids = rows.ids
    if ids is None:
        ids = pa.array(range(rows.start, rows.start + rows.num_rows), pa.int64())
    hashes = np.array([zlib.crc32(repr(value).encode()) for value in ids.to_pylist()], dtype=np.int64)
    bad = np.array([index in rows.errors for index in range(rows.num_rows)], dtype=bool)
    columns = []
    for number, field in enumerate(schema):
        mixed = hashes // (number + 1)
        if number == 0:
            columns.append(ids.cast(field.type))
        elif field.name == "error":
            codes = [rows.errors.get(index) for index in range(rows.num_rows)]
            columns.append(pa.array(codes, field.type))
        elif pa.types.is_boolean(field.type):
            columns.append(pa.array(mixed % 2 == 0, field.type))
        elif pa.types.is_integer(field.type):
            columns.append(pa.array(mixed % 512, field.type))
        elif pa.types.is_floating(field.type):
            columns.append(pa.array((mixed % 100_003) / 100_003, pa.float64(), mask=bad).cast(field.type))
        else:
            columns.append(pa.array([LABELS[value % 2] for value in mixed], field.type, mask=bad))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def fail(kind: str) -> None:
    """Raise what the orders name."""
    if kind in errors.KINDS:
        msg = f"the source is bad, says {kind}; fix it"
        raise errors.KINDS[kind](msg)
    if kind == "ENOSPC":
        raise OSError(28, "No space left on device")
    msg = "the unit is cursed"
    raise RuntimeError(msg)


# ------------------------------------------------------------ deaths


def plan_deaths(folder: Path, deaths: list[str]) -> Path:
    """A folder to draw these deaths from, in order.

    A death is `<before|after>.<step>.<n>`, around the n-th time that the process comes to the step, or
    `timer.<milliseconds>` after it is ready.
    """
    (folder / "waiting").mkdir(parents=True)
    (folder / "met").mkdir()
    for number, death in enumerate(deaths):
        (folder / "waiting" / f"{number:04}.{death}").touch()
    return folder


def deaths_met(folder: Path) -> list[str]:
    """The deaths that processes died."""
    return sorted(path.name.split(".", 1)[1] for path in (folder / "met").iterdir())


def draw_death(folder: Path) -> None:
    """Take the next death, if one is waiting, and arrange for it."""
    for path in sorted((folder / "waiting").iterdir()):
        try:
            path.unlink()
        except FileNotFoundError:
            continue  # another process was quicker
        arrange(folder, path.name)
        return


def arrange(folder: Path, name: str) -> None:
    """Make this process die as `name` says."""
    _, when, what, *rest = name.split(".")
    if when == "timer":
        threading.Thread(target=_die_later, args=(folder, name, float(what) / 1000), daemon=True).start()
        return
    owner, attribute = STEPS[what]
    original = getattr(owner, attribute)
    left = int(rest[0])

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            die(folder, name)
        result = original(*args, **kwargs)
        if left == 0:
            die(folder, name)
        return result

    setattr(owner, attribute, wrapped)


def die(folder: Path, name: str) -> None:
    """SIGKILL, at once; what Python would still do does not happen."""
    os.close(os.open(folder / "met" / name, os.O_CREAT | os.O_WRONLY))
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _die_later(folder: Path, name: str, seconds: float) -> None:
    time.sleep(seconds)
    die(folder, name)


def all_deaths(*, timers: int, seed: int) -> list[str]:
    """A death before and after each step, at its first to third time, and `timers` at random moments; shuffled."""
    chance = random.Random(seed)
    deaths = [f"{when}.{step}.{n}" for step in LOCAL_STEPS for when in ("before", "after") for n in (1, 2, 3)]
    deaths += [f"timer.{chance.randrange(60)}" for _ in range(timers)]
    chance.shuffle(deaths)
    return deaths


# ------------------------------------------------------------ the process


def main() -> int:
    """Serve units of the run named first, as `assay.score.worker` would."""
    orders = read_orders()
    if orders.start == "exit":
        return 3
    run = open_run(sys.argv[1])

    def open_work(mailbox: Mailbox) -> FakeWork:
        if orders.start == "refused":
            msg = "the model is another now; put it back"
            raise RefusedError(msg)
        if orders.start == "broken":
            msg = "no such device"
            raise RuntimeError(msg)
        if orders.deaths:
            draw_death(Path(orders.deaths))
        return FakeWork(run.manifest, orders, mailbox.should_stop)

    return worker_main(run, open_work)


if __name__ == "__main__":
    sys.exit(main())
