"""Workers in this process, without a pipe: what the driver decides, seen without starting anything."""

from support.fake_runs import publish_unit

from assay.runs.driver import WorkerSpec
from assay.runs.protocol import Done, Ended, Failed, Listening, Loaded, Take
from assay.telemetry import Counters


class FakeHandle:
    """Publishes each unit as soon as it is given, or once it is released; dies of those in `deadly`, once each.

    From the unit `sick_from` on it fails of every one.
    """

    def __init__(self, run, hear, *, deadly, loads, holds=False, sick_from=None):
        self.commands = []
        self._run = run
        self._hear = hear
        self._deadly = deadly
        self._units = {unit.name: unit for unit in run.manifest.units()}
        self._counters = Counters()
        self._has_ended = False
        self._held = [] if holds else None
        self._sick_from = sick_from
        self._is_sick = False
        hear(Listening())
        if loads:
            hear(Loaded(description="in this process"))

    def send(self, command):
        self.commands.append(command)
        if not isinstance(command, Take):
            self._end("worker exited with status 0")
        elif command.unit in self._deadly:
            self._deadly.remove(command.unit)
            self._end("worker was killed by SIGKILL (out of memory?)")
        elif self._held is not None:
            self._held.append(command)
        elif self._is_sick or self._sick_from in ("", command.unit):
            self._is_sick = True
            self._hear(Failed(unit=command.unit, kind=None, message="RuntimeError: CUDA error", trace=""))
        elif not self._has_ended:
            published = publish_unit(self._run, self._units[command.unit])
            self._counters.rows += published.rows_out
            counters = Counters(rows=self._counters.rows)
            self._hear(Done(unit=command.unit, created=published.created, counters=counters))

    def release(self):
        """Publish what was held, and hold nothing more."""
        held, self._held = self._held, None
        for command in held:
            self.send(command)

    def kill(self):
        self._end("worker was killed by SIGKILL (out of memory?)")

    def wait(self, seconds):
        return self._has_ended

    def _end(self, cause):
        if not self._has_ended:
            self._has_ended = True
            self._hear(Ended(cause=cause))


def fake_spec(run, *, name="a worker", deadly=(), loads=True, holds=False, started=None, sick_from=()):
    """A worker in this process; its handles are appended to `started`.

    `sick_from` has the unit that makes it sick, for each start in turn; "" for the first that it gets.
    """
    left, sick = set(deadly), list(sick_from)

    def start(hear):
        unit = sick.pop(0) if sick else None
        handle = FakeHandle(run, hear, deadly=left, loads=loads, holds=holds, sick_from=unit)
        if started is not None:
            started.append(handle)
        return handle

    return WorkerSpec(name=name, start=start)
