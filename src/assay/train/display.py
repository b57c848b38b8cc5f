"""The progress of a training on stderr: a live line on a terminal, elsewhere JSON for a log collector.

Elsewhere means a line a minute and one for each validation.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from assay.tasks import MetricName
from assay.telemetry import Display, bar_line, format_duration, format_rate
from assay.train.history import TrainProgress
from assay.train.speed import Rates, RateWindow


class TrainDisplay(Display):
    """Shows `TrainProgress` on stderr; `update` is what `train` takes as `on_progress`."""

    def __init__(
        self,
        shown_metric: MetricName,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show progress on `stream` (stderr), and of validations on a terminal `shown_metric`."""
        super().__init__("train", stream=stream, clock=clock)
        self._shown_metric = shown_metric
        self._window = RateWindow()
        self._phase: str | None = "starting"
        self._newest: tuple[TrainProgress, Rates] | None = None

    def phase(self, name: str) -> None:
        """Show what begins: on a terminal until the next step, elsewhere as a line where no step is done yet."""
        self._phase = name
        if not self.is_live and self._newest is None:
            self.write("phase", {"phase": name})

    def update(self, progress: TrainProgress) -> None:
        """Show where the training stands now; called for each step and each validation."""
        rates = self._window.add(progress)
        self._newest, self._phase = (progress, rates), None
        if not self.is_live and (progress.validation is not None or self.is_due()):
            self.write_progress(to_json(progress, rates))

    def line(self, width: int) -> str:
        """What a terminal of so many columns shows now."""
        share, figures = 0.0, [self._phase or "starting", format_duration(self.elapsed)]
        if self._newest is not None:
            progress, rates = self._newest
            share = progress.step / max(1, progress.num_steps)
            if self._phase is None:
                figures = live_figures(progress, rates, self._window.validation, self._shown_metric)
        return bar_line("train", share, figures, width)


def live_figures(
    progress: TrainProgress, rates: Rates, validation: TrainProgress | None, shown_metric: MetricName
) -> list[str]:
    """What stands behind the bar, the most important first; the loss is the mean of the newest steps."""
    rate = rates.samples_per_second
    figures = [
        f"{'-' if rate is None else format_rate(rate)} samples/s",
        f"{format_duration(rates.seconds_left)} left",
        f"loss {rates.loss:.4f}",
    ]
    if validation is not None and validation.validation is not None:
        figures.append(f"{shown_metric} {validation.validation[shown_metric]:.4f}")
    figures += [
        f"epoch {progress.epoch}/{progress.num_epochs}",
        f"step {progress.step:,}/{progress.num_steps:,}",
        f"lr {progress.learning_rate:.2e}",
    ]
    if rates.tokens_per_second is not None:
        figures.append(f"{format_rate(rates.tokens_per_second)} tok/s")
    if rates.mfu is not None:
        figures.append(f"{rates.mfu:.0%} MFU")
    return figures


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
