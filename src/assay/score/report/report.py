"""A run as one HTML page that a person can look at.

All that comes from documents, labels, sources or footers is untrusted: the template escapes it, and
so do the charts. `tally` counts, `scores`, `speed` and `records` make the sections, this module puts
the page together.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from assay.data.storage import replace_file
from assay.embed.kind import EMBED
from assay.errors import InputError
from assay.pages import Facts, Section, Table, render_page
from assay.runs.kinds import RunKind
from assay.runs.manifest import Manifest
from assay.runs.pages import refuse_own_file
from assay.runs.parts import find_obstacles, published_parts
from assay.runs.run import PARTS, Run, open_run
from assay.runs.status import Status, status_of
from assay.score.kind import SCORE
from assay.score.pricing import Pricing
from assay.score.report.evidence import evidence_section
from assay.score.report.expected import compare_with_estimate
from assay.score.report.records import (
    calibration_section,
    parity_facts,
    setting_facts,
    source_section,
    version_facts,
)
from assay.score.report.scores import length_facts, length_figures, score_section, vector_section
from assay.score.report.speed import cost_facts, cost_note, speed_section
from assay.score.report.summary import ReportSummary, spans_of, summarize
from assay.score.report.tally import Tally, count_parts
from assay.score.report.words import count_and_share, flatten, share_of, when
from assay.telemetry import format_count, format_number_of, format_rate
from assay.tokenize.kind import TOKENIZE

REPORT_PATH = "report.html"
_KINDS: dict[str, tuple[RunKind[Any, Any], str]] = {
    SCORE.name: (SCORE, "scored by"),
    EMBED.name: (EMBED, "embedded by"),
    TOKENIZE.name: (TOKENIZE, "tokenized for"),
}
"""Kinds of runs that have a report, and what it says of their sources."""


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
    evidence: Section
    calibration: Section
    calibration_record: Facts
    """All that the run holds of `calibration.json`, but for the reliability diagram."""
    cost: Section
    cost_note: str
    expected: Section
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

    Works while the run is under way; the page then says so. `price_per_hour` is that of one worker's device, in any
    currency. Raises SourceError where there is no run, UsageError for an `out` that would replace a file of the run or
    a source, InputError for a run of a kind that has no report, CheckError for a damaged part. Cost: one pass over the
    score, length and error columns and over some vectors of each part, in flat memory.
    """
    Pricing(price_per_hour=price_per_hour)  # checked where every setting is
    if out is not None:
        refuse_own_file(run_url, out, "out")
    run = open_run(run_url)
    if run.manifest.kind not in _KINDS:
        msg = (
            f"{run.url} is a {run.manifest.kind} run, which has no report; `assay status {run.url}` says how far it "
            f"is, and its rows are read from {run.url}/{PARTS}*.parquet"
        )
        raise InputError(msg)
    now = clock()
    status = status_of(run, published_parts(run), obstacles=tuple(find_obstacles(run)), now=now)
    tally = count_parts(run)
    parity, passed = parity_facts(run)
    path = out or f"{run.url}/{REPORT_PATH}"
    compared, expected = compare_with_estimate(run, tally, spans_of(tally))
    summary = summarize(
        path, status, tally, parity_passed=passed, price_per_hour=price_per_hour, estimates=compared
    )
    page = _page(run.manifest, status, tally, parity, summary, expected, price_per_hour, now)
    _write(run, out, render_page("score/report", page))
    return summary


def _page(
    manifest: Manifest,
    status: Status,
    tally: Tally,
    parity: Facts,
    summary: ReportSummary,
    expected: Section,
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
        missing = " ".join([missing, *(f"{obstacle}." for obstacle in status.obstacles)])
    is_vectors = manifest.kind == EMBED.name
    scores, score_table = (
        (vector_section(tally, manifest), None) if is_vectors else score_section(tally, manifest)
    )
    calibration, calibration_record = calibration_section(manifest)
    return _RunPage(
        title=title,
        subtitle=subtitle,
        status=status,
        begun_at=when(datetime.fromisoformat(manifest.created_at).timestamp()),
        missing=missing,
        complete=f"{units} published, none is missing.",
        highlights=_highlights(status, tally, summary),
        scores=scores,
        score_table=score_table,
        lengths=Section(title="Lengths", figures=length_figures(tally), facts=length_facts(tally)),
        speed=speed_section(tally, summary),
        errors=_errors(tally),
        other_rows=_other_rows(tally, summary),
        parity=parity,
        parity_passed=summary.parity_passed,
        evidence=evidence_section(manifest, tally, summary.differences),
        calibration=calibration,
        calibration_record=calibration_record,
        cost=Section(title="Cost", facts=cost_facts(summary, price_per_hour)),
        cost_note=cost_note(price_per_hour),
        expected=expected,
        sources=source_section(manifest),
        fingerprint=Section(
            title="Fingerprint",
            note="What makes the numbers; the run id is a hash of it and of the sources.",
            facts=[("run id", manifest.run_id), *flatten(manifest.identity)],
        ),
        settings=setting_facts(manifest),
        versions=version_facts(manifest, tally),
        created=when(now),
    )


def _heading(manifest: Manifest) -> tuple[str, str]:
    kind, verb = _KINDS[manifest.kind]
    name = Path(manifest.read(kind)[1].bundle).name or "a model"
    sources = manifest.sources
    what = sources[0].name if len(sources) == 1 else format_number_of(len(sources), "source")
    columns = [column for column in (manifest.columns.text, manifest.columns.text_pair) if column]
    columns = columns or [manifest.columns.input_ids or "input_ids"]
    subtitle = f"{format_number_of(manifest.planned_rows, 'row')}, column {' and '.join(columns)}"
    return f"{what}, {verb} {name}", subtitle


def _highlights(status: Status, tally: Tally, summary: ReportSummary) -> Facts:
    facts = [
        ("rows", f"{status.rows_published:,}"),
        ("with an error code", f"{tally.error_rows:,}"),
        ("truncated", share_of(tally.truncated_rows, tally.scored_rows)),
        ("tokens", format_count(tally.num_tokens)),
        ("documents a second", format_rate(summary.rows_per_second)),
    ]
    if summary.parity_passed is not None:
        facts.append(("parity gate", "passed" if summary.parity_passed else "NOT passed"))
    if summary.cost is not None:
        facts.append(("cost", f"{summary.cost:,.2f}"))
    return facts


def _errors(tally: Tally) -> list[_ErrorCode]:
    return [
        _ErrorCode(
            code=code,
            count=count,
            share=share_of(count, tally.rows),
            examples=tuple(tally.examples.get(code, ())),
        )
        for code, count in tally.errors.most_common()
    ]


def _other_rows(tally: Tally, summary: ReportSummary) -> Facts:
    facts = []
    if tally.sum_of("duplicate_rows") is not None:
        share = count_and_share(summary.duplicate_rows, tally.rows)
        facts.append(("duplicates of another document, run once", share))
    empty = tally.sum_of("empty_rows")
    if empty is not None:
        facts.append(("empty texts", count_and_share(int(empty), tally.rows)))
    if summary.fp32_rows:
        name = "not finite in half precision, run again in fp32"
        facts.append((name, count_and_share(summary.fp32_rows, tally.rows)))
    if tally.not_finite:
        facts.append(("scores that are not a number, without an error code", f"{tally.not_finite:,}"))
    return facts


def _write(run: Run, out: str | None, content: bytes) -> None:
    if out is None:
        run.store.replace(REPORT_PATH, content)
    else:
        replace_file(out, content)
