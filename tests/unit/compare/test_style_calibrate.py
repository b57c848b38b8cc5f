"""`assay style calibrate`: numbers of documents to probabilities for each number of chunks, and who may use them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import change_json
from support.siamese import make_siamese_folder

from assay.api import CompareSettings, StyleCalibrateSettings, compare, style_calibrate
from assay.books.windows import sample_order
from assay.bundle.calibration import load_style_calibration, save_calibration
from assay.calibrate.affine import fit_logistic
from assay.cli.main import main
from assay.compare.style_calibrate import _fit
from assay.compare.style_calibration import read_style_calibration
from assay.errors import BundleError, InputError, RefusedError, UsageError
from assay.labelled.provenance import hashes_of, packed_provenance
from assay.labelled.read import read_labelled
from assay.metrics import sigmoid
from assay.outcome.calibration import Calibration
from assay.outcome.maps import map_scores
from assay.siamese.documents import DocumentCutter, compare_documents, encode_documents
from assay.siamese.pairs import load_siamese
from assay.siamese.settings import DocumentRules
from assay.tasks import Task

COLUMNS = {"text_column": "text1", "text_pair_column": "text2", "num_threads": 1}


@pytest.fixture(scope="module", autouse=True)
def _threads():
    """Engines set torch's thread count for the whole process; it is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def documents(num, sentences=9):
    """Texts by authors who each end all their sentences in their own way: the author of each, and the text."""
    rng = np.random.default_rng(0)
    nouns = ("the sea", "a house", "the rain", "my horse", "an old man", "the window", "her letter")
    ends = ("!!! oh!", "; so it went, and so it goes.", "?", "... and the the the the cat.", "- 7 8 9 10 11.")
    for number in range(num):
        author = number % len(ends)
        text = " ".join(
            f"We saw {rng.choice(nouns)} and {rng.choice(nouns)}{ends[author]}" for _ in range(sentences)
        )
        yield author, text


def pairs(num=40):
    """Rows of two documents with the label of one author; the group is the first one's number."""
    found = list(documents(num))
    rng = np.random.default_rng(1)
    for number, (author, text) in enumerate(found):
        for other in rng.choice(num, 3, replace=False):
            if other != number:
                author2, text2 = found[other]
                yield {
                    "text1": text,
                    "text2": text2,
                    "label": int(author == author2),
                    "group": f"g{number % 8}",
                }
        same = found[(number + 5) % num]
        yield {"text1": text, "text2": same[1], "label": int(author == same[0]), "group": f"g{number % 8}"}


def write(file, rows):
    """Rows as JSON Lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model with a calibration for documents of 1, 2 and 4 chunks, and the data of it."""
    folder = tmp_path_factory.mktemp("style")
    model = make_siamese_folder(folder / "model")
    data = write(folder / "pairs.jsonl", pairs())
    settings = StyleCalibrateSettings(
        bundle=str(model),
        data=(data,),
        aggregate="cosine",
        group_column="group",
        num_chunks=("2", "4", "1"),
        **COLUMNS,
    )
    return model, data, style_calibrate(settings)


def test_the_file_has_the_keys_of_other_trainers_and_a_map_for_each_number_of_chunks(fitted):
    """What reads `style_calibration` alone gets the map of the most chunks; probabilities are better than a guess."""
    model, _, report = fitted
    content = json.loads(report.file.read_text())
    assert set(content["style_calibration"]) <= {"method", "coef", "intercept", "x_thresholds", "y_values"}
    keys = (
        "n_samples",
        "num_chunks",
        "chunk_size",
        "overlap",
        "aggregate",
        "topk",
        "max_length",
        "model_dir",
    )
    assert {*keys, "selection_metric", "n_splits", "method_requested"} <= set(content["meta"])
    assert (content["meta"]["num_chunks"], content["meta"]["aggregate"]) == (4, "cosine")
    assert set(content["selection"]) == {"scores", "chosen"}
    assert set(content["selection"]["scores"]) == {"logistic", "isotonic"}
    assert [each["num_chunks"] for each in content["by_num_chunks"]] == [1, 2, 4]
    assert content["by_num_chunks"][-1]["style_calibration"] == content["style_calibration"]
    assert content["bundle_fingerprint"] == load_siamese(model, num_threads=1).bundle.fingerprint
    assert read_style_calibration(report.file).maps == report.calibration.maps
    assert load_style_calibration(model).method == content["selection"]["chosen"]
    for each in report.calibration.maps:
        assert each.cross_validated["auc"] > 0.6
        assert each.cross_validated["brier"] < 0.5
        assert f"{each.num_chunks} chunks: {each.num_pairs} pairs, {each.map.method}" in str(report)


def test_a_number_of_chunks_that_pairs_are_too_few_for_is_left_out_unless_it_was_asked_for(fitted, tmp_path):
    """Both labels have the number, but in one group: no map of it can be measured on another."""
    model, _, _ = fitted
    (_, long), (_, longer) = documents(2, sentences=60)
    few = [{"text1": long, "text2": longer, "label": label, "group": "few"} for label in (0, 1)]
    data = write(tmp_path / "pairs.jsonl", [*pairs(), *few])
    out = str(tmp_path / "style.json")
    settings = StyleCalibrateSettings(
        bundle=str(model), data=(data,), out=out, group_column="group", **COLUMNS
    )
    report = style_calibrate(settings)
    sizes = [each.num_chunks for each in report.calibration.maps]
    assert sizes[:2] == [1, 2]
    assert any(note.startswith(f"no map of {2 * sizes[-1]} chunks: ") for note in report.notes)
    with pytest.raises(InputError, match="1 groups; 5-fold cross-validation by group needs as many"):
        style_calibrate(replace(settings, num_chunks=(str(2 * sizes[-1]),)))


def test_the_numbers_are_those_of_compare(fitted, tmp_path):
    """The map of one chunk is Platt's of the number that compares one chunk of each document."""
    model, data, _ = fitted
    out = tmp_path / "one.json"
    chosen = {"method": "logistic", "aggregate": "cosine", "out": str(out)}
    settings = StyleCalibrateSettings(bundle=str(model), data=(data,), num_chunks=("1",), **chosen, **COLUMNS)
    style_calibrate(settings)
    loaded = load_siamese(model, num_threads=1)
    cutter = DocumentCutter(loaded.bundle, DocumentRules(), max_length=32)
    whole = [text for _, text in documents(40)]
    cut = [cutter.cut(text, name="x") for text in whole]
    parts = [each.take(sample_order(len(each.passages), seed=0, book_id=each.text)[:1]) for each in cut]
    rows = [json.loads(line) for line in Path(data).read_text(encoding="utf-8").splitlines()]
    first, second = (np.array([whole.index(row[side]) for row in rows]) for side in ("text1", "text2"))
    scores = compare_documents(loaded, encode_documents(loaded, parts), first, second, "cosine")
    expected = fit_logistic(scores, np.array([row["label"] for row in rows]))
    (found,) = read_style_calibration(out).maps
    np.testing.assert_allclose((found.map.scale[0], found.map.bias[0]), expected, rtol=1e-3)
    with pytest.raises(InputError, match=r"num_chunks 99; no pairs .* the longest pair has \d"):
        style_calibrate(replace(settings, num_chunks=("99",)))


def files_of(folder, *texts):
    """Settings of the files of two texts."""
    for name, text in zip(("one.txt", "two.txt"), texts, strict=True):
        (folder / name).write_text(text, encoding="utf-8")
    return {"text1": str(folder / "one.txt"), "text2": str(folder / "two.txt"), "num_threads": 1}


def test_compare_takes_the_map_of_the_most_chunks_that_both_have(fitted, tmp_path):
    """It is found in the bundle, brings its aggregate, and a text of fewer chunks than any map has gets a note."""
    model, _, report = fitted
    (_, long), (_, other) = list(documents(2, sentences=30))
    found = compare(CompareSettings(bundle=str(model), **files_of(tmp_path, long, other)))
    assert found.calibration == "calibrated for documents of 4 chunks"
    assert found.aggregate == "cosine"
    assert -1 <= found.score <= 1
    assert found.probability == map_scores([found.score], report.calibration.maps[2].map)[0]
    assert found.evidence == {}
    short = compare(CompareSettings(bundle=str(model), **files_of(tmp_path, long, "We saw the sea.")))
    assert short.calibration == "calibrated for documents of 1 chunk"
    assert short.probability == map_scores([short.score], report.calibration.maps[0].map)[0]


def test_a_shorter_text_than_any_that_was_fitted_gets_a_note(fitted, tmp_path):
    """The map of the fewest chunks is used, and it is said that it may be too sure."""
    model, data, _ = fitted
    out = str(tmp_path / "four.json")
    style_calibrate(
        StyleCalibrateSettings(bundle=str(model), data=(data,), num_chunks=("4",), out=out, **COLUMNS)
    )
    texts = files_of(tmp_path, "We saw the sea.", "We saw a house!!! oh!")
    found = compare(CompareSettings(bundle=str(model), calibration=out, **texts))
    assert found.calibration == "calibrated for documents of 4 chunks"
    assert any("the calibration is for 4 or more" in note for note in found.notes)


def test_a_calibration_of_another_model_or_of_other_numbers_is_refused(fitted, tmp_path):
    """One line with the way out: the model, how documents are compared, a file that says neither."""
    model, _, report = fitted
    texts = files_of(tmp_path, "We saw the sea.", "We saw a house.")
    other = make_siamese_folder(tmp_path / "other", seed=1)
    for bundle, changes, said in (
        (other, {}, "was fitted for another model than .*other.*; run assay style calibrate again"),
        (
            model,
            {"aggregate": "vectors"},
            "aggregate is vectors; .* was fitted with cosine; set it so, or run",
        ),
        (model, {"mask_names": True}, "mask_names is True; .* was fitted with False"),
        (model, {"chunk_tokens": 9}, "chunk_size is 9; .* was fitted with 30"),
        (model, {"label": "0"}, "label is 0; .* was fitted with 1"),
    ):
        with pytest.raises(RefusedError, match=said) as refused:
            compare(CompareSettings(bundle=str(bundle), calibration=str(report.file), **changes, **texts))
        assert "\n" not in str(refused.value)
    for content, said in (
        (
            {"style_calibration": {"method": "logistic", "coef": 1.0, "intercept": 0.0}},
            "does not say which model",
        ),
        ({"bundle_fingerprint": "x", "meta": {}, "by_num_chunks": []}, "must be a list of maps"),
        ({"bundle_fingerprint": "x", "meta": {}, "by_num_chunks": [{"num_chunks": 0}]}, "a number from 1 on"),
        (
            {"bundle_fingerprint": "x", "meta": {}, "by_num_chunks": [{"num_chunks": 1, "n_samples": 2}]},
            "it needs the method logistic or isotonic",
        ),
        ({"format_version": 99}, "format_version 99"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(content))
        with pytest.raises(BundleError, match=said):
            compare(CompareSettings(bundle=str(model), calibration=str(tmp_path / "bad.json"), **texts))
    with pytest.raises(BundleError, match=r"none\.json"):
        compare(CompareSettings(bundle=str(model), calibration=str(tmp_path / "none.json"), **texts))


def test_a_calibrated_model_is_another_one(fitted, tmp_path):
    """What `calibration.json` changes is part of the fingerprint, and the message says so."""
    folder = make_siamese_folder(tmp_path / "model")
    data = write(tmp_path / "pairs.jsonl", pairs(20))
    style_calibrate(StyleCalibrateSettings(bundle=str(folder), data=(data,), aggregate="cosine", **COLUMNS))
    texts = files_of(tmp_path, "We saw the sea.", "We saw a house.")
    compare(CompareSettings(bundle=str(folder), **texts))
    save_calibration(folder, Calibration(temperature=2.0))
    with pytest.raises(RefusedError, match="or before it was calibrated"):
        compare(CompareSettings(bundle=str(folder), **texts))


@pytest.mark.parametrize(("shape", "chosen"), [("logistic", "logistic"), ("step", "isotonic")])
def test_the_better_map_is_chosen_on_pairs_held_out_by_group(shape, chosen):
    """A logistic relation by the logistic map, another by the isotonic one; both figures are kept."""
    rng = np.random.default_rng(3)
    score = rng.uniform(-3, 3, 3_000)
    truth = sigmoid(2 * score) if shape == "logistic" else np.where(score > 0, 0.6, 0.4) + 0.35 * (score > 2)
    settings = StyleCalibrateSettings(bundle="b", data=("d",), text_pair_column="text2")
    groups = [str(number) for number in rng.integers(0, 30, 3_000)]
    found = _fit(settings, 4, score, rng.random(3_000) < truth, groups)
    assert found.map.method == chosen
    assert min(found.scores, key=lambda method: found.scores[method]) == chosen
    assert found.cross_validated["ece"] < 0.05
    with pytest.raises(InputError, match="1 groups; 5-fold cross-validation by group needs as many"):
        _fit(settings, 4, score, score > 0, ["a"] * 3_000)


def test_what_cannot_be_fitted_is_refused(fitted, tmp_path, capsys):
    """One label alone, no second text, a number of chunks that is not one, a folder of a classifier, seen rows."""
    model, _, _ = fitted
    rows = list(pairs(10))
    one = write(tmp_path / "one.jsonl", [{**row, "label": 1} for row in rows])
    with pytest.raises(
        InputError, match=r"all \d+ pairs are labelled '1'; a calibration needs pairs of both"
    ):
        style_calibrate(StyleCalibrateSettings(bundle=str(model), data=(one,), **COLUMNS))
    with pytest.raises(UsageError, match="give the columns with --text-column and --text-pair-column"):
        StyleCalibrateSettings(bundle="b", data=("d",))
    with pytest.raises(UsageError, match="num_chunks has '0'; it must be whole numbers from 1 on"):
        StyleCalibrateSettings(bundle="b", data=("d",), num_chunks=("0",), **COLUMNS)
    two = write(tmp_path / "two.jsonl", rows)
    seen = make_siamese_folder(tmp_path / "seen")
    settings = StyleCalibrateSettings(bundle=str(seen), data=(two,), **COLUMNS)
    trained = read_labelled((two,), settings, task=Task.SINGLE_LABEL)
    change_json(seen / "assay.json", provenance=packed_provenance(hashes_of({"train": trained.take([0, 3])})))
    with pytest.raises(InputError, match=r"of \d+ rows the training of .* has seen 2 as train rows"):
        style_calibrate(settings)
    capsys.readouterr()
    words = [
        "style",
        "calibrate",
        str(tmp_path),
        one,
        "--text-column",
        "text1",
        "--text-pair-column",
        "text2",
    ]
    assert main(words) == 2
    assert "not a Siamese model" in capsys.readouterr().err


def test_documents_may_be_files(tmp_path, capsys):
    """With --paths the columns name files; the command says what came of it, and compare finds the map."""
    model = make_siamese_folder(tmp_path / "model")
    texts = [text for _, text in documents(20)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    rows = [
        {**row, **{side: str(tmp_path / f"{texts.index(row[side])}.txt") for side in ("text1", "text2")}}
        for row in pairs(20)
    ]
    data = write(tmp_path / "pairs.jsonl", rows)
    columns = ["--text-column", "text1", "--text-pair-column", "text2", "--num-threads", "1"]
    assert main(["style", "calibrate", str(model), data, "--paths", "--aggregate", "logits", *columns]) == 0
    assert f"calibrated for documents: {model}/style_calibration.json" in capsys.readouterr().out
    words = ["--text1", str(tmp_path / "0.txt"), "--text2", str(tmp_path / "5.txt"), "--num-threads", "1"]
    assert main(["compare", "--bundle", str(model), *words]) == 0
    assert "(calibrated for documents of " in capsys.readouterr().out


def test_a_calibration_of_its_own_documents_is_nothing_to_note(fitted):
    """The file in a Siamese model's folder is what `assay compare` reads: nobody is told of it each time."""
    model, _, _ = fitted
    assert load_siamese(model, num_threads=1).bundle.notes == ()
