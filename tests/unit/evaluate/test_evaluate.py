"""`assay evaluate`: the numbers of a scored column, with intervals, warnings and reasons."""

import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.metrics
from support.models import change_json, write_model
from support.rendered import Page
from support.scoring import read_parts, score_here

from assay.cli.main import main
from assay.errors import InputError, SourceError, StorageError, UsageError
from assay.evaluate.evaluate import evaluate
from assay.evaluate.settings import EvaluateSettings
from assay.labelled.provenance import pack_hashes, text_hashes

from .conftest import labels_of, texts_of, write_rows

NUM_ROWS = 60


def run(bundle, data, **settings):
    """An evaluation with few resamples."""
    return evaluate(EvaluateSettings(bundle=str(bundle), data=(str(data),), **{"resamples": 200, **settings}))


def values_of(report):
    """Each metric's value; NaN where it is undefined."""
    return {
        name: math.nan if metric.value is None else metric.value for name, metric in report.metrics.items()
    }


@pytest.fixture
def rows(tmp_path):
    """Makes a file of rows for a task; other columns by name."""

    def write(task="single_label", num_rows=NUM_ROWS, **columns):
        return write_rows(
            tmp_path / f"{task}.jsonl", texts_of(num_rows), labels_of(task, num_rows), **columns
        )

    return write


@pytest.fixture
def calibrated(bundles, tmp_path):
    """A copy of a bundle with this calibration."""

    def copy(task="single_label", **calibration):
        folder = shutil.copytree(bundles / task, tmp_path / f"calibrated-{task}")
        content = {"format_version": 1, "method": "temperature", **calibration}
        (folder / "calibration.json").write_text(json.dumps(content))
        return folder

    return copy


def provenance(bundle, **hashes):
    """Give a bundle an `assay.json` that says what it has seen: `text={"train": [...]}`."""
    config = json.loads((bundle / "config.json").read_text())
    content = {
        "format_version": 1,
        "assay_version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "task": "single_label",
        "labels": [config["id2label"][key] for key in sorted(config["id2label"])],
        "max_length": 64,
        "is_pair": False,
        "provenance": {
            f"{kind}_hashes": {role: pack_hashes(text_hashes(values)) for role, values in roles.items()}
            for kind, roles in hashes.items()
        },
    }
    (bundle / "assay.json").write_text(json.dumps(content))
    return bundle


# ---------------------------------------------------------------- the same numbers as `assay score`


def test_metrics_are_those_of_the_scored_column(calibrated, rows, tmp_path):
    """Accuracy of `prediction`, NLL, AUC and Brier of `prob_...` of a run, to the last bit that matters."""
    bundle, data = calibrated(temperature=0.7, threshold=0.35), rows()
    scored = read_parts(score_here(data, bundle, tmp_path / "run")).to_pandas()
    found = run(bundle, data).metrics
    labels = labels_of("single_label", NUM_ROWS)
    spam = np.array([label == "spam" for label in labels])
    probabilities = scored[["prob_ham", "prob_spam"]].to_numpy(dtype=np.float64)
    assert found["accuracy"].value == pytest.approx(np.mean(scored["prediction"] == labels), abs=0)
    assert found["nll"].value == pytest.approx(
        -np.log(probabilities[np.arange(NUM_ROWS), spam.astype(int)]).mean()
    )
    assert found["auc"].value == pytest.approx(sklearn.metrics.roc_auc_score(spam, probabilities[:, 1]))
    assert found["f1"].value == pytest.approx(sklearn.metrics.f1_score(spam, scored["prediction"] == "spam"))


def test_regression_metrics_are_those_of_the_scored_column(calibrated, rows, tmp_path):
    """MAE of `prediction`; the coverage of its interval, counted by hand."""
    bundle, data = (
        calibrated("regression", method="conformal", half_width=1.25, coverage=0.9),
        rows("regression"),
    )
    scored = read_parts(score_here(data, bundle, tmp_path / "run")).to_pandas()
    errors = np.abs(scored["prediction"].to_numpy(dtype=np.float64) - labels_of("regression", NUM_ROWS))
    found = run(bundle, data).metrics
    assert found["mae"].value == pytest.approx(errors.mean())
    assert found["rmse"].value == pytest.approx(np.sqrt((errors**2).mean()))
    assert found["coverage"].value == pytest.approx((errors <= 1.25).mean())
    assert found["mean_width"].value == 2.5


def test_multi_label_thresholds_are_those_of_the_calibration(calibrated, rows):
    """A label holds from its own threshold on."""
    report = run(calibrated("multi_label", threshold=[0.0, 0.0, 1.0]), rows("multi_label"))
    targets = np.array(
        [[name in x for name in ("ham", "spam", "fowl")] for x in labels_of("multi_label", NUM_ROWS)]
    )
    said = np.ones_like(targets) & [True, True, False]
    expected = sklearn.metrics.f1_score(targets, said, average="micro")
    assert report.metrics["micro_f1"].value == pytest.approx(expected)
    assert report.bundle.by_label["ham"]["recall"] == 1.0
    assert "no row is predicted positive" in report.bundle.by_label["fowl"]["precision"]


@pytest.mark.parametrize(
    ("task", "calibration", "thresholds"),
    [
        ("multi_label", {"threshold": [0.25, 0.5, 1.0]}, {"ham": 0.25, "spam": 0.5, "fowl": 1.0}),
        ("multi_label", {}, {"ham": 0.5, "spam": 0.5, "fowl": 0.5}),
        ("single_label", {"threshold": 0.75}, {"spam": 0.75}),
        ("single_label", {}, {}),
    ],
)
def test_each_label_stands_beside_its_threshold(calibrated, rows, tmp_path, task, calibration, thresholds):
    """On the page and in the JSON; a label that is decided without one has a dash."""
    page = tmp_path / "page.html"
    report = run(calibrated(task, **calibration), rows(task), out=str(page), resamples=0)
    assert report.to_json()["bundle"]["thresholds"] == thresholds
    cells, labels = Page(page.read_text()).cells, report.bundle.labels
    header = next(index for index, row in enumerate(cells) if row[0] == "label" and "precision" in row)
    assert ("threshold" in cells[header]) == bool(thresholds)
    if thresholds:
        found = {row[0]: row[1] for row in cells[header + 1 : header + 1 + len(labels)]}
        assert found == {
            label: f"{thresholds[label]:.4f}" if label in thresholds else "-" for label in labels
        }


def test_whole_scores_of_a_regression_have_an_f1_and_a_confusion_matrix(bundles, rows, tmp_path):
    """Where the bundle has a range of whole scores."""
    folder = shutil.copytree(bundles / "regression", tmp_path / "whole")
    provenance(folder)
    change_json(folder / "assay.json", task="regression", int_score=[1, 3])
    report = run(folder, rows("regression"))
    assert report.metrics["int_macro_f1"].value is not None
    assert np.shape(report.to_json()["bundle"]["confusion"]) == (3, 3)


def test_calibration_shows_in_nll_but_not_in_ranking(bundles, calibrated, rows):
    """What it was before stands beside it."""
    data = rows()
    plain, mapped = run(bundles / "single_label", data), run(calibrated(temperature=0.5), data)
    assert mapped.bundle.before["nll"] == pytest.approx(plain.metrics["nll"].value)
    assert mapped.metrics["nll"].value != pytest.approx(plain.metrics["nll"].value)
    assert mapped.metrics["auc"].value == pytest.approx(plain.metrics["auc"].value)
    assert plain.bundle.before == {}


# ---------------------------------------------------------------- rows that were seen


def test_rows_of_the_training_are_counted_and_left_out(calibrated, rows):
    """By text and role, from the bundle and from its calibration; metrics without them stand beside."""
    texts = texts_of(NUM_ROWS)
    seen = pack_hashes(text_hashes(texts[5:7]))
    bundle = calibrated(provenance={"text_hashes": {"calibration": seen}})
    provenance(bundle, text={"train": texts[:5], "validation": texts[4:6]})
    report = run(bundle, rows())
    counts = report.to_json()["bundle"]["seen_before"]
    num_seen = len({row for row, text in enumerate(texts) if text in set(texts[:7])})
    assert counts["num_rows"] == num_seen
    assert counts["by"]["text"]["validation"] >= 2
    assert [part.num_rows for part in report.parts] == [NUM_ROWS, NUM_ROWS - num_seen]
    text = str(report)
    assert "trained on (calibrated-single_label, by text)" in text
    assert "were calibrated on" in text
    assert "chose the checkpoint" in text


def test_rows_are_found_by_id_and_by_group_too(bundles, rows, tmp_path):
    """A row with the id of a training row is one; rows of a training group are a third part."""
    folder = shutil.copytree(bundles / "single_label", tmp_path / "seen")
    provenance(folder, text={"train": ["another text"]}, id={"train": ["r3"]}, group={"train": ["g0"]})
    data = rows(id=[f"r{row}" for row in range(NUM_ROWS)], book=[f"g{row % 6}" for row in range(NUM_ROWS)])
    report = run(folder, data, id_column="id", group_column="book")
    assert [part.num_rows for part in report.parts] == [NUM_ROWS, NUM_ROWS - 1, NUM_ROWS - 1 - NUM_ROWS // 6]
    assert "share a group with rows that trained on" in str(report)


def test_a_folder_that_does_not_say_what_it_saw_is_said_so(bundles, rows):
    """A plain transformers folder evaluates, with a note."""
    assert "does not say what it was trained on" in str(run(bundles / "single_label", rows()))


def test_a_plain_folder_without_label_names_takes_numbers(bundles, rows, tmp_path):
    """0 and 1 are LABEL_0 and LABEL_1."""
    folder = shutil.copytree(bundles / "single_label", tmp_path / "plain")
    change_json(folder / "config.json", id2label=None, label2id=None, num_labels=2)
    data = write_rows(tmp_path / "numbers.jsonl", texts_of(20), [row % 2 for row in range(20)])
    assert run(folder, data).bundle.labels == ("LABEL_0", "LABEL_1")


# ---------------------------------------------------------------- two bundles


def test_two_bundles_are_compared_on_the_same_rows(bundles, rows):
    """Difference, interval and p of each metric; accuracy by McNemar's exact test."""
    report = run(bundles / "single_label", rows(), against=(str(bundles / "other"),))
    part = report.parts[0]
    differences = part.others[0].differences
    for name, difference in differences.items():
        first, second = part.metrics[name].value, part.others[0].metrics[name].value
        assert difference.value == pytest.approx(first - second), name
    assert differences["accuracy"].test == "mcnemar"
    assert differences["nll"].test == "bootstrap"
    assert 0 < differences["nll"].p_value <= 1


def test_a_bundle_does_not_differ_from_a_copy_of_itself(bundles, rows, tmp_path):
    """Differences of 0, p values of 1; the report says that they are one, and tells like names apart."""
    copy = shutil.copytree(bundles / "single_label", tmp_path / "copy" / "single_label")
    report = run(bundles / "single_label", rows(), against=(str(copy),))
    differences = report.parts[0].others[0].differences
    assert {each.value for each in differences.values()} == {0.0}
    assert {each.p_value for each in differences.values()} == {1.0}
    assert any("copy/single_label are the same bundle" in warning for warning in report.warnings)


def test_a_bundle_that_is_named_twice_is_refused(bundles, rows):
    """By its folder, however it is written; before it is loaded."""
    again = bundles / "other" / ".." / "single_label"
    with pytest.raises(UsageError, match="single_label is named twice"):
        run(bundles / "single_label", rows(), against=(str(bundles / "other"), str(again)))


def test_each_of_several_bundles_is_compared_with_the_first(bundles, rows, tmp_path):
    """In their order, each as if it were compared alone: the same rows are drawn for all."""
    write_model(tmp_path / "third", seed=5)
    data, others = rows(), [str(bundles / "other"), str(tmp_path / "third")]
    both = run(bundles / "single_label", data, against=tuple(others))
    assert [each.name for each in both.others] == ["other", "third"]
    for index, other in enumerate(others):
        alone = run(bundles / "single_label", data, against=(other,))
        assert both.parts[0].others[index] == alone.parts[0].others[0]
    said = str(both)
    assert "single_label less other" in said
    assert "single_label less third" in said


def test_rows_that_one_bundle_cannot_score_are_left_out_of_all(bundles, tmp_path):
    """Both are measured on the rows that are left, and how many are not is said."""
    broken = write_model(tmp_path / "broken", seed=3, nan_word="document")
    texts, labels = texts_of(NUM_ROWS), labels_of("single_label", NUM_ROWS)
    num_odd = sum("document" in text.split() for text in texts)
    assert 0 < num_odd < NUM_ROWS
    data = write_rows(tmp_path / "rows.jsonl", texts, labels)
    report = run(bundles / "single_label", data, against=(str(broken),))
    kept = [row for row, text in enumerate(texts) if "document" not in text.split()]
    fewer = write_rows(tmp_path / "kept.jsonl", [texts[row] for row in kept], [labels[row] for row in kept])
    expected = run(bundles / "single_label", fewer)
    assert report.num_rows_left_out == num_odd
    assert report.to_json()["num_rows_left_out"] == num_odd
    # other rows share the batches, which moves the last bits
    assert values_of(report) == pytest.approx(values_of(expected), abs=1e-6, nan_ok=True)
    assert report.parts[0].others[0].metrics["nll"].value is not None
    assert (
        f"rows that broken cannot score are left out for all bundles: {num_odd} not_finite" in report.warnings
    )


def test_bundles_without_a_row_in_common_are_refused(bundles, tmp_path):
    """With what became of the rows."""
    broken = write_model(tmp_path / "broken", nan_word="document")
    data = write_rows(tmp_path / "rows.jsonl", ["document of 1", "document of 2"], ["ham", "spam"])
    with pytest.raises(InputError, match=r"none of 2 rows is scored by every bundle \(not_finite\)"):
        run(bundles / "single_label", data, against=(str(broken),))


# ---------------------------------------------------------------- groups of both sides of pairs


@pytest.fixture
def pairs(tmp_path):
    """Makes a file of pairs of `num_rows` by two authors each; other columns by name."""

    def write(num_rows=NUM_ROWS, num_authors=6, **columns):
        rng = np.random.default_rng(7)
        authors = {
            f"author{side}": [f"a{author}" for author in rng.integers(0, num_authors, num_rows)]
            for side in (1, 2)
        }
        columns = {"text2": texts_of(num_rows, seed=1), **authors, **columns}
        file = tmp_path / "pairs.jsonl"
        return write_rows(file, texts_of(num_rows), labels_of("single_label", num_rows), **columns)

    return write


PAIRS = {"text_pair_column": "text2", "group_columns": ("author1", "author2")}


def test_resamples_of_pairs_draw_the_authors_of_both_sides(bundles, pairs):
    """So in groups of a column too; the report says what was drawn, and that 6 authors are few."""
    kind = [f"k{row % 2}" for row in range(NUM_ROWS)]
    data = pairs(kind=kind)
    report = run(
        bundles / "single_label", data, **PAIRS, group_column="kind", against=(str(bundles / "other"),)
    )
    assert (report.drawn, report.num_groups) == ("groups of both sides", 6)
    assert any("draw 6 groups, too few" in warning for warning in report.warnings)
    assert [part.name for part in report.slices] == ["k0", "k1"]
    rows = run(bundles / "single_label", data, text_pair_column="text2", group_column="kind", resample="rows")
    assert report.metrics["nll"].value == rows.metrics["nll"].value
    assert report.metrics["nll"].interval != rows.metrics["nll"].interval
    assert report.slices[0].metrics["nll"].interval != rows.slices[0].metrics["nll"].interval
    # Rows that share an author are not independent, so McNemar's test does not hold for them.
    assert report.parts[0].others[0].differences["accuracy"].test == "bootstrap"


def test_pairs_that_share_texts_are_not_quietly_taken_for_independent(bundles, tmp_path):
    """The report names the way out, unless groups are drawn, rows were asked for, or nothing is shared."""
    texts, labels = [f"first {row}" for row in range(NUM_ROWS)], labels_of("single_label", NUM_ROWS)
    authors = {f"author{side}": [f"a{row % 7}" for row in range(NUM_ROWS)] for side in (1, 2)}

    def warned(text2, **settings):
        data = write_rows(tmp_path / "pairs.jsonl", texts, labels, text2=text2, **authors)
        found = run(bundles / "single_label", data, **{"text_pair_column": "text2", **settings}).warnings
        return [each.split(" texts")[0] for each in found if "--group-columns" in each]

    others = [f"other {row}" for row in range(NUM_ROWS)]
    shared = ["one", "one", "two", "two", "two", *others[5:]]
    assert warned(shared) == ["2 of 117"]
    assert warned(shared, resample="rows") == warned(shared, **PAIRS) == []
    assert warned(others) == warned(texts) == []


def test_pairs_without_an_author_are_refused(bundles, pairs):
    """A pair that belongs nowhere cannot be drawn; a column that is not there is named."""
    data = pairs(author2=[None, *["a1"] * (NUM_ROWS - 1)])
    with pytest.raises(InputError, match="1 of 60 rows have null for author2"):
        run(bundles / "single_label", data, **PAIRS)
    columns = {**PAIRS, "group_columns": ("author1", "writer")}
    with pytest.raises(SourceError, match="writer"):
        run(bundles / "single_label", data, **columns)


def test_groups_of_one_row_are_said_to_be_so(bundles, rows, pairs):
    """They say nothing of which rows are alike: of a column, and of both sides of pairs."""
    alone = "each group has one row: drawing groups says no more than drawing rows"
    names = [f"g{row}" for row in range(NUM_ROWS)]
    assert alone in run(bundles / "single_label", rows(author=names), group_column="author").warnings
    assert alone in run(bundles / "single_label", pairs(author1=names, author2=names), **PAIRS).warnings
    shared = ["g0", "g0", *names[2:]]
    assert alone not in run(bundles / "single_label", rows(author=shared), group_column="author").warnings


def test_labels_in_another_order_compare_by_name(bundles, rows, tmp_path):
    """The same model with its outputs swapped and renamed is the same model."""
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(bundles / "single_label", tmp_path / "swapped")
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = np.ascontiguousarray(weights[name][::-1])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_json(folder / "config.json", id2label={"0": "spam", "1": "ham"}, label2id={"spam": 0, "ham": 1})
    part = run(bundles / "single_label", rows(), against=(str(folder),)).parts[0]
    for name, difference in part.others[0].differences.items():
        assert difference.value == pytest.approx(0.0, abs=1e-6), name


# ---------------------------------------------------------------- undefined, few, constant


def test_rows_of_one_label_leave_auc_undefined_with_the_reason(bundles, tmp_path):
    """Never 0 or NaN, in the table, the JSON and the page."""
    data = write_rows(tmp_path / "ham.jsonl", texts_of(20), ["ham"] * 20)
    out = tmp_path / "page.html"
    report = run(bundles / "single_label", data, out=str(out))
    found = report.to_json()["parts"][0]["metrics"]["auc"]
    assert found["value"] is None
    assert "ranking needs two classes" in found["undefined"]
    assert "AUC: undefined (all 20 labels are 0" in str(report)
    assert "undefined (all 20 labels are 0" in out.read_text()
    assert "no row of spam" in str(report)
    assert "only 20 rows" in str(report)
    json.dumps(report.to_json(), allow_nan=False)


def test_one_row_is_evaluated(bundles, tmp_path):
    """Without intervals, and with every reason."""
    data = write_rows(tmp_path / "one.jsonl", ["document of 1"], ["ham"])
    report = run(bundles / "single_label", data)
    assert report.metrics["accuracy"].interval.undefined == "all resamples give the same value"


def test_few_groups_are_warned_of_and_rows_can_be_drawn_instead(bundles, rows):
    """Groups may be kinds; then rows are what is drawn."""
    data = rows(book=["a", "b", "c"] * (NUM_ROWS // 3))
    by_group = run(bundles / "single_label", data, group_column="book")
    by_row = run(bundles / "single_label", data, group_column="book", resample="rows")
    assert (by_group.drawn, by_row.drawn) == ("groups", "rows")
    assert "intervals draw 3 groups" in str(by_group)
    assert "intervals draw" not in str(by_row)
    assert [part.num_rows for part in by_row.slices] == [20, 20, 20]


def test_small_groups_are_counted_among_all_of_them(bundles, rows):
    """Not among the 50 largest alone, whose metrics are found."""
    data = rows(num_rows=120, book=[f"b{min(row, 60)}" for row in range(120)])
    report = run(bundles / "single_label", data, group_column="book", resamples=0)
    assert (len(report.slices), report.num_slices_left_out) == (50, 11)
    assert "60 of 61 groups have fewer than 30 rows" in str(report)


def test_what_its_user_should_hear_of_a_bundle_is_a_note(calibrated, rows):
    """Leftovers of another model in the folder: `evaluate` says so, as `score` does."""
    bundle, data = calibrated(temperature=0.7), rows()
    (bundle / "pytorch_model.bin").write_bytes(b"old")
    assert "pytorch_model.bin" in str(run(bundle, data))


def test_a_calibration_of_other_lengths_is_warned_of(calibrated, rows):
    """A temperature that was fitted on texts cut at 64 tokens says little of texts cut at 32."""
    bundle, data = calibrated(temperature=0.7, meta={"max_length": 64, "on_long": "truncate"}), rows()
    assert "calibrated on texts of up to 64 tokens" in str(run(bundle, data, max_length=32))
    assert "calibrated on texts" not in str(run(bundle, data, max_length=64))


def test_a_calibration_of_other_windows_is_warned_of(calibrated, rows):
    """Windows that overlap otherwise than those of the calibration have other means."""
    meta = {"max_length": 32, "on_long": "window-mean", "stride": 8}
    bundle, data = calibrated(temperature=0.7, meta=meta), rows()
    for stride, is_said in ((0, True), (8, False)):
        said = str(run(bundle, data, max_length=32, on_long="window-mean", stride=stride))
        assert ("--on-long window-mean --stride 8" in said) == is_said


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("task", "labels", "error", "match"),
    [
        (
            "single_label",
            ["ham", "fish"],
            InputError,
            r"labels \['fish'\]; the model knows \['ham', 'spam'\]",
        ),
        ("single_label", ["ham", None], SourceError, "1 without a label"),
        ("regression", [1.0, float("nan")], SourceError, "NaN as a label"),
        ("single_label", [], SourceError, "0 rows"),
    ],
)
def test_labels_that_cannot_be_used_are_one_line(bundles, tmp_path, task, labels, error, match):
    """Unknown, missing or NaN, and no rows at all."""
    data = write_rows(tmp_path / "bad.jsonl", texts_of(len(labels)), labels)
    with pytest.raises(error, match=match) as caught:
        run(bundles / task, data)
    assert "\n" not in str(caught.value)


def test_bundles_of_other_tasks_or_labels_do_not_compare(bundles, rows, tmp_path):
    """Before any forward pass."""
    data = rows()
    with pytest.raises(UsageError, match="only bundles of one task compare"):
        run(bundles / "single_label", data, against=(str(bundles / "regression"),))
    folder = shutil.copytree(bundles / "other", tmp_path / "renamed")
    change_json(folder / "config.json", id2label={"0": "ham", "1": "eggs"}, label2id={"ham": 0, "eggs": 1})
    with pytest.raises(UsageError, match=r"only one of the bundles knows \['eggs', 'spam'\]"):
        run(bundles / "single_label", data, against=(str(folder),))


def test_a_row_that_cannot_be_scored_stops_the_evaluation(tmp_path, rows):
    """A metric of the other rows would be of another test."""
    bundle = write_model(tmp_path / "nan", nan_word="document")
    data = write_rows(tmp_path / "nan.jsonl", ["document of 1", "of 2"], ["ham", "spam"])
    with pytest.raises(InputError, match="1 of 2 rows have logits that are not finite"):
        run(bundle, data)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"resamples": 50}, "100 or more"),
        ({"resample": "groups"}, "give --group-column"),
        ({"out": "page.pdf"}, "ends in .html"),
        ({"unanswered_within": 0.1}, "give --text-pair-column"),
        ({"group_columns": ("author1", "author2")}, "name two, with --text-pair-column"),
        ({"group_columns": ("author",), "text_pair_column": "b"}, "a column for each of two texts"),
        ({"group_columns": ("author", "author"), "text_pair_column": "b"}, "a column for each of two texts"),
        ({"group_columns": ("a", "b"), "text_pair_column": "c", "resample": "rows"}, "are there to be drawn"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, match):
    """Before anything is loaded."""
    with pytest.raises(UsageError, match=match):
        EvaluateSettings(bundle="b", data=("d",), **settings)


# ---------------------------------------------------------------- command line, JSON, page


def test_a_report_replaces_no_rows_and_no_part_of_a_bundle(bundles, rows, tmp_path):
    """A slip in --out would be the end of the data, or of the model."""
    data = rows()
    sources = tmp_path / "sources"
    sources.mkdir()
    held = shutil.copy(data, sources / "a.json")
    model = shutil.copytree(bundles / "single_label", tmp_path / "model")
    for source, out in ((held, held), (f"{sources}/*.json", held), (sources, held)):
        with pytest.raises(UsageError, match="is one of the sources"):
            run(model, source, out=str(out), format="jsonl")
    for bundle, against in ((model, ()), (bundles / "other", (str(model),))):
        with pytest.raises(UsageError, match="is a file of the bundle"):
            run(bundle, data, out=str(model / "config.json"), against=against)
    assert held.read_bytes() == data.read_bytes()
    assert run(model, data, out=str(model / "evaluation.json")).num_rows == NUM_ROWS


@pytest.mark.parametrize("place", ["folder.json", "file/x.json"])
def test_an_out_that_cannot_be_written_is_found_before_a_row_is_read(bundles, tmp_path, place):
    """Not after the forward pass of all rows."""
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(
        (UsageError, StorageError), match=r"is a folder; name a file|a folder that can be written to"
    ):
        run(bundles / "single_label", "no such rows.jsonl", out=str(tmp_path / place))


def test_the_command_prints_a_table_or_json_and_writes_the_page(bundles, rows, tmp_path, capsys):
    """All from one command; the seed makes them the same again."""
    data, page = rows(), tmp_path / "page.html"
    command = ["evaluate", str(bundles / "single_label"), str(data), "--resamples", "200"]
    assert main([*command, "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert f"wrote {page}" in printed
    assert main([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main([*command, "--out", str(tmp_path / "figures.json")]) == 0
    second = json.loads((tmp_path / "figures.json").read_text())
    assert first["parts"] == second["parts"]
    assert first["format_version"] == 2


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_the_page_stands_alone(bundles, rows, tmp_path, task):
    """No script, no address of another file, no text of a row unless asked for."""
    page = tmp_path / "page.html"
    texts = texts_of(NUM_ROWS)
    report = run(bundles / task, rows(task), out=str(page))
    html = page.read_text()
    assert "<script" not in html
    assert "http://www.w3.org/2000/svg" in html
    assert "https://" not in html
    assert html.count("http://") == html.count('xmlns="http://www.w3.org/2000/svg"')
    shown = [texts[each.row] for each in report.bundle.worst]
    assert shown
    assert not any(text in html for text in shown if len(text) > 10)
    run(bundles / task, rows(task), out=str(page), show_texts=True)
    assert all(" ".join(text.split())[:50] in page.read_text() for text in shown)


def test_texts_and_names_in_the_page_are_escaped(bundles, tmp_path):
    """Text from data is text, whatever it looks like."""
    texts = ["<script>alert(1)</script> " + text for text in texts_of(20)]
    data = write_rows(tmp_path / "x.jsonl", texts, labels_of("single_label", 20), book=["<b>", "&amp;"] * 10)
    page = tmp_path / "page.html"
    run(bundles / "single_label", data, out=str(page), show_texts=True, group_column="book")
    assert "<script" not in page.read_text()
    assert "&lt;b&gt;" in page.read_text()


def test_parquet_and_pairs_are_read_as_anywhere(bundles, tmp_path):
    """Sources of any format; a second column makes pairs."""
    import pyarrow as pa

    table = pa.table({"q": texts_of(20), "a": texts_of(20, seed=1), "label": labels_of("single_label", 20)})
    pq.write_table(table, tmp_path / "pairs.parquet")
    columns = {"text_column": "q", "text_pair_column": "a"}
    report = run(bundles / "single_label", tmp_path / "pairs.parquet", **columns)
    assert report.num_rows == 20
    # PAN's metrics belong to pairs; with a wide band every pair is left unanswered.
    assert report.metrics["c_at_1"].value == report.metrics["accuracy"].value
    band = run(bundles / "single_label", tmp_path / "pairs.parquet", **columns, unanswered_within=0.499)
    assert band.metrics["c_at_1"].value == 0
    assert "c_at_1" in band.to_json()["definitions"]
