"""`assay compare`: two files to an answer, what it rests on, and what is refused."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.models import change_json, write_model
from support.siamese import make_siamese_folder, write_cascade_of

from assay.api import CompareSettings, compare
from assay.bundle.calibration import save_calibration
from assay.cli.main import main
from assay.compare.compare import relation_of
from assay.errors import BundleError
from assay.metrics import sigmoid
from assay.outcome.calibration import Calibration
from assay.score.classifier import load
from assay.siamese.documents import DocumentCutter
from assay.siamese.evidence import Combination, PairEvidence
from assay.siamese.evidence_files import WeighedEvidence, write_evidence
from assay.siamese.pairs import load_siamese
from assay.siamese.scoring import margins
from assay.siamese.settings import DocumentRules

SEA = " ".join(f"The whale number {k} swam on, said Ahab, and he wept." for k in range(12))
LAND = " ".join(f"Emma walked to house {k}, and the rain fell on her." for k in range(9))


@pytest.fixture(scope="module", autouse=True)
def _threads():
    """Engines set torch's thread count for the whole process; it is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model that no test changes, with evidence of words."""
    folder = make_siamese_folder(tmp_path_factory.mktemp("compare") / "model")
    evidence = PairEvidence.fit(
        [SEA[:200], SEA[200:400], LAND[:200], LAND[200:400]],
        np.array([0, 2, 0, 1]),
        np.array([1, 3, 2, 3]),
        np.array([True, True, False, False]),
        books=None,
        language="en",
    )
    combination = Combination(network=1.0, evidence=0.5, bias=0.0)
    write_evidence(folder / "pair_head", WeighedEvidence(evidence=evidence, combination=combination))
    return folder


@pytest.fixture
def files(tmp_path):
    """Two texts."""
    (tmp_path / "sea.txt").write_text(SEA, encoding="utf-8")
    (tmp_path / "land.txt").write_text(LAND, encoding="utf-8")
    return str(tmp_path / "sea.txt"), str(tmp_path / "land.txt")


def settings_of(model, files, **changes):
    """Settings of a comparison on one thread."""
    return CompareSettings(bundle=str(model), text1=files[0], text2=files[1], num_threads=1, **changes)


def test_the_answer_and_what_it_rests_on(model, files):
    """Counts, passages with their places, pieces of evidence that sum up with the network; all of it as JSON too."""
    found = compare(settings_of(model, files, num_passages=2))
    first, second = found.texts
    assert (first.num_words, second.num_words) == (len(SEA.split()), len(LAND.split()))
    assert first.num_chunks > 2 < second.num_chunks
    assert found.probability == pytest.approx(float(sigmoid(np.array(found.score))), abs=1e-6)
    assert found.confidence == max(found.probability, 1 - found.probability)
    assert found.holds is (found.probability >= 0.5)
    for pairs in (found.passages_for, found.passages_against):
        assert len(pairs) == 2
        for pair in pairs:
            shown = SEA[pair.first.start : pair.first.stop], LAND[pair.second.start : pair.second.stop]
            assert shown[0].startswith(pair.first.beginning[:40])
            assert shown[1].startswith(pair.second.beginning[:40])
            logits = load_siamese(model, num_threads=1).logits([shown])
            assert pair.log_odds == pytest.approx(margins(logits)[0], abs=1e-4)
    assert found.passages_for[0].log_odds > found.passages_for[1].log_odds
    assert found.passages_for[1].log_odds > found.passages_against[1].log_odds
    assert "names" in found.evidence
    sizes = [abs(share) for share in found.evidence.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert json.loads(json.dumps(found.to_json()))["passages_for"][0]["first"]["start"] >= 0


def test_the_other_label_turns_all_of_it_around(model, files):
    """The probability, the passages and the evidence are those of the label that was named."""
    one, other = (compare(settings_of(model, files, label=label)) for label in ("1", "0"))
    assert one.probability + other.probability == pytest.approx(1)
    assert one.score == -other.score
    assert one.relation == "label 1"
    assert other.relation == "label 0"
    assert one.passages_for[0].first == other.passages_against[0].first
    assert one.evidence["names"] == -other.evidence["names"]


def test_it_abstains_where_it_is_not_certain(model, files):
    """Below the confidence asked for there is no answer, and the lines say so."""
    found = compare(settings_of(model, files, min_confidence=0.99999999))
    assert found.holds is None
    assert "not certain" in str(found)
    assert found.probability == compare(settings_of(model, files)).probability


def test_the_calibration_of_the_bundle_is_used(model, files, tmp_path):
    """A temperature divides the log-odds, and its threshold decides."""
    folder = make_siamese_folder(tmp_path / "model")
    plain = compare(settings_of(folder, files))
    save_calibration(folder, Calibration(temperature=4.0, threshold=0.999))
    warm = compare(settings_of(folder, files))
    assert warm.probability == pytest.approx(float(sigmoid(np.array(plain.score / 4))))
    assert warm.holds is False
    assert (plain.calibration, warm.calibration) == ("not calibrated", "calibrated for single texts")


@pytest.mark.parametrize(
    ("labels", "settings", "relation"),
    [
        (("0", "1"), {"label_column": "label", "book_columns": ["book1", "book2"]}, "same book"),
        (("0", "1"), {"label_column": "same_author", "book_columns": ["book1", "book2"]}, "same author"),
        (("other_book", "same_book"), {}, "same book"),
        (("other", "Same author"), {}, "same author"),
        (("0", "1"), {"label_column": "label", "book_columns": []}, "label 1"),
        (("no", "yes"), {"label_column": "is_copy"}, "label yes"),
        (("0", "1"), None, "label 1"),
    ],
)
def test_what_the_answer_is_about(labels, settings, relation):
    """The name of the label, else the column that the model was trained on; no guess where neither says it."""
    bundle = SimpleNamespace(labels=labels, provenance={} if settings is None else {"settings": settings})
    assert relation_of(bundle, 1) == relation


def run(capsys, *words):
    """Exit status, stdout and the last line on stderr."""
    capsys.readouterr()
    status = main(["compare", *map(str, words), "--num-threads", "1"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err.splitlines()[-1:]


def test_the_command_answers_in_lines_and_in_json(model, files, capsys, monkeypatch, tmp_path):
    """A short text is one chunk, - is standard input, a byte order mark goes, one file given twice is said."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("\ufeffThe cat sat.".encode())))
    status, out, _ = run(capsys, "--bundle", model, "--text1", "-", "--text2", files[1])
    assert status == 0
    assert out.startswith("label 1: ")
    assert "standard input: 3 words, 1 chunk\n" in out
    assert "words and style that counted most:" in out
    status, out, _ = run(capsys, "--bundle", model, "--text1", files[0], "--text2", files[0], "--json")
    assert status == 0
    found = json.loads(out)
    assert found["notes"] == ["both texts are the same file"]
    assert [text["num_chunks"] for text in found["texts"]] == [found["texts"][0]["num_chunks"]] * 2
    (tmp_path / "copy.txt").write_text(SEA, encoding="utf-8")
    status, out, _ = run(capsys, "--bundle", model, "--text1", files[0], "--text2", tmp_path / "copy.txt")
    assert "note: both files hold the same text" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "bad.txt does not exist; name a file"),
        (b"", "bad.txt: no text; two texts are compared"),
        (b" \n\t", "bad.txt: no text; two texts are compared"),
        ("Un café".encode("latin-1"), "bad.txt: byte 0xe9 at 6 is not UTF-8; convert it"),
        (b"MZ\0\0", "bad.txt: NUL characters; it is not a text"),
        ("folder", "bad.txt is a folder; name a file"),
    ],
)
def test_a_file_that_is_not_a_text_is_refused(model, files, capsys, tmp_path, content, said):
    """One line with the way out, before the model is loaded."""
    if content == "folder":
        (tmp_path / "bad.txt").mkdir()
    elif content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    status, out, lines = run(
        capsys, "--bundle", tmp_path, "--text1", files[0], "--text2", tmp_path / "bad.txt"
    )
    assert (status, out) == (2, "")
    assert said in lines[0]


def test_a_model_that_cannot_compare_is_refused(model, files, capsys, tmp_path):
    """A plain classifier, three labels, a label that it lacks, long chunks, a cosine alone, standard input twice."""

    def refused(*words, bundle=model):
        status, out, lines = run(capsys, "--bundle", bundle, "--text1", files[0], "--text2", files[1], *words)
        assert (status, out) == (2, "")
        return lines[0]

    plain = write_model(tmp_path / "plain")
    assert "not a Siamese model; train it with assay train --architecture siamese" in refused(bundle=plain)
    three = make_siamese_folder(tmp_path / "three", labels=("a", "b", "c"))
    assert "has 3 labels, a, b, c; documents are compared by a model of two" in refused(bundle=three)
    assert "has the labels 0, 1; give one of these" in refused("--label", "same")
    assert "reads 30 of a text; lower it" in refused("--chunk-tokens", 100)
    assert "a cosine is not a probability" in refused("--aggregate", "cosine")
    broken = make_siamese_folder(tmp_path / "broken")
    change_json(broken / "assay.json", labels=["0"])
    assert "the head of pairs has 2" in refused(bundle=broken)
    status, _, lines = run(capsys, "--bundle", model, "--text1", "-", "--text2", "-")
    assert (status, "standard input is one text" in lines[0]) == (2, True)
    with pytest.raises(BundleError, match="give one of these"):
        compare(settings_of(model, files, label="x"))


def test_a_cascade_asks_the_second_model_about_what_the_first_leaves_open(model, files, tmp_path, capsys):
    """By hand: the first by the whole documents, the second by the mean log-odds of pairs of passages."""
    cross = write_model(tmp_path / "cross", labels=("0", "1"))
    one = compare(settings_of(model, files))
    cascade = write_cascade_of(tmp_path / "cascade", model, cross, low=min(0.5, one.probability / 2))
    found = compare(settings_of(cascade, files, num_cross_pairs=5))
    assert found.stages["bi_probability"] == pytest.approx(one.probability, abs=1e-6)
    rule = DocumentCutter(load_siamese(model, num_threads=1).bundle, DocumentRules(), max_length=32)
    first, second = (rule.cut(text, name="x").passages for text in (SEA, LAND))
    drawn = np.random.default_rng(0).choice(len(first) * len(second), 5, replace=False)
    picked = [(first[at // len(second)].text, second[at % len(second)].text) for at in drawn]
    said = load(cross).predict(picked)["prob_1"].to_numpy().astype(float)
    cross_probability = sigmoid(np.log(said / (1 - said)).mean())
    assert found.stages["stage"] == "two-stage"
    assert found.stages["cross_probability"] == pytest.approx(float(cross_probability), abs=1e-5)
    odds = 0.6 * np.log(one.probability / (1 - one.probability)) + 0.7 * np.log(
        cross_probability / (1 - cross_probability)
    )
    assert found.probability == pytest.approx(float(sigmoid(odds + 0.1)), abs=1e-5)
    assert found.holds is (found.probability >= 0.5)
    assert any("read 5 of" in note for note in found.notes)
    turned = compare(settings_of(cascade, files, num_cross_pairs=5, label="0"))
    assert turned.probability == pytest.approx(1 - found.probability, abs=1e-6)
    as_json = found.to_json()
    assert (as_json["stage"], as_json["final_probability"]) == ("two-stage", found.probability)
    assert "two-stage: first model" in str(found)


def test_a_cascade_leaves_what_is_clear_to_the_first_model(model, files, tmp_path, monkeypatch):
    """The second is not even loaded; one whose first model is not Siamese has no documents to compare."""
    cross = write_model(tmp_path / "cross", labels=("0", "1"))
    cascade = write_cascade_of(tmp_path / "cascade", model, cross, low=0.0, high=0.5)
    high = compare(settings_of(model, files)).probability > 0.5
    monkeypatch.setattr("assay.compare.cascade.open_scorer", None)
    asked = settings_of(cascade, files, label="1")
    if not high:
        cascade = write_cascade_of(tmp_path / "other", model, cross, low=0.5)
        asked = settings_of(cascade, files, label="1")
    found = compare(asked)
    assert found.stages["stage"] == "bi-only"
    assert found.holds is high
    assert "second model was not asked" in str(found)
    plain = write_cascade_of(tmp_path / "plain", cross, cross, low=0.2)
    with pytest.raises(BundleError, match="is a classifier; documents are compared by a cascade whose first"):
        compare(settings_of(plain, files))
