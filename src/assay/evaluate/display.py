"""What `assay evaluate` shows on stderr while it runs."""

from assay.telemetry import Display, bar_line, format_duration


class EvaluateDisplay(Display):
    """Shows the step of an evaluation and its share: a live bar on a terminal, a JSON line a minute elsewhere."""

    _step = "reading"
    _share = 0.0

    def update(self, step: str, share: float) -> None:
        """Take in how far a step is, 0 to 1."""
        self._step, self._share = step, share
        if not self.is_live and self.is_due():
            self.write_progress({"step": step, "share": round(share, 3), "seconds": round(self.elapsed, 1)})

    def line(self, width: int) -> str:
        """`evaluate ━━━━━━────── 42% resampling all rows, 0:12`."""
        return bar_line("evaluate", self._share, [self._step, format_duration(self.elapsed)], width)
