"""Merge and report of embed runs, and of kinds of runs that have neither."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from support.encoders import embed_here, make_encoder_folder
from support.novels import chunks_run, write_novel
from support.rendered import Page
from support.scoring import WORDS, make_classifier, tokenize_here

from assay.errors import CheckError, InputError
from assay.prepare.listing import list_books
from assay.runs.parts import open_part
from assay.runs.run import part_path
from assay.score.merge.merge import merge
from assay.score.report.report import report

NUM_ROWS = 23
EMPTY = 5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """An encoder whose vectors are not normalised."""
    return make_encoder_folder(tmp_path_factory.mktemp("encoder"), normalize=False)


def write_sources(folder):
    """The same rows as Parquet of two row groups, JSON Lines and CSV; one has no text."""
    folder.mkdir()
    texts = [None if row == EMPTY else " ".join(WORDS[: 3 + row]) for row in range(NUM_ROWS)]
    for name in ("a", "b", "c"):
        ids = [f"{name}{row}" for row in range(NUM_ROWS)]
        table = pa.table({"id": ids, "text": texts})
        if name == "a":
            pq.write_table(table, folder / "a.parquet", row_group_size=12)
        elif name == "b":
            (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        else:
            pc.write_csv(table, folder / "c.csv")
    return folder


@pytest.fixture(scope="module")
def embedded(encoder, tmp_path_factory):
    """A finished embed run over three sources."""
    folder = tmp_path_factory.mktemp("embedded")
    return embed_here(write_sources(folder / "in"), encoder, folder / "run", unit_rows=9, parity_documents=4)


def vectors_of(run, name):
    """The vectors of one source as the parts have them: [N, D], NaN for a null."""
    found = []
    for unit in run.manifest.units():
        if run.manifest.sources[unit.source].name.startswith(name):
            with open_part(run, unit) as part:
                found += part.read().column("embedding").to_pylist()
    return as_array(found)


def as_array(vectors):
    """[N, D], NaN for a null."""
    size = len(next(vector for vector in vectors if vector is not None))
    return np.array([[np.nan] * size if vector is None else vector for vector in vectors], dtype=np.float32)


def test_vectors_go_onto_their_sources(embedded, tmp_path):
    """A list of fixed size in Parquet, the same numbers as JSON in lines and in CSV; null where there is none."""
    done = merge(embedded.url, str(tmp_path / "out"))
    assert (done.rows, done.ids_checked, done.files_written) == (3 * NUM_ROWS, 3 * NUM_ROWS, 3)
    table = pq.read_table(tmp_path / "out" / "a.parquet")
    assert table.schema.field("embedding").type.equals(
        embedded.manifest.arrow_schema().field("embedding").type
    )
    assert table.column("id").to_pylist() == [f"a{row}" for row in range(NUM_ROWS)]
    assert pq.ParquetFile(tmp_path / "out" / "a.parquet").num_row_groups == 2
    lines = [json.loads(line) for line in (tmp_path / "out" / "b.jsonl").read_bytes().splitlines()]
    cells = pc.read_csv(tmp_path / "out" / "c.csv").to_pylist()
    merged = {
        "a": table.column("embedding").to_pylist(),
        "b": [line["embedding"] for line in lines],
        "c": [json.loads(cell["embedding"]) if cell["embedding"] else None for cell in cells],
    }
    for name, vectors in merged.items():
        # CSV knows no null: an empty text has a vector
        missing = [row for row, vector in enumerate(vectors) if vector is None]
        assert missing == ([] if name == "c" else [EMPTY])
        np.testing.assert_array_equal(as_array(vectors), vectors_of(embedded, name))
    assert [line["error"] for line in lines][EMPTY] == "null"


def test_half_precision_and_chosen_columns(encoder, tmp_path):
    """Numbers of 16 bits stay such in Parquet and read back as the same in lines."""
    run = embed_here(write_sources(tmp_path / "in"), encoder, tmp_path / "run", dtype="float16")
    merge(run.url, str(tmp_path / "out"), columns=["embedding"], prefix="model_")
    table = pq.read_table(tmp_path / "out" / "a.parquet")
    assert table.column_names == ["id", "text", "model_embedding"]
    assert table.schema.field("model_embedding").type.value_type == pa.float16()
    lines = [json.loads(line) for line in (tmp_path / "out" / "b.jsonl").read_bytes().splitlines()]
    np.testing.assert_array_equal(
        as_array([line["model_embedding"] for line in lines]), vectors_of(run, "b").astype(np.float32)
    )


def test_an_unfinished_run_is_not_merged(encoder, embedded, tmp_path):
    """The message names the command that finishes it."""
    run = embed_here(write_sources(tmp_path / "in"), encoder, tmp_path / "run", unit_rows=9)
    (tmp_path / "run" / part_path(run.manifest.units()[1])).unlink()
    with pytest.raises(CheckError, match="run the same `assay embed` command to finish, then merge"):
        merge(run.url, str(tmp_path / "out"))


def test_the_report_of_vectors(embedded, tmp_path):
    """Rows, lengths, truncation, parity, speed and the lengths of vectors are on the page."""
    summary = report(embedded.url, out=str(tmp_path / "report.html"))
    assert (summary.rows, summary.error_rows, summary.parity_passed) == (3 * NUM_ROWS, 2, True)
    assert summary.truncated_rows == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "embedded by" in page.text
    norms = np.concatenate([np.linalg.norm(vectors_of(embedded, name), axis=1) for name in "abc"])
    norms = norms[np.isfinite(norms)]
    for words in (
        "Vectors",
        "dimension",
        f"{norms.min():.6g}",
        f"{norms.max():.6g}",
        f"Lengths are of {len(norms)} vectors",
        "Documents by number of tokens",
        "truncated",
        "least cosine of a vector to the reference's",
        "documents a second",
    ):
        assert words in page.text, words
    assert "not calibrated" not in page.text


def test_kinds_without_rows_to_merge_are_refused(embedded, tmp_path):
    """One line with the way out, for runs of tokens and of chunks."""
    novels = tmp_path / "novels"
    write_novel(novels / "a_1.txt", 1)
    chunks = chunks_run(list_books(str(novels), None, tmp_path / "books.arrow"), tmp_path / "made")
    tokens = tokenize_here(
        embedded.manifest.sources[0].uri, make_classifier(tmp_path / "bundle"), tmp_path / "tokens"
    )
    for run, kind in ((chunks, "chunks"), (tokens, "tokenize")):
        with pytest.raises(
            InputError,
            match=rf"is a {kind} run; merge adds scores or vectors, .*`assay embed`; .*parts/\*\.parquet",
        ):
            merge(run.url, str(tmp_path / "out"))
    with pytest.raises(
        InputError, match=r"is a chunks run, which has no report; `assay status .*` says how far"
    ):
        report(chunks.url)
    assert report(tokens.url).rows == NUM_ROWS
