"""What the test rows say: metrics with intervals, by the same resamples of authors for models and cascade.

Where the rows are of several languages, also of each language's.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.storage import replace_file
from assay.evaluate.findings import EvaluateReport
from assay.evaluate.measure import EvaluatedRows, Metric, Part, Resampling, group_indices, measure
from assay.evaluate.settings import EvaluateSettings
from assay.metrics import FloatArray
from assay.pipeline.ledger import Facts
from assay.pipeline.plan import LANGUAGE, SIDES, Plan
from assay.score.classifier import load
from assay.tasks import Task

SHOWN = ("auc", "accuracy", "f1", "brier", "ece")
"""Metrics on the page."""


def has_languages(rows: str) -> bool:
    """Whether labelled pairs are of several languages, each pair's known."""
    languages = pq.read_table(rows, columns=[LANGUAGE]).column(LANGUAGE)
    return not languages.null_count and len(languages.unique()) > 1


def figures_of(report: EvaluateReport, part: Part) -> dict[str, Facts]:
    """Metrics of each model that was evaluated on some of the rows, by the name of its folder."""
    found = [
        (report.bundle, part.metrics),
        *zip(report.others, (each.metrics for each in part.others), strict=True),
    ]
    return {evaluated.path.name: _shown(metrics) for evaluated, metrics in found}


def write_answers(plan: Plan) -> None:
    """Writes what the cascade says of the test rows, a row each, in order, in one step."""
    first, second = SIDES["text_column"], SIDES["text_pair_column"]
    rows = pq.read_table(plan.rows("test"), columns=[first, second])
    cascade = load(plan.cascade, device=plan.device, num_threads=plan.settings.num_threads)
    sink = pa.BufferOutputStream()
    pq.write_table(
        cascade.predict(rows, text_column=first, text_pair_column=second), sink, compression="zstd"
    )
    replace_file(str(plan.answers), sink.getvalue().to_pybytes())


def cascade_figures(answers: Path, rows: str, settings: EvaluateSettings) -> Facts:
    """Metrics of a cascade's answers, the share that reached its second model, and its recall of positive pairs.

    `rows` are the labelled pairs that it answered, in order; label 1 is what it tells. `languages`: metrics and number
    of pairs of each language, where the settings name its column.
    """
    by_language = [] if settings.group_column is None else [settings.group_column]
    said = pq.read_table(answers)
    labelled = pq.read_table(rows, columns=["label", *settings.group_columns, *by_language])
    probability_N = _floats(said, "final_probability")
    holds_N = labelled.column("label").to_numpy().astype(np.int64)
    outputs_NC = np.stack([1 - probability_N, probability_N], axis=1)
    outcome = EvaluatedRows(
        task=Task.SINGLE_LABEL,
        outputs_NC=outputs_NC,
        plain_NC=outputs_NC,
        predicted=np.array(said.column("same_book").to_pylist(), dtype=np.int64),
        targets=holds_N,
    )
    resampling = Resampling(
        num_resamples=settings.resamples,
        method=settings.interval,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    group_N2 = group_indices(*(labelled.column(name).to_pylist() for name in settings.group_columns))
    part = measure("all rows", outcome, [], resampling, group_N2)
    languages = {}
    for name in by_language:
        of_N = np.array(labelled.column(name).to_pylist())
        for language in sorted(set(of_N.tolist())):
            kept = np.flatnonzero(of_N == language)
            one = measure(language, outcome.take(kept), [], resampling, group_N2[kept])
            languages[language] = {"num_pairs": one.num_rows, "figures": _shown(one.metrics)}
    goes_on_N = np.array(said.column("stage").to_pylist()) == "two-stage"
    turned_away_N = ~goes_on_N & (outcome.predicted == 0)
    return {
        "figures": _shown(part.metrics),
        "languages": languages,
        "share": float(goes_on_N.mean()),
        "recall": float(1 - turned_away_N[holds_N == 1].mean()),
    }


def _floats(table: pa.Table, name: str) -> FloatArray:
    values: FloatArray = table.column(name).to_numpy().astype(np.float64)
    return values


def _shown(metrics: Mapping[str, Metric]) -> Facts:
    return {
        name: {"value": each.value, "low": each.interval.low, "high": each.interval.high}
        for name, each in metrics.items()
        if name in SHOWN
    }
