"""Chunks of token ids to scores."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from support.bundles import write_bundle
from support.models import change_json

from assay.bundle.calibration import save_calibration
from assay.bundle.load import load_bundle
from assay.data.rows import SourceRows
from assay.embed.forward import NOT_FINITE
from assay.engine.fake import FakeEngine
from assay.engine.sequences import Stopped
from assay.errors import InputError
from assay.outcome.calibration import Calibration, Curve
from assay.outcome.maps import apply_calibration
from assay.score.schema import score_fields
from assay.score.scorer import Scorer
from assay.tasks import Task
from assay.tokenize.chunks import to_chunk
from assay.tokenize.encode import Encoder


class OddEngine(FakeEngine):
    """The fake engine, save that a document that holds token 9 gets a logit that is not a number."""

    def __init__(self, odd, **options):
        super().__init__(**options)
        self._odd = odd

    def forward(self, batch):
        logits = super().forward(batch)
        bounds = batch.cu_seqlens.tolist()
        for row, (start, stop) in enumerate(itertools.pairwise(bounds)):
            if 9 in batch.input_ids_T[start:stop]:
                logits[row, 0] = self._odd
        return logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The small bundle."""
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def make_scorer(folder, engine=None, *, on_long="truncate", max_length=16, **options):
    """A scorer on the fake engine, or on `engine`, and its encoder."""
    encoder = Encoder.from_bundle(folder, max_length=max_length, on_long=on_long)
    return Scorer(load_bundle(folder), engine or FakeEngine(output_shape=(2,)), encoder, **options), encoder


def chunk_of(lists, encoder, **fields):
    """A chunk of stored token ids."""
    rows = SourceRows(
        start=0, num_rows=len(lists), input_ids=pa.array(lists, pa.list_(pa.uint16())), **fields
    )
    return to_chunk(rows, encoder, max_tokens=None)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_what_is_not_finite_is_an_error(odd, task, folder, tmp_path):
    """A document for which the model gives NaN or infinity has a code and no score; its neighbours have theirs."""
    if task == "multi_label":
        folder = write_bundle(tmp_path)
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config[:-1] + ', "problem_type": "multi_label_classification"}')
    scorer, encoder = make_scorer(folder, OddEngine(odd))
    plain, _ = make_scorer(folder)
    chunk = chunk_of([[2, 7, 3], [2, 9, 3], [], [2, 8, 3]], encoder)
    scored, before = scorer.score(chunk), plain.score(chunk)
    assert scored.errors == {1: NOT_FINITE, 2: "no_ids"}
    assert scored.columns["error"].to_pylist() == [None, NOT_FINITE, "no_ids", None]
    for name in ("prob_ham", "prob_spam"):
        found = scored.columns[name].to_pylist()
        assert found[1] is found[2] is None
        assert found[0::3] == before.columns[name].to_pylist()[0::3]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("on_long", ["window-mean", "window-max"])
def test_windows_that_are_not_finite(on_long, odd, folder):
    """One bad window of a document is a bad document: a maximum does not hide it."""
    scorer, encoder = make_scorer(folder, OddEngine(odd), on_long=on_long, max_length=6)
    scored = scorer.score(chunk_of([[2, *[7] * 9, 9, 3], [2, 7, 3]], encoder))
    assert scored.errors == {0: NOT_FINITE}


def test_the_engine_never_sees_a_row_with_an_error(folder):
    """Rows without ids are left out of the forward pass and keep their place."""
    scorer, encoder = make_scorer(folder)
    scored = scorer.score(chunk_of([[], [2, 7, 3], [], [2, 8, 7, 3]], encoder))
    assert scored.stats.num_forward_tokens == 7
    assert scored.columns["prediction"].is_valid().to_pylist() == [False, True, False, True]
    assert scored.columns["num_tokens"].to_pylist() == [0, 3, 0, 4]


def test_a_chunk_of_errors_alone(folder):
    """Where no row has ids there is no forward pass, and every row is there."""
    for on_long in ("truncate", "window-mean"):
        scorer, encoder = make_scorer(folder, on_long=on_long)
        scored = scorer.score(chunk_of([[], []], encoder))
        assert scored.columns["prob_ham"].null_count == 2
        assert scored.stats.num_batches == 0


@pytest.mark.parametrize("on_long", ["truncate", "window-mean"])
def test_deciding_waits_for_no_forward_pass(on_long, folder):
    """Forward passes may run ahead: decided later, each chunk has the scores that it has by itself."""
    scorer, encoder = make_scorer(folder, OddEngine(float("nan")), on_long=on_long)
    chunks = [chunk_of(lists, encoder) for lists in ([[2, 7, 3], []], [[2, 9, 3], [2, 8, 3], [2, 6, 3]])]
    ahead = [scorer.forward(chunk) for chunk in chunks]
    decided = [scorer.finish(forwarded) for forwarded in ahead]
    assert [one.columns for one in decided] == [scorer.score(chunk).columns for chunk in chunks]
    assert decided[1].errors == {0: NOT_FINITE}
    assert scorer.finish(ahead[1]).columns == decided[1].columns


def test_duplicates(folder):
    """Equal documents run once and get the same score; a document runs each time where that is asked for."""
    lists = [[2, 7, 3], [2, 8, 3], [2, 7, 3]]
    once, encoder = make_scorer(folder)
    each, _ = make_scorer(folder, deduplicate=False)
    one, other = once.score(chunk_of(lists, encoder)), each.score(chunk_of(lists, encoder))
    assert (one.stats.num_duplicates, other.stats.num_duplicates) == (1, 0)
    assert (one.stats.num_forward_tokens, other.stats.num_forward_tokens) == (6, 9)
    assert one.columns == other.columns


def test_an_id_outside_the_vocabulary(folder):
    """A stored id that the model does not know is refused, not looked up elsewhere."""

    class SmallEngine(FakeEngine):
        vocab_size = 10

    scorer, encoder = make_scorer(folder, SmallEngine())
    with pytest.raises(InputError, match="outside the vocabulary of 10"):
        scorer.score(chunk_of([[2, 10, 3]], encoder))


def test_it_stops_when_told(folder):
    """Asked to stop, a scorer raises and gives nothing half."""
    scorer, encoder = make_scorer(folder, should_stop=lambda: True)
    with pytest.raises(Stopped):
        scorer.score(chunk_of([[2, 7, 3]], encoder))


def test_float_types(folder):
    """Scores are float32, counts int32, flags booleans, as the schema of a part says."""
    scorer, encoder = make_scorer(folder)
    columns = scorer.score(chunk_of([[2, 7, 3]], encoder)).columns
    kinds = {name: values.type for name, values in columns.items()}
    floats = dict.fromkeys(("probability", "prob_ham", "prob_spam"), pa.float32())
    assert kinds == {
        "num_tokens": pa.int32(),
        "truncated": pa.bool_(),
        "error": pa.string(),
        "prediction": pa.string(),
        **floats,
    }


@pytest.fixture
def regression(tmp_path):
    """A regression bundle with an interval and whole scores from 0 to 1."""
    folder = write_bundle(tmp_path / "regression")
    change_json(
        folder / "config.json",
        problem_type="regression",
        id2label={"0": "score"},
        label2id={"score": 0},
    )
    description = {"format_version": 1, "int_score": [0, 1]}
    (folder / "assay.json").write_text(json.dumps(description))
    save_calibration(folder, Calibration(method="conformal", half_width=0.5, coverage=0.9))
    return folder


def test_a_regression_with_interval_and_whole_scores(regression):
    """Bounds and whole score beside each prediction, null where it is, and in the schema of a part."""
    engine = OddEngine(float("nan"), output_shape=(1,))
    scorer, encoder = make_scorer(regression, engine)
    columns = scorer.score(chunk_of([[2, 7, 3], [2, 9, 3], [], [2, 8, 3]], encoder)).columns
    fields = score_fields(load_bundle(regression).decider)
    assert [field.name for field in fields] == list(columns)
    assert [field.type for field in fields] == [values.type for values in columns.values()]
    assert columns["int_score"].type == pa.int32()
    low, value, high, whole = (
        columns[name].to_pylist() for name in ("prediction_low", "prediction", "prediction_high", "int_score")
    )
    assert whole[1:3] == low[1:3] == high[1:3] == value[1:3] == [None, None]
    for row in (0, 3):
        assert (low[row], high[row]) == (pytest.approx(value[row] - 0.5), pytest.approx(value[row] + 0.5))
        assert whole[row] == min(max(round(value[row]), 0), 1)


def test_a_regression_without_has_neither(regression):
    """No interval without a calibration, no whole scores without their bounds."""
    (regression / "calibration.json").unlink()
    (regression / "assay.json").unlink()
    names = [field.name for field in score_fields(load_bundle(regression).decider)]
    assert names == ["num_tokens", "truncated", "error", "prediction"]


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(method="vector", scale=(0.5, 2.0), bias=(0.0, 1.0)),
        Calibration(method="logistic", scale=(3.0,), bias=(-0.5,), threshold=0.2),
        Calibration(method="isotonic", steps=(Curve(x=(0.0, 0.5, 1.0), y=(0.1, 0.2, 0.9)),)),
    ],
)
def test_every_method_is_applied(folder, tmp_path, calibration):
    """A scored row has the probabilities of the calibration, and the label that its threshold gives."""
    copy = write_bundle(tmp_path / "copy")
    save_calibration(copy, calibration)
    plain, encoder = make_scorer(folder)
    calibrated, _ = make_scorer(copy)
    chunk = chunk_of([[2, 7, 3], [2, 8, 8, 3], [2, 20, 3]], encoder)
    expected = apply_calibration(plain.forward(chunk).outputs_SC, calibration, Task.SINGLE_LABEL)[:, 1]
    columns = calibrated.score(chunk).columns
    np.testing.assert_allclose(columns["prob_spam"].to_numpy(), expected, rtol=1e-6)
    least = calibration.threshold or 0.5
    assert columns["prediction"].to_pylist() == ["spam" if p >= least else "ham" for p in expected]
