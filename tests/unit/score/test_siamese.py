"""Pairs scored with a Siamese bundle: its own probabilities, each distinct text encoded once, a run as any other."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.gates import past_gate
from support.scoring import make_classifier, read_parts, score_here
from support.siamese import make_siamese_folder

from assay.bundle.calibration import save_calibration
from assay.errors import CheckError, InputError, RefusedError, UsageError
from assay.outcome.calibration import Calibration
from assay.runs.figures import read_figures
from assay.runs.pipeline import run_unit
from assay.runs.run import FOOTER_STATS, create_or_join, part_path
from assay.runs.verify import verify
from assay.score import pairs as pairs_module
from assay.score.bench.bench import bench
from assay.score.bench.settings import BenchSettings
from assay.score.classifier import load
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here
from assay.score.worker import open_score_work
from assay.siamese import reading
from assay.siamese.evidence import Combination, PairEvidence
from assay.siamese.evidence_files import WeighedEvidence, write_evidence
from assay.siamese.files import read_siamese
from assay.siamese.pairs import load_siamese

pytestmark = pytest.mark.usefixtures("kept_threads")

TEXTS = (
    "The cat sat on the mat, and the dog ran.",
    "It was the best of times. It was the worst of times, or so they said.",
    "No!",
    "",
    "A long line " * 40,
    "Then Tom sat, and Tom ran; the river was wide.",
)
PAIRS = [
    *itertools.product(TEXTS, TEXTS),
    (None, TEXTS[0]),
    (TEXTS[0], None),
    (None, None),
    *itertools.product(TEXTS[:3], TEXTS[3:]),
]
BAD = [row for row, pair in enumerate(PAIRS) if None in pair]
GOOD = [row for row, pair in enumerate(PAIRS) if None not in pair]
COLUMNS = ["id", "num_tokens", "truncated", "error", "prediction", "probability", "prob_0", "prob_1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Siamese bundle with evidence of words, calibrated, that no test changes."""
    made = make_siamese_folder(tmp_path_factory.mktemp("siamese") / "model")
    texts, rows = [*TEXTS[:3], "The cat ran on.", TEXTS[5]], np.arange(4)
    evidence = PairEvidence.fit(
        texts, rows, rows + 1, np.array([True, False, True, False]), books=None, language="en"
    )
    write_evidence(
        made / "pair_head",
        WeighedEvidence(evidence=evidence, combination=Combination(network=0.5, evidence=2.0, bias=-0.25)),
    )
    save_calibration(made, Calibration(temperature=2.0))
    return made


@pytest.fixture(scope="module")
def expected(folder):
    """What the model says of the pairs that have both texts, [M, 2]."""
    return load_siamese(folder, num_threads=1).probabilities([PAIRS[row] for row in GOOD])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The pairs as a file."""
    return write_pairs(tmp_path_factory.mktemp("rows") / "pairs.parquet", PAIRS)


def write_pairs(path, pairs):
    """A source of pairs with ids."""
    first, second = zip(*pairs, strict=True)
    columns = {"id": [f"p{row}" for row in range(len(pairs))], "text1": first, "text2": second}
    pq.write_table(pa.table(columns), path)
    return path


def score(source, folder, run, **settings):
    """A whole run in this process."""
    columns = {"text_column": "text1", "text_pair_column": "text2"}
    return score_here(source, folder, run, **{**columns, "unit_rows": 13, **settings})


def planned(source, folder, run, **settings):
    """A run that was begun, and nothing of it scored."""
    chosen = ScoreSettings(
        sources=(str(source),),
        bundle=str(folder),
        run=str(run),
        **{"text_column": "text1", "text_pair_column": "text2", "unit_rows": 13, **settings},
    )
    return create_or_join(chosen.run, plan_here(chosen)[0])[0]


def work_of(run):
    """What a worker does for a run, loaded."""
    work = open_score_work(run, device="cpu", num_threads=1)
    work.load()
    return work


def counted(monkeypatch):
    """A list that gets the number of sequences of each forward pass of scorers opened from here on."""
    seen, engine_of = [], pairs_module.SiameseModel.vectors

    def vectors(model, texts):
        made, stats = engine_of(model, texts)
        seen.append(texts.num_rows)
        return made, stats

    monkeypatch.setattr(pairs_module.SiameseModel, "vectors", vectors)
    return seen


def check(table, expected):
    """The rows of a part are the model's probabilities, and rows without both texts are null with a code."""
    assert table.column_names[-8:] == COLUMNS[-table.num_columns :]
    found = np.column_stack([table["prob_0"].to_numpy(), table["prob_1"].to_numpy()])
    np.testing.assert_allclose(found[GOOD], expected, atol=1e-5)
    assert np.isnan(found[BAD]).all()
    assert table["error"].to_pylist() == ["null" if row in BAD else None for row in range(len(PAIRS))]
    labels = table["prediction"].to_pylist()
    assert [labels[row] for row in GOOD] == [str(label) for label in expected.argmax(axis=1)]
    assert [labels[row] for row in BAD] == [None] * len(BAD)


def test_a_run_has_the_model_s_probabilities(source, folder, expected, tmp_path):
    """The columns of every scored run; tokens are those of both texts, and a text that was cut says so."""
    run = score(source, folder, tmp_path / "run", parity_documents=16)
    table = read_parts(run)
    check(table, expected)
    assert table.column_names == COLUMNS
    one = load(folder).predict([(TEXTS[0], TEXTS[0])])["num_tokens"][0].as_py()
    tokens, truncated = table["num_tokens"].to_pylist(), table["truncated"].to_pylist()
    assert tokens[0] == one
    assert [tokens[row] for row in BAD] == [0, 0, 0]
    assert truncated == [None not in pair and TEXTS[4] in pair for pair in PAIRS]
    verify(run.url)
    assert run.manifest.identity["bundle"] == read_siamese(folder).fingerprint
    figures = read_figures(run)[0]
    assert (figures["passed"], figures["num_documents"] > 8) == (True, True)


def test_predict_gives_the_same(folder, expected):
    """In a notebook: pairs as one list, as two, and as columns of a table."""
    model = load(folder)
    first, second = (list(side) for side in zip(*PAIRS, strict=True))
    table = pa.table({"a": first, "b": second})
    check(model.predict(first, second), expected)
    check(model.predict(table, text_column="a", text_pair_column="b"), expected)
    with pytest.raises(InputError, match="takes pairs of texts"):
        model.predict(first[:2])


def test_each_distinct_text_is_encoded_once_in_all_units(source, folder, tmp_path, monkeypatch):
    """54 pairs of six texts in five units are six sequences; --no-deduplicate encodes both sides of each."""
    seen = counted(monkeypatch)
    run = score(source, folder, tmp_path / "run")
    assert len(list(run.manifest.units())) > 3
    assert sum(seen) == len(TEXTS)
    seen.clear()
    score(source, folder, tmp_path / "plain", deduplicate=False)
    assert sum(seen) == 2 * len(GOOD)


def test_both_sides_encoded_give_the_same_scores(source, folder, expected, tmp_path):
    """What is saved changes no number."""
    check(read_parts(score(source, folder, tmp_path / "plain", deduplicate=False)), expected)


def test_a_memory_that_is_full_begins_again_with_the_next_unit(
    source, folder, expected, tmp_path, monkeypatch
):
    """More than fits is encoded again a unit, and scored the same."""
    monkeypatch.setattr(reading, "MOST_BYTES", 1)
    seen = counted(monkeypatch)
    check(read_parts(score(source, folder, tmp_path / "run")), expected)
    assert len(TEXTS) < sum(seen) < 2 * len(GOOD)


def test_small_chunks_give_the_same_scores(source, folder, expected, tmp_path, monkeypatch):
    """Where chunks end within a unit does not matter."""
    monkeypatch.setattr("assay.tokenize.chunks.TEXT_BATCH_ROWS", 3)
    monkeypatch.setattr("assay.tokenize.chunks.FIRST_CHUNK_ROWS", 3)
    check(read_parts(score(source, folder, tmp_path / "run")), expected)


def test_a_worker_that_dies_is_followed_by_another(source, folder, expected, tmp_path):
    """One publishes two units and is stopped in the third; the next does the rest, and no unit twice."""
    run = planned(source, folder, tmp_path / "run", parity_documents=0)
    units = list(run.manifest.units())
    first = work_of(run)
    for unit in units[:2]:
        run_unit(run, first, unit)
    for chunk in first.prepare(units[2]):
        first.compute(chunk)
    assert len(run.part_files()) == 2
    second = work_of(run)
    for unit in units[2:]:
        run_unit(run, second, unit)
    check(read_parts(run), expected)
    verify(run.url)


def test_a_unit_that_was_read_and_never_computed_leaves_no_gap(source, folder, expected, tmp_path):
    """Its texts are known and have no vector: the next unit that needs them gets them."""
    run = planned(source, folder, tmp_path / "run", parity_documents=0)
    work = work_of(run)
    assert len(list(work.prepare(run.manifest.units()[0]))) == 1
    for unit in run.manifest.units():
        run_unit(run, work, unit)
    check(read_parts(run), expected)


def test_the_footer_counts_texts_that_were_known(source, folder, tmp_path):
    """Tokens that went through the engine are those of distinct texts alone."""
    run = score(source, folder, tmp_path / "run", unit_rows=len(PAIRS))
    with run.store.open_input(part_path(run.manifest.units()[0])) as handle:
        stats = pq.read_metadata(handle).metadata[FOOTER_STATS].decode()
    table = read_parts(run)
    assert f'"cached_sequences": {2 * len(GOOD) - len(TEXTS)}' in stats.replace("'", '"')
    assert f'"num_tokens": {sum(table["num_tokens"].to_pylist())}' in stats
    assert f'"error_rows": {len(BAD)}' in stats


def test_a_text_over_the_limit_is_an_error_of_its_pairs(source, folder, tmp_path):
    """Under --on-long error; windows are means of vectors, and need no refusal as pairs of one sequence do."""
    table = read_parts(score(source, folder, tmp_path / "error", on_long="error"))
    codes = ["null" if None in pair else "too_long" if TEXTS[4] in pair else None for pair in PAIRS]
    assert table["error"].to_pylist() == codes
    model = load_siamese(folder, on_long="window-mean", num_threads=1)
    windows = read_parts(
        score(source, folder, tmp_path / "windows", on_long="window-mean", parity_documents=8)
    )
    np.testing.assert_allclose(
        windows["prob_1"].to_numpy()[GOOD],
        model.probabilities([PAIRS[row] for row in GOOD])[:, 1],
        atol=1e-5,
    )


def test_vectors_that_are_not_finite_are_rows_with_a_code(source, folder, tmp_path, monkeypatch):
    """A NaN in the vector of one text: its pairs say not_finite, the others are as before."""
    vectors = pairs_module.SiameseModel.vectors

    def spoiled(model, texts):
        made, stats = vectors(model, texts)
        made[texts.row_tokens == texts.row_tokens.min()] = np.nan
        return made, stats

    monkeypatch.setattr(pairs_module.SiameseModel, "vectors", spoiled)
    codes = read_parts(score(source, folder, tmp_path / "run", unit_rows=len(PAIRS)))["error"].to_pylist()
    assert codes == ["null" if None in pair else "not_finite" if "" in pair else None for pair in PAIRS]


def test_the_gate_holds_an_engine_to_the_plain_path(source, folder, tmp_path, monkeypatch):
    """Vectors that are slightly off fail it before a unit is scored."""
    work = open_score_work(
        planned(source, folder, tmp_path / "run"), device="cpu", num_threads=1, should_stop=lambda: False
    )
    forward = pairs_module.PairScorer.__init__

    def bent(scorer, *args, **settings):
        forward(scorer, *args, **settings)
        plain = scorer.engine.forward
        scorer.engine.forward = lambda batch: plain(batch) + 0.1

    monkeypatch.setattr(pairs_module.PairScorer, "__init__", bent)
    with pytest.raises(CheckError, match="probabilities differ from fp32"):
        past_gate(work)


def test_a_bundle_that_changed_since_planning_is_refused(source, tmp_path):
    """Its head and its calibration count."""
    own = make_siamese_folder(tmp_path / "own")
    run = planned(source, own, tmp_path / "run")
    save_calibration(own, Calibration(temperature=3.0))
    with pytest.raises(RefusedError, match="put it back, or use another --run"):
        work_of(run)


def test_the_fake_engine_runs_the_whole_way(source, folder, tmp_path):
    """Made-up vectors, the real head."""
    table = read_parts(score(source, folder, tmp_path / "run", engine="fake"))
    assert table["error"].to_pylist() == ["null" if row in BAD else None for row in range(len(PAIRS))]


def test_what_it_cannot_take_is_refused_with_the_way_out(source, folder, tmp_path):
    """Single texts, stored token ids, a measurement of one row's cost."""
    with pytest.raises(UsageError, match="takes pairs of texts; give the second with --text-pair-column"):
        planned(source, folder, tmp_path / "run", text_pair_column=None)
    with pytest.raises(UsageError, match=r"stored token ids; .* is Siamese"):
        planned(source, folder, tmp_path / "run", input_ids_column="ids")
    with pytest.raises(UsageError, match="is Siamese; what a pair costs"):
        bench(
            BenchSettings(
                sources=(str(source),), bundle=str(folder), text_column="text1", text_pair_column="text2"
            )
        )
    single = make_classifier(tmp_path / "single")
    (single / "assay.json").write_text('{"format_version": 1, "is_pair": false}')
    with pytest.raises(UsageError, match="takes single texts"):
        planned(source, single, tmp_path / "run")
