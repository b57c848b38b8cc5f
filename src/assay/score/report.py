"""A run as one HTML page that a person can look at.

All that comes from documents, labels, sources or footers is untrusted: the template escapes it, and
so do the charts. `timeline` and `tally` count, `charts` draws, this module puts the page together.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay import charts
from assay._version import __version__
from assay.data.storage import replace_file
from assay.errors import SourceError, UsageError
from assay.outcome.decide import thresholds_of
from assay.pages import Facts, Figure, Section, Table, reliability_figure, render_page
from assay.runs.manifest import Manifest
from assay.runs.parts import published_parts
from assay.runs.run import Run, open_run
from assay.runs.status import Status, status_of
from assay.score.kind import SCORE, ScoreRecord
from assay.score.plan import other_lengths_of
from assay.score.tally import LONGEST_COUNTED, SCORE_BINS, Tally, count_parts
from assay.score.timeline import Span, Throughput, throughput, worker_seconds
from assay.telemetry import format_count, format_duration, format_number_of, format_rate
from assay.tokenize.kind import TOKENIZE

REPORT_PATH = "report.html"
PARITY_PATH = "parity.json"
SHOWN_SOURCES = 50
SHOWN_LABELS = 12
LISTED_LABELS = 200
SHOWN_VALUES = 12
VALUE_BINS = 40
LONGEST_TEXT = 300
HOUR_SECONDS = 3600.0
MILLION = 1e6
PARITY_WORDS = {
    "num_documents": "documents compared",
    "max_abs_probability_difference": "largest difference of a probability",
    "tolerance.probability": "allowed difference of a probability",
    "max_abs_difference": "largest difference of a logit",
    "tolerance.logit": "allowed difference of a logit, as a share of the largest where that is above 1",
    "label_agreement": "share with the same label",
    "tolerance.agreement": "least share with the same label",
    "rank_correlation": "rank correlation",
    "tokenizer": "token ids",
    "token_difference": "first difference of token ids",
    "seconds": "seconds that it took",
}
"""Of the names in `parity.json`; others stand as they are."""
CALIBRATION_METRICS = {
    "nll": "negative log-likelihood (NLL)",
    "brier": "Brier score",
    "ece": "expected calibration error (ECE)",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "coverage": "share of targets within their interval",
}
CALIBRATION_NOTE = (
    "In-sample figures are of the very rows that the map was fitted on, so they are too kind; cross-validated "
    "ones are of rows that were left out of the fit."
)

Json = Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSummary:
    """Where the report lies, and its main figures."""

    path: str
    run_id: str
    is_complete: bool
    """Whether every unit was published when the report was made."""
    rows: int
    """Rows in the published parts."""
    rows_total: int
    """Rows that the run will have."""
    error_rows: int
    truncated_rows: int
    duplicate_rows: int
    num_tokens: int
    rows_per_second: float
    """Over working time, long pauses left out."""
    worker_hours: float
    """Hours in which a worker had a unit under way, summed over workers."""
    device_hours: float | None
    """Hours of forward passes; None where the parts do not say."""
    cost: float | None
    """Worker hours at the price given; None without a price."""
    parity_passed: bool | None
    """None where no parity gate was run."""

    def __str__(self) -> str:
        """One line for people."""
        state = "" if self.is_complete else f" of {format_count(self.rows_total)} (the run is not complete)"
        cost = "" if self.cost is None else f", cost {self.cost:,.2f}"
        return (
            f"{self.path}: {format_count(self.rows)} rows{state}, {self.error_rows:,} with an error code, "
            f"{format_rate(self.rows_per_second)} docs/s{cost}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _ErrorCode:
    code: str
    count: int
    share: str
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _RunPage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    status: Status
    begun_at: str
    missing: str
    """What is not published yet, for the banner; empty for a whole run."""
    complete: str
    """What the banner of a whole run says."""
    highlights: Facts
    scores: Section
    score_table: Table | None
    lengths: Section
    speed: Section
    errors: list[_ErrorCode]
    other_rows: Facts
    parity: Facts
    parity_passed: bool | None
    calibration: Section
    calibration_record: Facts
    """All that the run holds of `calibration.json`, but for the reliability diagram."""
    cost: Section
    cost_note: str
    sources: Section
    fingerprint: Section
    settings: Facts
    versions: Facts
    created: str


def report(
    run_url: str,
    *,
    out: str | None = None,
    price_per_hour: float | None = None,
    clock: Callable[[], float] = time.time,
) -> ReportSummary:
    """Write the report of the run at `run_url` to `out` (default: `report.html` in the run).

    Works while the run is under way; the page then says so. `price_per_hour` is that of one worker's
    device, in any currency. Raises SourceError where there is no run, CheckError for a damaged part.
    Cost: one pass over the score, length and error columns, in flat memory.
    """
    if price_per_hour is not None and not (math.isfinite(price_per_hour) and price_per_hour >= 0):
        msg = f"price per hour is {price_per_hour}; it is 0 or more; set --price-per-hour to a number"
        raise UsageError(msg)
    run = open_run(run_url)
    now = clock()
    status = status_of(run, published_parts(run), now=now)
    tally = count_parts(run)
    parity = _read_parity(run)
    path = out or f"{run.url}/{REPORT_PATH}"
    summary = _summary(path, status, tally, parity, price_per_hour)
    page = _page(run.manifest, status, tally, parity, summary, price_per_hour, now)
    _write(run, out, render_page("score", page))
    return summary


def _summary(
    path: str, status: Status, tally: Tally, parity: Json | None, price_per_hour: float | None
) -> ReportSummary:
    spans = _spans(tally)
    speed = throughput(spans)
    worker_hours = worker_seconds(spans) / HOUR_SECONDS
    device_seconds = _device_seconds(tally)
    passed = parity.get("passed") if parity is not None else None
    return ReportSummary(
        path=path,
        run_id=status.run_id,
        is_complete=status.is_complete,
        rows=tally.rows,
        rows_total=status.rows_total,
        error_rows=tally.error_rows,
        truncated_rows=tally.truncated_rows,
        duplicate_rows=int(_sum_stat(tally, "duplicate_rows") or 0),
        num_tokens=tally.num_tokens,
        rows_per_second=_rate(spans, speed),
        worker_hours=worker_hours,
        device_hours=None if device_seconds is None else device_seconds / HOUR_SECONDS,
        cost=None if price_per_hour is None else worker_hours * price_per_hour,
        parity_passed=passed if isinstance(passed, bool) else None,
    )


def _page(
    manifest: Manifest,
    status: Status,
    tally: Tally,
    parity: Json | None,
    summary: ReportSummary,
    price_per_hour: float | None,
    now: float,
) -> _RunPage:
    title, subtitle = _heading(manifest)
    missing, units = "", format_number_of(status.units_total, "unit is", "units are")
    if not status.is_complete:
        num_missing = status.units_total - status.units_published
        rows = status.rows_total - status.rows_published
        missing = (
            f"{num_missing:,} of {status.units_total:,} units ({rows:,} of {status.rows_total:,} rows) are not "
            "published. All figures below are of the published rows alone."
        )
    scores, score_table = _scores(tally, manifest)
    calibration, calibration_record = _calibration(manifest)
    return _RunPage(
        title=title,
        subtitle=subtitle,
        status=status,
        begun_at=_when(datetime.fromisoformat(manifest.created_at).timestamp()),
        missing=missing,
        complete=f"{units} published, none is missing.",
        highlights=_highlights(status, tally, summary),
        scores=scores,
        score_table=score_table,
        lengths=Section(title="Lengths", figures=_length_figures(tally), facts=_length_facts(tally)),
        speed=_speed(tally, summary),
        errors=_errors(tally),
        other_rows=_other_rows(tally, summary),
        parity=_parity(parity or {}),
        parity_passed=summary.parity_passed,
        calibration=calibration,
        calibration_record=calibration_record,
        cost=Section(title="Cost", facts=_cost(summary, price_per_hour)),
        cost_note=_cost_note(price_per_hour),
        sources=_sources(manifest),
        fingerprint=Section(
            title="Fingerprint",
            note="What makes the numbers; the run id is a hash of it and of the sources.",
            facts=[("run id", manifest.run_id), *_flatten(manifest.identity)],
        ),
        settings=_settings(manifest),
        versions=_versions(manifest, tally),
        created=_when(now),
    )


# ---------------------------------------------------------------- header


def _record(manifest: Manifest) -> ScoreRecord | None:
    """What a scoring run fixed; None for a tokenize run."""
    return manifest.read(SCORE)[1] if manifest.kind == SCORE.name else None


def _heading(manifest: Manifest) -> tuple[str, str]:
    record = _record(manifest)
    name = Path((record or manifest.read(TOKENIZE)[1]).bundle).name or "a classifier"
    sources = manifest.sources
    what = sources[0].name if len(sources) == 1 else format_number_of(len(sources), "source")
    verb = "tokenized for" if record is None else "scored by"
    columns = [column for column in (manifest.columns.text, manifest.columns.text_pair) if column]
    columns = columns or [manifest.columns.input_ids or "input_ids"]
    subtitle = f"{format_number_of(manifest.planned_rows, 'row')}, column {' and '.join(columns)}"
    return f"{what}, {verb} {name}", subtitle


def _highlights(status: Status, tally: Tally, summary: ReportSummary) -> Facts:
    facts = [
        ("rows", f"{status.rows_published:,}"),
        ("with an error code", f"{tally.error_rows:,}"),
        ("truncated", _share(tally.truncated_rows, tally.scored_rows)),
        ("tokens", format_count(tally.num_tokens)),
        ("documents a second", format_rate(summary.rows_per_second)),
    ]
    if summary.parity_passed is not None:
        facts.append(("parity gate", "passed" if summary.parity_passed else "NOT passed"))
    if summary.cost is not None:
        facts.append(("cost", f"{summary.cost:,.2f}"))
    return facts


# ---------------------------------------------------------------- scores


def _scores(tally: Tally, manifest: Manifest) -> tuple[Section, Table | None]:
    """Figures of the scores with what is not shown, and the table of labels."""
    labels = list(tally.scores)
    if not labels:
        values = list(tally.values)[:SHOWN_VALUES]
        figures = [_value_figure(tally, column, manifest) for column in values]
        return Section(title="Scores", figures=figures), None
    is_single = bool(tally.predictions)
    shown, note = labels, ""
    if len(labels) > SHOWN_LABELS:
        # A stable sort: without predictions these are the first labels.
        most = sorted(labels, key=lambda label: -tally.predictions[label])[:SHOWN_LABELS]
        shown = [label for label in labels if label in set(most)]
        which = "those predicted most often" if is_single else "the first ones"
        note = f"{SHOWN_LABELS} of {len(labels):,} labels are drawn, {which}."
    figures = []
    if is_single:
        counts = [tally.predictions[label] for label in shown]
        svg = charts.bar_chart("Documents by predicted label", shown, counts)
        figures.append(Figure(caption="Documents by predicted label", svg=svg))
    figures += [_score_figure(tally, label, is_single=is_single) for label in shown]
    table = _score_table(tally, labels[:LISTED_LABELS], is_single=is_single)
    return Section(title="Scores", note=note, figures=figures), table


def _score_figure(tally: Tally, label: str, *, is_single: bool) -> Figure:
    others, chosen = tally.scores[label].tolist()
    counts = [left + right for left, right in zip(others, chosen, strict=True)]
    edges = [index / SCORE_BINS for index in range(SCORE_BINS + 1)]
    svg = charts.histogram(
        f"Documents by probability of {label}",
        edges,
        counts,
        x_label="probability",
        highlight=chosen if is_single else None,
        highlight_name="predicted as this label",
    )
    ranges = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
    header: tuple[str, ...] = ("probability", "documents")
    columns = [ranges, [f"{count:,}" for count in counts]]
    if is_single:
        header = (*header, "of them predicted as this label")
        columns.append([f"{count:,}" for count in chosen])
    table = Table(header=header, rows=list(zip(*columns, strict=True)))
    return Figure(caption=f"Probability of {label}", svg=svg, table=table)


def _score_table(tally: Tally, labels: Sequence[str], *, is_single: bool) -> Table:
    header = ["label", "mean probability", "probability 0.5 or more"]
    if is_single:
        header.insert(1, "predicted")
    rows = []
    for label in labels:
        counts = tally.scores[label].sum(axis=0)
        total = int(counts.sum())
        mean = f"{tally.score_sums[label] / total:.4f}" if total else "-"
        row = [label, mean, _count_and_share(int(counts[SCORE_BINS // 2 :].sum()), total)]
        if is_single:
            row.insert(1, _count_and_share(tally.predictions[label], tally.scored_rows))
        rows.append(tuple(row))
    return Table(header=tuple(header), rows=rows)


def _value_figure(tally: Tally, column: str, manifest: Manifest) -> Figure:
    histogram = tally.values[column]
    edges, counts, outside = histogram.shown(VALUE_BINS)
    record = _record(manifest)
    name = column.removeprefix("prediction_") if record is not None and len(record.labels) > 1 else column
    svg = charts.histogram(f"Documents by {name}", edges, counts, x_label=name)
    caption = f"{name}: {histogram.low:.4g} to {histogram.high:.4g}" if histogram.width else name
    if outside:
        caption += f"; {outside:,} documents lie outside of the range drawn"
    ranges = [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)]
    table = Table(
        header=(name, "documents"),
        rows=[(where, f"{count:,}") for where, count in zip(ranges, counts, strict=True)],
    )
    return Figure(caption=caption, svg=svg, table=table)


# ---------------------------------------------------------------- lengths


def length_bins(lengths: NDArray[np.int64], longest: int) -> tuple[list[int], list[int]]:
    """Edges and counts of documents by length, from the documents of each length and the longest of all.

    A bin holds the lengths above its lower edge up to its upper one (the first one 0 too): 1, 2, 4, 8, 12, 16,
    24, 32, ..., each power of two and the middle between, so that texts cut at 512 tokens are in the bin up to
    512. The last edge is the longest document.
    """
    edges = [0, 1, 2, 4]
    while edges[-1] < LONGEST_COUNTED:
        power = edges[-1] * 2
        edges += [power] if power == 8 else [power * 3 // 4, power]
    counts = [int(lengths[low + 1 if low else 0 : high + 1].sum()) for low, high in pairwise(edges)]
    # Trim empty bins at both ends, in steps that leave powers of two under the labelled ticks.
    first = next(index for index, count in enumerate(counts) if count)
    first = 0 if first < 4 else first - first % 2
    last = max(index for index, count in enumerate(counts) if count)
    return [*edges[first : last + 1], max(longest, 1)], counts[first : last + 1]


def _length_figures(tally: Tally) -> list[Figure]:
    if not tally.lengths.any():
        return []
    edges, counts = length_bins(tally.lengths, tally.longest)
    svg = charts.histogram(
        "Documents by number of tokens",
        edges,
        counts,
        x_label="tokens, special ones included (bins grow)",
        even_bins=True,
    )
    ranges = [_token_range(low + 1 if low else 0, high) for low, high in pairwise(edges)]
    table = Table(
        header=("tokens", "documents"),
        rows=[(where, f"{count:,}") for where, count in zip(ranges, counts, strict=True)],
    )
    return [Figure(caption="Documents by number of tokens", svg=svg, table=table)]


def _token_range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _length_facts(tally: Tally) -> Facts:
    documents = int(tally.lengths.sum())
    if not documents:
        return []
    return [
        ("tokens in all", f"{tally.num_tokens:,}"),
        ("mean", f"{tally.num_tokens / documents:,.1f}"),
        ("median", f"{tally.length_at(0.5):,}"),
        ("95% have at most", f"{tally.length_at(0.95):,}"),
        ("longest", f"{tally.longest:,}"),
        ("truncated", _count_and_share(tally.truncated_rows, tally.scored_rows)),
    ]


# ---------------------------------------------------------------- speed and cost


def _spans(tally: Tally) -> list[Span]:
    spans = []
    for unit, stats in tally.stats:
        started, finished = _number(stats.get("started_at")), _number(stats.get("finished_at"))
        worker = stats.get("worker")
        if started is not None and finished is not None and finished >= started:
            spans.append(
                Span(
                    started_at=started,
                    finished_at=finished,
                    num_rows=unit.num_rows,
                    worker=str(worker) if worker else None,
                )
            )
    return spans


def _rate(spans: Sequence[Span], speed: Throughput | None) -> float:
    return sum(span.num_rows for span in spans) / speed.active_seconds if speed else 0.0


def _speed(tally: Tally, summary: ReportSummary) -> Section:
    spans = _spans(tally)
    speed = throughput(spans)
    if speed is None:
        return Section(title="Throughput")
    scale, unit = _time_unit(speed.active_seconds)
    marks = [charts.Mark(x=cut.at / scale, text=f"idle {format_duration(cut.seconds)}") for cut in speed.cuts]
    times = [at / scale for at in speed.seconds]
    svg = charts.line_chart(
        "Documents a second over working time",
        [charts.Line(name="all workers", x=times, y=speed.rows_per_second)],
        x_label=f"{unit} of working time",
        y_label="documents a second",
        marks=marks,
        y_range=(0.0, math.inf),
    )
    table = Table(
        header=(f"{unit} of working time", "documents a second"),
        rows=[
            (f"{at:,.2f}", format_rate(rate)) for at, rate in zip(times, speed.rows_per_second, strict=True)
        ],
    )
    caption = "Documents a second, all workers together"
    if speed.cuts:
        caption += (
            f"; {format_number_of(len(speed.cuts), 'idle stretch', 'idle stretches')} left out (dashed)"
        )
    workers = {span.worker for span in spans if span.worker}
    facts = [
        ("first part begun", _when(min(span.started_at for span in spans))),
        ("last part finished", _when(max(span.finished_at for span in spans))),
        ("working time", format_duration(speed.active_seconds)),
        ("documents a second", format_rate(summary.rows_per_second)),
        ("tokens a second", format_rate(tally.num_tokens / speed.active_seconds)),
        ("workers", f"{len(workers):,}" if workers else "not known"),
        ("parts", f"{len(spans):,}"),
    ]
    padding = _sum_stat(tally, "padded_tokens")
    if padding is not None:
        facts.append(("padding tokens", f"{padding:,.0f}"))
    return Section(title="Throughput", figures=[Figure(caption=caption, svg=svg, table=table)], facts=facts)


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds >= 3 * HOUR_SECONDS:
        return HOUR_SECONDS, "hours"
    return (60.0, "minutes") if seconds >= 180 else (1.0, "seconds")


def _device_seconds(tally: Tally) -> float | None:
    seconds = _sum_stat(tally, "device_seconds")
    milliseconds = _sum_stat(tally, "device_milliseconds")
    return seconds if milliseconds is None else (seconds or 0.0) + milliseconds / 1000


def _cost(summary: ReportSummary, price_per_hour: float | None) -> Facts:
    facts = [("worker hours", f"{summary.worker_hours:,.4g}")]
    if summary.device_hours is not None:
        facts.append(("of them in the forward pass", f"{summary.device_hours:,.4g} h"))
        if summary.worker_hours > 0:
            share = min(summary.device_hours / summary.worker_hours, 1.0)
            facts.append(("share of the time in the forward pass", f"{share:.1%}"))
    if price_per_hour is not None and summary.cost is not None:
        facts.append(("price of a device hour", f"{price_per_hour:,.4g}"))
        facts.append(("cost", f"{summary.cost:,.2f}"))
        if summary.rows:
            facts.append(("cost of a million documents", f"{summary.cost / summary.rows * MILLION:,.4g}"))
    elif summary.rows:
        hours = summary.worker_hours / summary.rows * MILLION
        facts.append(("worker hours for a million documents", f"{hours:,.4g}"))
    return facts


def _cost_note(price_per_hour: float | None) -> str:
    note = (
        "Worker hours are the time in which a worker had a published unit under way. Starting up, waiting "
        "and units that were lost and done again are not in them."
    )
    return note if price_per_hour is not None else f"{note} Give --price-per-hour to see what it cost."


# ---------------------------------------------------------------- errors, parity, calibration


def _errors(tally: Tally) -> list[_ErrorCode]:
    return [
        _ErrorCode(
            code=code,
            count=count,
            share=_share(count, tally.rows),
            examples=tuple(tally.examples.get(code, ())),
        )
        for code, count in tally.errors.most_common()
    ]


def _other_rows(tally: Tally, summary: ReportSummary) -> Facts:
    facts = []
    if _sum_stat(tally, "duplicate_rows") is not None:
        share = _count_and_share(summary.duplicate_rows, tally.rows)
        facts.append(("duplicates of another document, run once", share))
    empty = _sum_stat(tally, "empty_rows")
    if empty is not None:
        facts.append(("empty texts", _count_and_share(int(empty), tally.rows)))
    if tally.not_finite:
        facts.append(("scores that are not a number, without an error code", f"{tally.not_finite:,}"))
    return facts


def _read_parity(run: Run) -> Json | None:
    if run.store.info(PARITY_PATH) is None:
        return None
    try:
        parity = json.loads(run.store.read_bytes(PARITY_PATH))
    except ValueError as error:
        msg = f"{run.url}/{PARITY_PATH} is not JSON ({error}); delete it and make the report again"
        raise SourceError(msg) from error
    return parity if isinstance(parity, dict) else {"parity": parity}


def _parity(parity: Json) -> Facts:
    """What the gate found, in words; whether it passed stands beside the heading."""
    found = _flatten(
        {name: value for name, value in parity.items() if name != "passed" and value is not None}
    )
    return [(PARITY_WORDS.get(name, name), value) for name, value in found]


def _calibration(manifest: Manifest) -> tuple[Section, Facts]:
    """How probabilities were calibrated and what that changed, and all that the run holds of it."""
    record = _record(manifest)
    if record is None or not record.calibration:
        return Section(title="Calibration"), []
    settings = record.calibration
    bins = _bins(settings.get("reliability"))
    caption = "Reliability on the calibration rows, in-sample: on the dashed line probabilities are honest"
    facts = [("method", _one_line(settings.get("method")))]
    if settings.get("temperature") is not None:
        facts.append(("temperature", _one_line(settings["temperature"])))
    if record.threshold is not None:
        thresholds = thresholds_of(record.task, record.labels, record.threshold)
        facts += [(f"threshold of {label}", f"{threshold:.4f}") for label, threshold in thresholds.items()]
    for name, words in (
        ("n_samples", "calibration rows"),
        ("n_groups", "their groups"),
        ("max_length", "their longest, tokens"),
        ("on_long", "longer ones"),
        ("stride", "overlap of their windows, tokens"),
    ):
        if settings.get(name) is not None:
            facts.append((words, _one_line(settings[name])))
    table = _calibration_table(settings)
    note = other_lengths_of(manifest)
    return Section(
        title="Calibration",
        note=" ".join(
            part
            for part in (f"Take care: {note}." if note else "", CALIBRATION_NOTE if table else "")
            if part
        ),
        figures=[reliability_figure(caption, bins)] if bins else [],
        facts=facts,
        table=table,
    ), _flatten({name: value for name, value in settings.items() if name != "reliability"})


def _calibration_table(settings: Json) -> Table | None:
    """Figures of the calibration rows before, after, and left out of the fit; None where there are none."""
    columns = [settings.get("before"), settings, settings.get("cross_validated")]
    rows = []
    for name, words in CALIBRATION_METRICS.items():
        found = [_number(each.get(name)) if isinstance(each, dict) else None for each in columns]
        if any(value is not None for value in found):
            rows.append((words, *("-" if value is None else f"{value:.4f}" for value in found)))
    header = ("figure", "not calibrated", "calibrated, in-sample", "calibrated, cross-validated")
    return Table(header=header, rows=rows) if rows else None


def _bins(entries: object) -> list[tuple[float, float, int]]:
    """Confidence, accuracy and count of `[{confidence, accuracy, count}, ...]`; none of anything else."""
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            said, was, count = (_number(entry.get(key)) for key in ("confidence", "accuracy", "count"))
            if said is not None and was is not None and count:
                found.append((said, was, int(count)))
    return found


# ---------------------------------------------------------------- sources, fingerprint, versions


def _sources(manifest: Manifest) -> Section:
    rows = [
        (source.name, source.format, f"{source.planned_rows:,}", _size(source.size_bytes))
        for source in manifest.sources[:SHOWN_SOURCES]
    ]
    total = sum(source.size_bytes for source in manifest.sources)
    count = format_number_of(len(manifest.sources), "source")
    note = f"{count}, {format_number_of(manifest.planned_rows, 'row')}, {_size(total)} in all"
    if len(manifest.sources) > SHOWN_SOURCES:
        note += f"; the first {SHOWN_SOURCES} are listed"
    table = Table(header=("source", "format", "rows", "size"), rows=list(rows), numeric_from=2)
    return Section(title="Sources", note=f"{note}.", table=table)


def _settings(manifest: Manifest) -> Facts:
    shown = {key: value for key, value in manifest.settings.items() if key != "calibration"}
    columns = {f"{name} column": value for name, value in manifest.columns.model_dump().items() if value}
    return _flatten({**columns, **shown})


def _versions(manifest: Manifest, tally: Tally) -> Facts:
    facts = [
        ("Assay that made the run", manifest.assay_version),
        ("Assay that made this report", __version__),
        ("run format", str(manifest.format_version)),
    ]
    for key in ("engine", "device", "precision", "versions"):
        values = sorted({_one_line(stats[key]) for _, stats in tally.stats if stats.get(key)})
        if values:
            shown = "; ".join(values[:5]) + (f"; and {len(values) - 5} more" if len(values) > 5 else "")
            facts.append((key, shown))
    return facts


# ---------------------------------------------------------------- text


def _flatten(values: Json, prefix: str = "") -> Facts:
    """Nested objects as dotted names with text values."""
    facts: Facts = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            facts += _flatten(value, f"{prefix}{key}.")
        else:
            facts.append((f"{prefix}{key}", _one_line(value)))
    return facts


def _one_line(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _sum_stat(tally: Tally, key: str) -> float | None:
    """The sum of a footer figure over all parts; None where no part has it."""
    found = [number for _, stats in tally.stats if (number := _number(stats.get(key))) is not None]
    return sum(found) if found else None


def _share(count: int, total: int) -> str:
    if not total or not count:
        return "0%"
    share = count / total
    return f"{share:.2%}" if share >= 0.0001 else "under 0.01%"


def _count_and_share(count: int, total: int) -> str:
    return f"{count:,} ({_share(count, total)})" if count else "0"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


# ---------------------------------------------------------------- output


def _write(run: Run, out: str | None, content: bytes) -> None:
    if out is None:
        run.store.replace(REPORT_PATH, content)
    else:
        replace_file(out, content)
