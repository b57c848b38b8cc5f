"""A worker's side of the protocol: take a unit, publish its part, until told to stop.

A driver that is gone is a reason to stop too: the worker publishes nothing half. Units are taken from
`Listening` on; `Loaded` is said once the work is loaded.
"""

import argparse
import contextlib
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pyarrow as pa

from assay import errors
from assay.data.arrow_alone import leave_pandas_out
from assay.errors import AssayError
from assay.processes import Parent, take_stdout, trace_of
from assay.runs.pipeline import Pipeline, StopRequestedError, UnfitError, Work
from assay.runs.plan import Unit
from assay.runs.protocol import (
    Done,
    Event,
    Failed,
    Finish,
    Json,
    Listening,
    Loaded,
    Loading,
    Phase,
    Take,
    UnderWay,
    event_to_json,
    parse_command,
)
from assay.runs.run import Run, open_run
from assay.telemetry import configure_logging

PROGRESS_SECONDS = 0.5


class Line(Protocol):
    """What carries messages between a worker and its driver."""

    def send(self, event: Json, /) -> bool:
        """Tell the driver; False where it is gone."""
        ...

    def messages(self) -> Iterator[Json]:
        """What the driver says, until it is gone."""
        ...


class Mailbox:
    """The worker's end of the line to its driver."""

    def __init__(self, run: Run, line: Line) -> None:
        """Take the units of `run` from the driver at the other end."""
        self._units = {unit.name: unit for unit in run.units}
        self._line = line
        self._stop = threading.Event()

    def should_stop(self) -> bool:
        """Whether the driver said stop, or is gone."""
        return self._stop.is_set()

    def send(self, event: Event) -> None:
        """Tell the driver; a driver that is gone is a reason to stop."""
        if not self._line.send(event_to_json(event)):
            self._stop.set()

    def say_phase(self, phase: Phase) -> None:
        """Tell the driver what is being done before the first part."""
        self.send(Loading(phase=phase))

    def listen(self, pipeline: Pipeline) -> None:
        """Pass the driver's units on to `pipeline` from a thread of its own."""
        threading.Thread(target=self._listen, args=(pipeline,), name="listen", daemon=True).start()

    def _listen(self, pipeline: Pipeline) -> None:
        for message in self._line.messages():
            match parse_command(message):
                case Take(unit=name):
                    pipeline.add(self._units[name])
                case Finish():
                    pipeline.close()
                    return
                case _:
                    break
        self._stop.set()
        pipeline.close()


def serve_units(run: Run, work: Work[Any, Any], mailbox: Mailbox) -> None:
    """Take units from the driver and publish their parts until it says end or stop.

    Raises what loading the work raised, and UnfitError where the work finds later that it cannot be done here.
    """
    with Pipeline(work, mailbox.should_stop) as pipeline, contextlib.suppress(StopRequestedError):
        mailbox.listen(pipeline)
        mailbox.send(Listening())
        description = pipeline.load()
        gc.freeze()  # what was imported and loaded stays to the end
        mailbox.send(Loaded(description=description))
        for unit, computed in pipeline.units():
            _serve_unit(run, work, mailbox, unit, computed, pipeline.unit_started_at)


def _serve_unit(
    run: Run, work: Work[Any, Any], mailbox: Mailbox, unit: Unit, computed: Iterator[Any], started_at: float
) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        last = time.monotonic()
        for batch in work.finish(unit, computed):
            yield batch
            if mailbox.should_stop():
                raise StopRequestedError
            if time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                mailbox.send(UnderWay(counters=work.counters))

    try:
        published = run.publish(
            unit,
            batches(),
            rows_in=lambda: work.rows_in,
            stats=lambda: {**work.stats(), "started_at": started_at},
        )
    except (StopRequestedError, UnfitError):
        raise
    except Exception as error:  # noqa: BLE001  whatever a unit dies of, the driver decides what follows
        _send_failure(mailbox, error, unit)
    else:
        mailbox.send(Done(unit=unit.name, created=published.created, counters=work.counters))


def _send_failure(mailbox: Mailbox, error: Exception, unit: Unit | None) -> None:
    mailbox.send(
        Failed(
            unit=unit.name if unit else None,
            kind=errors.kind_of(error),
            message=str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {error}",
            trace=trace_of(error),
        )
    )


def serve_run(run: Run, open_work: Callable[[Mailbox], Work[Any, Any]], mailbox: Mailbox) -> int:
    """Open the work and serve units; returns the exit status, and tells the driver why it is not 0."""
    try:
        serve_units(run, open_work(mailbox), mailbox)
    except UnfitError as unfit:
        _send_failure(mailbox, unfit.cause, None)
        return 1
    except Exception as error:  # noqa: BLE001  it could not start; the driver reports it and decides
        _send_failure(mailbox, error, None)
        return 1
    return 0


def worker_main(run: Run, open_work: Callable[[Mailbox], Work[Any, Any]]) -> int:
    """The body of a worker process: open the work, serve units. Returns the exit status.

    `open_work` is given the mailbox, which knows whether to stop and tells the driver of phases, and
    returns the work, not yet loaded. Whatever libraries print goes to stderr.
    """
    return serve_run(run, open_work, Mailbox(run, Parent(sys.stdin, take_stdout())))


def worker_command(
    documentation: str | None, open_work: Callable[[Run, Mailbox, str, int | None], Work[Any, Any]]
) -> int:
    """The command of a worker process, as `place_processes` starts it: `RUN --device cuda:0 --threads 4`.

    `open_work` is given the run, the mailbox, the device and the number of threads. Returns the exit status.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # schedulers signal every process of a job: the driver decides
    parser = argparse.ArgumentParser(description=documentation)
    parser.add_argument("run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    configure_logging()
    leave_pandas_out()
    run = open_run(arguments.run)
    return worker_main(run, lambda mailbox: open_work(run, mailbox, arguments.device, arguments.threads))
