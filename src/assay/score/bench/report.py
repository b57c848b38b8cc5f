"""What `assay bench` found, as one JSON object and as lines for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.engine.measure import Throughput
from assay.score.bench.estimate import Estimate
from assay.score.bench.sample import Sample
from assay.tasks import Task
from assay.telemetry import format_count, format_number_of, format_rate

_HOURS_A_DAY = 24
_LEAST_LOGIT_ROUNDING = 5e-7
"""What prints as no difference at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReport:
    """What `bench` found."""

    bundle: str
    task: Task
    num_labels: int
    device: str
    """Name and hardware."""
    precision: str
    description: str
    """What the engine says of itself."""
    sample: Sample
    num_rows: int
    """Rows of all the sources."""
    ceiling: float | None
    """TFLOP/s of a matrix product in this precision, measured before and after; None where there is none."""
    engine: Throughput
    padded: Throughput | None
    """transformers' own forward pass on the same documents; None where that is the engine."""
    ratio: float | None
    """Documents a second, engine over padded: the median of the pairs of rounds."""
    largest_difference: float | None
    """Of a probability (regression: a prediction), engine against padded."""
    tokenize_docs_per_second: float | None
    num_cores: int
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        sample, estimate = self.sample, self.estimate
        lengths = np.diff(sample.sequences.offsets)
        return {
            "bundle": self.bundle,
            "device": self.device,
            "precision": self.precision,
            "description": self.description,
            "sample": {
                "documents": sample.num_documents,
                "error_rows": sample.num_rows - sample.num_documents,
                "sequences": len(lengths),
                "tokens": int(lengths.sum()),
                "longest": sample.num_tokens_longest,
                "truncated_share": _short(sample.truncated_share),
            },
            "rows": self.num_rows,
            "ceiling_teraflops": _short(self.ceiling),
            "engine": self.engine.to_json(),
            "padded": None if self.padded is None else self.padded.to_json(),
            "ratio": _short(self.ratio),
            "largest_difference": _short(self.largest_difference),
            "tokenize_docs_per_second": _short(self.tokenize_docs_per_second),
            "cores": self.num_cores,
            "estimate": {
                "documents": estimate.num_documents,
                "docs_per_second": _short(estimate.docs_per_second),
                "hours": _short(estimate.hours),
                "cost": None if estimate.cost is None else round(estimate.cost, 2),
                "bound": estimate.bound,
            },
        }

    def __str__(self) -> str:
        """The report for people."""
        sample = self.sample
        lengths = np.diff(sample.sequences.offsets)
        mean = lengths.sum() / sample.num_documents
        bad = sample.num_rows - sample.num_documents
        lines = [
            f"bundle    {self.bundle}: {self.task}, {self.num_labels} outputs",
            f"device    {self.device}, {self.precision}",
            f"engine    {self.description}",
            f"sample    {format_number_of(sample.num_documents, 'document')} of "
            f"{format_number_of(self.num_rows, 'row')}, mean {mean:.0f} tokens, "
            f"longest {sample.num_tokens_longest:,}, {sample.truncated_share:.1%} cut"
            + (f"; {bad:,} bad rows left out" if bad else ""),
            "",
            *_table([("engine", self.engine), ("transformers, padded", self.padded)]),
            "",
        ]
        if self.ceiling is not None:
            lines.append(f"ceiling   {self.ceiling:,.3g} TFLOP/s, a measured product of large matrices")
        if self.ratio is not None and self.largest_difference is not None:
            lines.append(f"ratio     {self.ratio:.2f}; {_difference(self.largest_difference, self.task)}")
        if self.tokenize_docs_per_second is not None:
            rate = format_rate(self.tokenize_docs_per_second)
            lines.append(f"tokenizer {rate} docs/s on {self.num_cores} cores")
        return "\n".join([*lines, f"estimate  {_estimate_line(self.estimate)}"])


def _table(rows: Sequence[tuple[str, Throughput | None]]) -> list[str]:
    header = (
        f"{'':22}{'docs/s':>10}{'tokens/s':>12}{'TFLOP/s':>10}{'of ceiling':>12}{'padding':>9}{'idle':>8}"
    )
    lines = [header]
    for name, found in rows:
        if found is not None:
            lines.append(
                f"{name:22}{format_rate(found.docs_per_second):>10}{format_rate(found.tokens_per_second):>12}"
                f"{'-' if found.teraflops is None else f'{found.teraflops:.3g}':>10}"
                f"{_percent(found.ceiling_share):>12}{found.padding_waste:>9.1%}{_percent(found.idle_share):>8}"
            )
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _difference(largest: float, task: Task) -> str:
    what = "prediction" if task is Task.REGRESSION else "probability"
    return (
        f"largest difference of a {what} {largest:.1e}" if largest > _LEAST_LOGIT_ROUNDING else "equal scores"
    )


def _estimate_line(found: Estimate) -> str:
    days = f" ({found.hours / _HOURS_A_DAY:,.1f} days)" if found.hours > 2 * _HOURS_A_DAY else ""
    hours = f"{found.hours:,.1f} hours" if found.hours >= 1 else f"{found.hours * 60:,.1f} minutes"
    cost = "" if found.cost is None else f", {found.cost:,.2f} at the price given"
    bound = {
        "engine": "bounded by the engine",
        "tokenizer": "bounded by the tokenizer: give it more cores, or tokenize once with `assay tokenize`",
        "both": "engine and tokenizer share the cores",
    }[found.bound]
    rate = format_rate(found.docs_per_second)
    return f"{format_count(found.num_documents)} documents: {hours}{days} on one device{cost} ({rate} docs/s; {bound})"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
