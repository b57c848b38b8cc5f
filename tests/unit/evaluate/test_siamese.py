"""A Siamese bundle is calibrated and evaluated as any classifier of pairs is."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.scoring import make_texts
from support.siamese import make_siamese_folder

from assay.calibrate.calibrate import calibrate
from assay.calibrate.settings import CalibrateSettings
from assay.errors import UsageError
from assay.evaluate.evaluate import evaluate
from assay.evaluate.settings import EvaluateSettings
from assay.metrics import auc
from assay.outcome.maps import apply_calibration
from assay.siamese.files import read_siamese
from assay.siamese.pairs import load_siamese
from assay.tasks import Task

pytestmark = pytest.mark.usefixtures("kept_threads")

NUM_ROWS = 80
COLUMNS = {
    "text_column": "text1",
    "text_pair_column": "text2",
    "label_column": "same",
    "group_column": "author",
    "num_threads": 1,
}


def pairs_of(seed):
    """Pairs of few texts; the same text twice is no pair."""
    generator = np.random.default_rng(seed)
    texts = [f"{seed} {number} {text}" for number, text in enumerate(make_texts(20, seed=seed, longest=30))]
    rows = [generator.choice(len(texts), 2, replace=False) for _ in range(NUM_ROWS)]
    return [(texts[one], texts[other]) for one, other in rows]


def write(path, pairs, labels):
    """Labelled pairs of eight authors."""
    first, second = zip(*pairs, strict=True)
    authors = [f"a{row % 8}" for row in range(len(pairs))]
    pq.write_table(pa.table({"text1": first, "text2": second, "same": labels, "author": authors}), path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """A model of its own for each test: calibration is written into it."""
    return make_siamese_folder(tmp_path / "model")


@pytest.fixture
def rows(folder, tmp_path):
    """Writes pairs labelled by the model's own logits, one in four the other way round; their file and labels."""

    def make(seed):
        pairs = pairs_of(seed)
        logits = load_siamese(folder, num_threads=1).logits(pairs)
        margins = logits[:, 1] - logits[:, 0]
        is_same = (margins > np.median(margins)) ^ (np.arange(NUM_ROWS) % 4 == 0)
        return (
            write(tmp_path / f"{seed}.parquet", pairs, [str(int(each)) for each in is_same]),
            pairs,
            is_same,
        )

    return make


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibrated_probabilities_are_the_map_of_the_model_s_logits(method, folder, rows):
    """The file is fitted on held-out pairs; the bundle's fingerprint and probabilities follow it."""
    data, pairs, _ = rows(1)
    before, logits = read_siamese(folder).fingerprint, load_siamese(folder, num_threads=1).logits(pairs)
    calibrate(
        CalibrateSettings(bundle=str(folder), data=(data,), method=method, threshold_by="f1", **COLUMNS)
    )
    model = load_siamese(folder, num_threads=1)
    calibration = model.bundle.calibration
    assert (calibration.method, calibration.threshold is not None) == (method, True)
    assert model.bundle.fingerprint != before
    expected = apply_calibration(logits, calibration, Task.SINGLE_LABEL)
    np.testing.assert_allclose(model.probabilities(pairs), expected, atol=1e-5)
    assert np.abs(expected - apply_calibration(logits, None, Task.SINGLE_LABEL)).max() > 0.01


def test_the_report_is_of_the_model_s_probabilities(folder, rows, tmp_path):
    """AUC by hand; intervals over groups; a second bundle beside it."""
    data, pairs, is_same = rows(2)
    other = make_siamese_folder(tmp_path / "other", seed=1)
    report = evaluate(
        EvaluateSettings(
            bundle=str(folder),
            against=(str(other),),
            data=(data,),
            resamples=100,
            resample="groups",
            **COLUMNS,
        )
    )
    scores = load_siamese(folder, num_threads=1).probabilities(pairs)[:, 1]
    everything = report.parts[0]
    assert (everything.num_rows, report.num_groups) == (NUM_ROWS, 8)
    np.testing.assert_allclose(report.bundle.outcome.outputs_NC[:, 1], scores, atol=1e-5)
    assert everything.metrics["auc"].value == pytest.approx(auc(is_same, scores))
    assert everything.metrics["auc"].interval.low is not None
    assert set(everything.others[0].differences) == set(everything.metrics)


def test_pairs_are_asked_for(folder, rows):
    """Single texts are refused by both commands, and rows without a text by number."""
    data, *_ = rows(3)
    single = {**COLUMNS, "text_pair_column": None}
    with pytest.raises(UsageError, match="takes pairs of texts; give the second with --text-pair-column"):
        calibrate(CalibrateSettings(bundle=str(folder), data=(data,), **single))
    with pytest.raises(UsageError, match="takes pairs of texts; give the second with --text-pair-column"):
        evaluate(EvaluateSettings(bundle=str(folder), data=(data,), **single))
