"""The progress of a training on stderr: a live line on a terminal, elsewhere JSON for a log collector.

Elsewhere means a line a minute and one for each validation.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from assay.tasks import MetricName
from assay.telemetry import JSON_INTERVAL_SECONDS, LiveBar, format_duration, format_rate
from assay.train.history import TrainProgress
from assay.train.speed import Rates, RateWindow


class TrainDisplay:
    """Shows `TrainProgress` on stderr; `update` is what `train` takes as `on_progress`."""

    def __init__(
        self,
        shown_metric: MetricName,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show progress on `stream` (stderr), and of validations on a terminal `shown_metric`."""
        self._shown_metric = shown_metric
        self._stream = stream or sys.stderr
        self._clock = clock
        self._last_line = clock()
        self._window = RateWindow()
        self._step, self._num_steps = 0, 1
        self._bar = LiveBar("train") if self._stream.isatty() else None

    def __enter__(self) -> Self:
        """Begin showing."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing, leaving the last state on a terminal."""
        if self._bar:
            self._bar.stop()

    def phase(self, name: str) -> None:
        """Show what begins: on a terminal until the next step, elsewhere as a line where no step is done yet."""
        if self._bar:
            self._bar.update(self._step, self._num_steps, name)
        elif self._step == 0:
            self._write({"event": "phase", "task": "train", "phase": name})

    def update(self, progress: TrainProgress) -> None:
        """Show where the training stands now; called for each step and each validation."""
        rates = self._window.add(progress)
        self._step, self._num_steps = progress.step, progress.num_steps
        if self._bar:
            line = live_line(progress, rates, self._window.validation, self._shown_metric)
            self._bar.update(progress.step, progress.num_steps, line)
        elif progress.validation is not None or self._clock() - self._last_line >= JSON_INTERVAL_SECONDS:
            self._last_line = self._clock()
            self._write({"event": "progress", "task": "train", **to_json(progress, rates)})

    def _write(self, line: Mapping[str, object]) -> None:
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


def live_line(
    progress: TrainProgress, rates: Rates, validation: TrainProgress | None, shown_metric: MetricName
) -> str:
    """What stands behind the bar; the loss is the mean of the newest steps."""
    parts = [
        f"epoch {progress.epoch}/{progress.num_epochs}",
        f"step {progress.step:,}/{progress.num_steps:,}",
        f"{format_duration(rates.seconds_left)} left",
        f"loss {rates.loss:.4f}",
    ]
    if validation is not None and validation.validation is not None:
        parts.append(f"{shown_metric} {validation.validation[shown_metric]:.4f}")
    parts.append(f"lr {progress.learning_rate:.2e}")
    if rates.samples_per_second is not None and rates.tokens_per_second is not None:
        parts.append(f"{format_rate(rates.samples_per_second)} samples/s")
        parts.append(f"{format_rate(rates.tokens_per_second)} tok/s")
    if rates.mfu is not None:
        parts.append(f"{rates.mfu:.0%} MFU")
    return ", ".join(parts)


def to_json(progress: TrainProgress, rates: Rates) -> dict[str, object]:
    """The figures as one JSON object; null for what is not known."""
    line: dict[str, object] = {
        "epoch": progress.epoch,
        "num_epochs": progress.num_epochs,
        "step": progress.step,
        "num_steps": progress.num_steps,
        "loss": _digits(rates.loss),
        "learning_rate": _digits(progress.learning_rate),
        "samples_per_second": _digits(rates.samples_per_second),
        "tokens_per_second": _digits(rates.tokens_per_second),
        "mfu": _digits(rates.mfu),
        "seconds": round(progress.seconds, 1),
        "seconds_left": None if rates.seconds_left is None else round(rates.seconds_left),
    }
    if progress.validation is not None:
        line["validation"] = plain(progress.validation)
    return line


def plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON takes them: null where undefined."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
