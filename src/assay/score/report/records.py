"""What is on record of a run: parity, calibration, sources, settings, versions."""

from collections.abc import Mapping
from typing import Any

from assay._version import __version__
from assay.outcome.decide import thresholds_of
from assay.pages import Facts, Section, Table, reliability_figure
from assay.runs.figures import PARITY_PATH, read_figures
from assay.runs.manifest import Manifest
from assay.runs.run import Run
from assay.score.kind import SCORE, ScoreRecord
from assay.score.plan import other_lengths_of
from assay.score.report.tally import Tally
from assay.score.report.words import Json, flatten, number_of, one_line, size_of
from assay.telemetry import format_number_of

SHOWN_SOURCES = 50
PARITY_WORDS = {
    "num_documents": "documents compared",
    "max_abs_probability_difference": "largest difference of a probability",
    "tolerance.probability": "allowed difference of a probability",
    "max_abs_difference": "largest difference of a logit",
    "tolerance.logit": "allowed difference of a logit, as a share of the largest where that is above 1",
    "label_agreement": "share with the same label",
    "tolerance.agreement": "least share with the same label",
    "rank_correlation": "rank correlation",
    "largest_activation": "largest number inside the model in fp32; fp16 ends at 65,504",
    "least_cosine": "least cosine of a vector to the reference's",
    "max_distance": "largest distance of a vector, as a share of its length",
    "tolerance": "allowed distance of a vector, as a share of its length",
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
    "In-sample figures are of the rows that the map was fitted on, so they are optimistic; cross-validated "
    "ones are of rows that were left out of the fit."
)


def record_of(manifest: Manifest) -> ScoreRecord | None:
    """What a scoring run fixed; None for a run of another kind."""
    return manifest.read(SCORE)[1] if manifest.kind == SCORE.name else None


def parity_facts(run: Run) -> tuple[Facts, bool | None]:
    """What the gate found of each kind of worker, in words, and whether all passed; None where nothing says so."""
    # a run that was planned again in another precision before its first part has figures of both
    own = {None, run.manifest.identity.get("precision")}
    records = [record for record in read_figures(run) if _precision_of(record) in own]
    if not records:
        what = "not as a worker wrote it, so it says nothing; the next worker measures again"
        return ([] if run.store.info(PARITY_PATH) is None else [(PARITY_PATH, what)]), None
    facts: Facts = []
    for number, record in enumerate(records):
        if number:
            facts.append(
                ("another kind of worker", "passed" if record.get("passed") is True else "NOT passed")
            )
        found = flatten(
            {name: value for name, value in record.items() if name != "passed" and value is not None}
        )
        facts += [
            (PARITY_WORDS.get(name, name.replace("subject.", "holds for this ", 1)), value)
            for name, value in found
        ]
    return facts, all(record.get("passed") is True for record in records)


def _precision_of(record: Mapping[str, Any]) -> object:
    """What the figures of a gate were measured in; None where they do not say."""
    subject = record.get("subject")
    return subject.get("precision") if isinstance(subject, dict) else None


def calibration_section(manifest: Manifest) -> tuple[Section, Facts]:
    """How probabilities were calibrated and what that changed, and all that the run holds of it."""
    record = record_of(manifest)
    if record is None or not record.calibration:
        return Section(title="Calibration"), []
    settings = record.calibration
    bins = _bins(settings.get("reliability"))
    caption = "Reliability on the calibration rows, in-sample: on the dashed line probabilities are honest"
    facts = [("method", one_line(settings.get("method")))]
    if settings.get("temperature") is not None:
        facts.append(("temperature", one_line(settings["temperature"])))
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
            facts.append((words, one_line(settings[name])))
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
    ), flatten({name: value for name, value in settings.items() if name != "reliability"})


def _calibration_table(settings: Json) -> Table | None:
    """Figures of the calibration rows before, after, and left out of the fit; None where there are none."""
    columns = [settings.get("before"), settings, settings.get("cross_validated")]
    rows = []
    for name, words in CALIBRATION_METRICS.items():
        found = [number_of(each.get(name)) if isinstance(each, dict) else None for each in columns]
        if any(value is not None for value in found):
            rows.append((words, *("-" if value is None else f"{value:.4f}" for value in found)))
    header = ("figure", "not calibrated", "calibrated, in-sample", "calibrated, cross-validated")
    return Table(header=header, rows=rows) if rows else None


def _bins(entries: object) -> list[tuple[float, float, int]]:
    """Confidence, accuracy and count of `[{confidence, accuracy, count}, ...]`; none of anything else."""
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            said, was, count = (number_of(entry.get(key)) for key in ("confidence", "accuracy", "count"))
            if said is not None and was is not None and count:
                found.append((said, was, int(count)))
    return found


def source_section(manifest: Manifest) -> Section:
    """The sources with their rows and sizes, the first of many."""
    rows = [
        (source.name, source.format, f"{source.planned_rows:,}", size_of(source.size_bytes))
        for source in manifest.sources[:SHOWN_SOURCES]
    ]
    total = sum(source.size_bytes for source in manifest.sources)
    count = format_number_of(len(manifest.sources), "source")
    note = f"{count}, {format_number_of(manifest.planned_rows, 'row')}, {size_of(total)} in all"
    if len(manifest.sources) > SHOWN_SOURCES:
        note += f"; the first {SHOWN_SOURCES} are listed"
    table = Table(header=("source", "format", "rows", "size"), rows=list(rows), numeric_from=2)
    return Section(title="Sources", note=f"{note}.", table=table)


def setting_facts(manifest: Manifest) -> Facts:
    """What the run was planned with, besides what makes its numbers."""
    shown = {key: value for key, value in manifest.settings.items() if key != "calibration"}
    columns = {f"{name} column": value for name, value in manifest.columns.model_dump().items() if value}
    return flatten({**columns, **shown})


def version_facts(manifest: Manifest, tally: Tally) -> Facts:
    """The versions, engines and devices that made the parts."""
    facts = [
        ("Assay that made the run", manifest.assay_version),
        ("Assay that made this report", __version__),
        ("run format", str(manifest.format_version)),
    ]
    for key in ("engine", "device", "precision", "versions"):
        values = sorted({one_line(stats[key]) for _, stats in tally.stats if stats.get(key)})
        if values:
            shown = "; ".join(values[:5]) + (f"; and {len(values) - 5} more" if len(values) > 5 else "")
            facts.append((key, shown))
    return facts
