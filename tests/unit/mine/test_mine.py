"""`assay mine` on a small corpus whose negatives are worked out by hand."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.embedded import write_embed_run, write_pairs
from support.mining import mine_here, plan_here

from assay.errors import InputError, RefusedError, SourceError, UsageError
from assay.runs.verify import verify

# Angles in degrees from the anchor, so that a score is the cosine of an angle.
ANGLES = {"anchor": 0, "a": 10, "b": 20, "c": 30, "d": 40, "e": 50}


def at(*degrees, length=1.0):
    """Vectors at these angles."""
    radians = np.radians(degrees)
    return (length * np.stack([np.cos(radians), np.sin(radians)], axis=1)).astype(np.float32)


@pytest.fixture
def corpus(tmp_path):
    """An embed run of the anchor and five texts, `b` twice, one without vector."""
    texts = [*ANGLES, "b", None]
    return write_embed_run(tmp_path / "corpus", texts, at(*ANGLES.values(), 20, 0), unit_rows=3)


def mined(tmp_path, corpus, pairs, **settings):
    """The rows of a mine run over these pairs."""
    settings = {"num_negatives": 2, **settings}
    return mine_here(tmp_path, write_pairs(tmp_path / "pairs.parquet", pairs), (corpus.url,), **settings)


def test_the_nearest_that_is_not_positive(tmp_path, corpus):
    """Neither the anchor itself nor its positive; the text that occurs twice once; scores are cosines."""
    rows = mined(tmp_path, corpus, [("anchor", "a")]).to_pylist()
    assert [row["negative"] for row in rows] == ["b", "c"]
    assert [row["negative_id"] for row in rows] == [2, 3]
    assert [row["rank"] for row in rows] == [2, 3]
    assert [row["score"] for row in rows] == pytest.approx([math.cos(math.radians(d)) for d in (20, 30)])
    assert rows[0]["positive_score"] == rows[1]["positive_score"] == pytest.approx(math.cos(math.radians(10)))
    assert {(row["source_row"], row["anchor_id"], row["positive_id"], row["error"]) for row in rows} == {
        (0, 0, 1, None)
    }


def test_several_positives_are_all_excluded(tmp_path, corpus):
    """Each positive has the same negatives, in whatever unit its row is; the least similar one sets the margin."""
    pairs = [("anchor", "a"), ("anchor", "d"), ("anchor", "b")]
    rows = mined(tmp_path, corpus, pairs, unit_rows=1).to_pylist()
    assert [(row["positive"], row["negative"]) for row in rows] == [
        (positive, negative) for positive in "adb" for negative in "ce"
    ]
    rows = mined(tmp_path, corpus, pairs, unit_rows=1, absolute_margin=0.0, name="margin").to_pylist()
    assert [(row["positive"], row["negative"]) for row in rows] == [("a", "e"), ("d", "e"), ("b", "e")]


def test_ids_instead_of_texts(tmp_path):
    """Ids find the same rows; an id of a repeated text stands for the text."""
    texts = [*ANGLES, "b"]
    ids = pa.array([f"id {text}" for text in ANGLES] + ["id b again"])
    corpus = write_embed_run(tmp_path / "corpus", texts, at(*ANGLES.values(), 20), id=ids)
    pairs = [("id anchor", "id b again"), ("id anchor", "id nothing")]
    rows = mined(tmp_path, corpus, pairs, keys="id").to_pylist()
    assert [(row["positive"], row["negative_id"], row["negative"]) for row in rows] == [
        ("b", "id a", "a"),
        ("b", "id c", "c"),
        (None, None, None),
    ]
    assert rows[2]["error"] == "positive_no_vector"
    rows = mined(tmp_path, corpus, pairs[:1], keys="id", texts=False, name="bare").to_pylist()
    assert "negative" not in rows[0]
    assert [row["negative_id"] for row in rows] == ["id a", "id c"]


def test_vectors_are_normalised_and_those_that_cannot_be_have_a_code(tmp_path):
    """No NaN comes of vectors of any length; a zero vector and one that is not finite are told apart."""
    texts = ["anchor", "a", "b", "c", "zero", "nan"]
    vectors = at(0, 10, 20, 30, 0, 0) * np.array([3, 0.01, 500, 7, 0, np.nan], dtype=np.float32)[:, None]
    corpus = write_embed_run(tmp_path / "corpus", texts, vectors)
    pairs = [("anchor", "a"), ("zero", "a"), ("anchor", "nan"), ("who", "a")]
    rows = mined(tmp_path, corpus, pairs).to_pylist()
    assert [(row["negative"], row["error"]) for row in rows] == [
        ("b", None),
        ("c", None),
        (None, "anchor_zero_vector"),
        (None, "positive_not_finite"),
        (None, "anchor_no_vector"),
    ]
    assert rows[0]["score"] == pytest.approx(math.cos(math.radians(20)))


def test_what_cannot_be_had_is_said(tmp_path, corpus):
    """An anchor without negatives keeps its row; the rule that dropped most is named and counted."""
    from assay.mine.verb import read_yield
    from assay.runs.run import open_run

    pairs = [("anchor", "c"), ("anchor", "c"), ("a", None)]
    rows = mined(tmp_path, corpus, pairs, min_score=0.999).to_pylist()
    assert [(row["source_row"], row["error"]) for row in rows] == [
        (0, "no_negative_min_score"),
        (1, "repeated_pair"),
        (2, "null"),
    ]
    said = str(read_yield(open_run(str(tmp_path / "mined"))))
    assert "1 row has no negative; what dropped most of their neighbours: 1 min_score" in said
    assert "2 rows were not mined: 1 null, 1 repeated_pair" in said
    pairs = [("anchor", text) for text in "abcd"]
    rows = mined(tmp_path, corpus, pairs, name="few").to_pylist()
    assert [row["negative"] for row in rows] == ["e"] * 4
    assert read_yield(open_run(str(tmp_path / "few"))).few == {"corpus": 4}


def test_texts_of_the_same_group_are_not_candidates(tmp_path):
    """They take no place in the range either; a null is a group of its own."""
    book = ["x", "x", "x", "y", None, "y"]
    corpus = write_embed_run(tmp_path / "corpus", list(ANGLES), at(*ANGLES.values()), book=pa.array(book))
    pairs = [("anchor", "a"), ("d", "c")]
    rows = mined(tmp_path, corpus, pairs, exclude_same="book", range_max=2).to_pylist()
    assert [(row["anchor"], row["negative"]) for row in rows] == [
        ("anchor", "c"),
        ("anchor", "d"),
        ("d", "e"),
        ("d", "b"),
    ]


def test_pairs_are_what_training_takes(tmp_path, corpus):
    """Each distinct pair once with label 1, an anchor's negatives once with label 0; no row without a text."""
    pairs = [("anchor", "a"), ("b", None), ("anchor", "b"), ("anchor", "a"), ("who", "c")]
    table = mined(tmp_path, corpus, pairs, output_format="pairs", unit_rows=2)
    assert [(row["source_row"], row["text1"], row["text2"], row["label"]) for row in table.to_pylist()] == [
        (0, "anchor", "a", 1),
        (0, "anchor", "c", 0),
        (0, "anchor", "d", 0),
        (2, "anchor", "b", 1),
        (4, "who", "c", 1),
    ]
    assert table.column("score")[0].as_py() == pytest.approx(math.cos(math.radians(10)))


def test_a_run_of_pairs_is_whole(tmp_path, corpus):
    """`verify` proves it, rows that give none or several included."""
    mined(
        tmp_path,
        corpus,
        [("anchor", "a"), ("b", None), ("c", "d"), ("c", "d")],
        unit_rows=1,
        output_format="pairs",
    )
    proof = verify(str(tmp_path / "mined"))
    assert proof.holds, proof.problems
    assert (proof.rows_in, proof.rows_out) == (4, 6)


def test_the_same_whatever_the_rows_are_kept_in(tmp_path, corpus):
    """JSON Lines give what Parquet gives; float16 vectors are taken."""
    pairs = [("anchor", "a"), ("e", "d")]
    expected = mined(tmp_path, corpus, pairs)
    lines = write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert mine_here(tmp_path, lines, (corpus.url,), name="lines", num_negatives=2).equals(expected)
    half = write_embed_run(
        tmp_path / "half", list(ANGLES), at(*ANGLES.values()).astype(np.float16), kind=pa.float16()
    )
    found = mine_here(tmp_path, lines, (half.url,), name="halves", num_negatives=2)
    assert found.column("negative").equals(expected.column("negative"))


def test_vectors_that_cannot_be_compared_are_refused(tmp_path, corpus):
    """Another pooling, another dimension, a run that is not finished or not one of vectors: one line each."""
    pairs = write_pairs(tmp_path / "pairs.parquet", [("anchor", "a")])
    other = write_embed_run(tmp_path / "pooled", ["q"], at(0), pooling="first_token")
    with pytest.raises(InputError, match=r"differ in pooling; only vectors of one model .* same bundle"):
        plan_here(tmp_path, pairs, (corpus.url,), anchors=(other.url,))
    other = write_embed_run(tmp_path / "wide", ["q"], np.ones((1, 3), np.float32))
    with pytest.raises(InputError, match=r"differ in dimension \(2 and 3\)"):
        plan_here(tmp_path, pairs, (corpus.url,), anchors=(other.url,))
    other = write_embed_run(tmp_path / "unfinished", ["q"], at(0), publish=False)
    with pytest.raises(SourceError, match=r"1 of 1 units of the embed run .* not published; finish it first"):
        plan_here(tmp_path, pairs, (other.url,))
    mined(tmp_path, corpus, [("anchor", "a")])
    with pytest.raises(SourceError, match=r"is a negatives run; vectors come from an embed run"):
        plan_here(tmp_path, pairs, (str(tmp_path / "mined"),))


def test_columns_that_are_not_there_are_named_with_their_flag(tmp_path, corpus):
    """The flag to set is that of `assay mine`."""
    pairs = write_pairs(tmp_path / "pairs.parquet", [("anchor", "a")])
    with pytest.raises(SourceError, match=r"'query'.*--anchor-column"):
        plan_here(tmp_path, pairs, (corpus.url,), anchor_column="query")
    with pytest.raises(SourceError, match=r"'author'.*--exclude-same"):
        plan_here(tmp_path, pairs, (corpus.url,), exclude_same="author")
    numbers = write_pairs(tmp_path / "numbers.parquet", [(1, 2)])
    with pytest.raises(SourceError, match=r"is int64; --keys text needs texts: set --anchor-column"):
        plan_here(tmp_path, numbers, (corpus.url,))
    with pytest.raises(UsageError, match=r"guard_label is 'yes' and there is no guard"):
        plan_here(tmp_path, pairs, (corpus.url,), guard_label="yes")


def test_a_changed_corpus_is_refused(tmp_path, corpus):
    """A source that changed since it was embedded would give other texts than the vectors have."""
    pq.write_table(pa.table({"text": ["other"] * 8}), tmp_path / "corpus" / "texts.parquet")
    with pytest.raises(RefusedError, match="changed since the run began"):
        mined(tmp_path, corpus, [("anchor", "a")])


def test_changed_rules_are_another_run(tmp_path, corpus):
    """A run goes on only with the settings that it began with."""
    mined(tmp_path, corpus, [("anchor", "a")])
    with pytest.raises(RefusedError, match=r"max_score was null, now 0\.5"):
        mined(tmp_path, corpus, [("anchor", "a")], max_score=0.5)
