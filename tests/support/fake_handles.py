"""Workers in this process, without a pipe: what the driver decides, seen without starting anything."""

from support.fake_runs import publish_unit

from assay.runs.driver import WorkerSpec
from assay.runs.protocol import Done, Ended, Listening, Loaded, Take
from assay.telemetry import Counters


class FakeHandle:
    """Publishes each unit as soon as it is given, or once it is released; dies of those in `deadly`, once each."""

    def __init__(self, run, hear, *, deadly, loads, holds=False):
        self.commands = []
        self._run = run
        self._hear = hear
        self._deadly = deadly
        self._units = {unit.name: unit for unit in run.manifest.units()}
        self._counters = Counters()
        self._has_ended = False
        self._held = [] if holds else None
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


def fake_spec(run, *, name="a worker", deadly=(), loads=True, holds=False, started=None):
    """A worker in this process; its handles are appended to `started`."""
    left = set(deadly)

    def start(hear):
        handle = FakeHandle(run, hear, deadly=left, loads=loads, holds=holds)
        if started is not None:
            started.append(handle)
        return handle

    return WorkerSpec(name=name, start=start)
