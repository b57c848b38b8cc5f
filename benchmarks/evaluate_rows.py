"""Evaluating a million rows of 8 labels: all but the forward pass, and how wide its intervals are.

Time and memory: `assay.api.evaluate` in a process of its own, from Parquet to the page, 2,000 resamples (BCa), with
logits that are stored beforehand in place of the forward pass; rows alone, and with 10,000 authors that resamples draw
(which adds the metrics of the 50 largest). The peak is the process's high-water mark of resident memory.

Baseline: the resamples of 30,390 rows as the plain bootstrap finds them (every row drawn by itself, all ranks), and as
random blocks and levels do, in turns; then widths of 95% percentile intervals of both, of every metric of every task,
from many resamples so that their own noise is small.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser

from assay import metrics
from assay.evaluate.bootstrap import Resamples, resample
from assay.evaluate.measure import EvaluatedRows, families_of
from assay.tasks import Task

LABELS = ("arts", "business", "crime", "health", "politics", "science", "sports", "travel")
SHARES = (0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005)
COMPARED_ROWS = 30_390
NUM_AUTHORS = 10_000
WORDS = 40
"""Words of a text, about."""


def main() -> None:
    """Measure, print, record."""
    flags = parser(__doc__, smoke="20,000 rows, 5,000 compared")
    flags.add_argument("--rows", type=int, default=1_000_000)
    flags.add_argument("--rounds", type=int, default=3, help="turns of each way at 30,390 rows [3]")
    flags.add_argument(
        "--resamples", type=int, default=20_000, help="resamples whose widths are compared [20000]"
    )
    flags.add_argument(
        "--child", nargs=2, metavar=("FOLDER", "WHAT"), help="evaluate once, for the benchmark itself"
    )
    chosen = flags.parse_args()
    if chosen.child is not None:
        _evaluate_once(Path(chosen.child[0]), is_grouped=chosen.child[1] == "groups")
        return
    num_rows = 20_000 if chosen.tiny else chosen.rows
    num_compared = 5_000 if chosen.tiny else COMPARED_ROWS
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), num_rows)
        found = {what: _child(folder, what) for what in ("rows", "groups")}
    for what, figures in found.items():
        print(f"{num_rows:,} rows, {what} drawn: {figures}", flush=True)
    seconds = _in_turns(num_compared, 1 if chosen.tiny else chosen.rounds)
    print(f"{num_compared:,} rows, resamples alone: {seconds}", flush=True)
    ratios = _width_ratios(num_compared, 1_000 if chosen.tiny else chosen.resamples)
    farthest = max(ratios, key=lambda name: abs(ratios[name] - 1))
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio:.4f}")
    baseline = (
        f"2,000 resamples of {num_compared:,} rows of 8 labels: plain bootstrap {seconds['plain'][0]} s"
        f" ({seconds['plain'][1]} CPU s), blocks {seconds['blocks'][0]} s ({seconds['blocks'][1]} CPU s)"
    )
    packages = ("assay", "numpy", "pyarrow", "torch")
    finish(
        "cpu.evaluate_peak_gb_1m_rows_8_labels",
        found["rows"]["peak_gb"],
        "GB",
        "none",
        packages=packages,
        details={"rows": num_rows, "with authors": found["groups"]["peak_gb"]},
        record=chosen.record,
        trial=chosen.tiny,
    )
    finish(
        "cpu.evaluate_width_over_plain_bootstrap",
        ratios[farthest],
        "ratio",
        f"the plain bootstrap's widths on the same {num_compared:,} rows; the metric farthest from 1: {farthest}",
        packages=packages,
        details={"metrics": len(ratios), "median": round(statistics.median(ratios.values()), 4)},
        record=chosen.record,
        trial=chosen.tiny,
    )
    finish(
        "cpu.evaluate_seconds_1m_rows_8_labels",
        found["rows"]["seconds"],
        "s",
        baseline,
        packages=packages,
        details={"rows": num_rows, **{what: dict(figures) for what, figures in found.items()}},
        record=chosen.record,
        trial=chosen.tiny,
    )


# ---------------------------------------------------------------- the whole evaluation


def _write(folder: Path, num_rows: int) -> None:
    """Labelled rows, a bundle of 8 labels and the logits that it is made to give."""
    from overhead import make_bundle
    from transformers import BertConfig, BertForSequenceClassification

    rng = np.random.default_rng(0)
    targets = rng.choice(len(LABELS), num_rows, p=SHARES)
    words = np.array([f"word{index:04d}" for index in range(5_000)], dtype=object)
    with pq.ParquetWriter(folder / "rows.parquet", _SCHEMA) as sink:
        for start in range(0, num_rows, 50_000):
            count = min(50_000, num_rows - start)
            picks = words[rng.integers(words.size, size=(count, WORDS))]
            sink.write_table(
                pa.table(
                    {
                        "text": [" ".join(each) for each in picks],
                        "label": [LABELS[index] for index in targets[start : start + count]],
                        "author": [f"author {index}" for index in rng.integers(NUM_AUTHORS, size=count)],
                    },
                    schema=_SCHEMA,
                )
            )
    logits = 1.5 * rng.normal(size=(num_rows, len(LABELS))) + 3 * np.eye(len(LABELS))[targets]
    np.save(folder / "logits.npy", logits.astype(np.float32))
    bundle = make_bundle(folder / "bundle")
    config = BertConfig.from_pretrained(bundle)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: index for index, label in enumerate(LABELS)}
    BertForSequenceClassification(config).save_pretrained(bundle)


_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string()), ("author", pa.string())])


def _child(folder: str, what: str) -> dict[str, float]:
    """Figures of an evaluation in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", folder, what], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _evaluate_once(folder: Path, *, is_grouped: bool) -> None:
    """Evaluate with stored logits in place of the forward pass; prints seconds, CPU seconds and peak memory."""
    from assay.api import EvaluateSettings
    from assay.evaluate import evaluate as room
    from assay.score.labelled import LabelledLogits

    def stored(_scorer: object, rows: object, **_others: object) -> LabelledLogits:
        del rows
        return LabelledLogits(
            logits_NC=np.load(folder / "logits.npy"), unscored={}, num_tokens=0, num_truncated=0
        )

    room.labelled_logits = stored  # type: ignore[assignment]
    steps: list[tuple[float, str]] = []

    def note(step: str, _share: float) -> None:
        if not steps or steps[-1][1] != step:
            steps.append((time.perf_counter() - began, step))

    settings = EvaluateSettings(
        bundle=str(folder / "bundle"),
        data=(str(folder / "rows.parquet"),),
        group_column="author" if is_grouped else None,
        out=str(folder / "page.html"),
    )
    began = time.perf_counter()
    report = room.evaluate(settings, on_progress=note)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(str(report), [(round(at, 1), step) for at, step in steps], file=sys.stderr)
    figures = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }
    print(json.dumps(figures))


# ---------------------------------------------------------------- against the plain bootstrap


def outcomes(num_rows: int) -> dict[str, EvaluatedRows]:
    """Made-up outcomes of every task, in float32 as a bundle gives them."""
    rng = np.random.default_rng(1)

    def single(shares: Sequence[float]) -> EvaluatedRows:
        targets = rng.choice(len(shares), num_rows, p=shares)
        logits = 1.5 * rng.normal(size=(num_rows, len(shares))) + 3 * np.eye(len(shares))[targets]
        return _outcome(Task.SINGLE_LABEL, metrics.softmax(logits), targets)

    holds = (rng.random((num_rows, len(LABELS))) < SHARES).astype(np.int64)
    said = metrics.sigmoid(1.5 * rng.normal(size=holds.shape) + 3 * holds - 2)
    scores = rng.normal(3, 1, num_rows)
    values = (scores + rng.normal(size=num_rows))[:, None]
    return {
        "8 labels": single(SHARES),
        "pairs": replace(single((0.5, 0.5)), unanswered_within=0.05),
        "many labels": _outcome(Task.MULTI_LABEL, said, holds),
        "numbers": replace(_outcome(Task.REGRESSION, values, scores), int_score=(0, 5), half_width=1.0),
    }


def _outcome(task: Task, outputs: np.ndarray, targets: np.ndarray) -> EvaluatedRows:
    outputs = outputs.astype(np.float32).astype(np.float64)
    predicted = outputs.argmax(axis=1) if task is Task.SINGLE_LABEL else (outputs > 0.5).astype(np.int64)
    return EvaluatedRows(
        task=task, outputs_NC=outputs, plain_NC=outputs, predicted=predicted, targets=targets
    )


def _in_turns(num_rows: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds and CPU seconds of 2,000 resamples of 8 labels, each way."""
    outcome = outcomes(num_rows)["8 labels"]
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "blocks": []}
    for _ in range(rounds):
        for way, found in taken.items():
            began, used = time.perf_counter(), time.process_time()
            _resampled(outcome, 2_000, is_plain=way == "plain")
            found.append((time.perf_counter() - began, time.process_time() - used))
    return {
        way: (
            round(statistics.median(seconds for seconds, _ in found), 2),
            round(statistics.median(cpu for _, cpu in found), 2),
        )
        for way, found in taken.items()
    }


def _resampled(outcome: EvaluatedRows, num_resamples: int, *, is_plain: bool) -> Resamples:
    num_rows = outcome.num_rows
    families = families_of(outcome, all_ranks=is_plain)
    plain_rows = num_rows if is_plain else 0
    return resample(
        families, num_rows, num_resamples=num_resamples, seed=int(is_plain), plain_rows=plain_rows
    )


def _width_ratios(num_rows: int, num_resamples: int) -> dict[str, float]:
    """Width of each metric's interval from blocks over that from the plain bootstrap, by task and metric."""
    ratios = {}
    for kind, outcome in outcomes(num_rows).items():
        widths = []
        for is_plain in (True, False):
            drawn = _resampled(outcome, num_resamples, is_plain=is_plain).drawn
            widths.append(
                {name: np.ptp(np.nanquantile(each, (0.025, 0.975))) for name, each in drawn.items()}
            )
        plain, blocks = widths
        ratios |= {
            f"{kind}, {name}": float(blocks[name] / plain[name]) for name in plain if plain[name] > 1e-12
        }
        print(f"{kind}: widths compared", flush=True)
    return ratios


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
