"""The chunks run: books in, a row a chunk out, the same for any units and workers."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle

from assay.errors import InputError, RefusedError, UsageError
from assay.prepare.chunks.plan import PART_SCHEMA, plan_chunks
from assay.prepare.chunks.settings import ChunkRules
from assay.prepare.chunks.verb import count_chunks, run_chunks
from assay.prepare.chunks.worker import open_chunks_work
from assay.runs.pipeline import run_unit
from assay.runs.placement import place_workers
from assay.runs.run import create_or_join, part_path
from assay.runs.verify import verify
from assay.tokenize.counting import open_encoder

RULES = ChunkRules(language="en", language_check="off", max_chunks=3)


@pytest.fixture
def books(tmp_path):
    """Six books that can be used and five that cannot, as `books.parquet`."""
    texts = {
        f"good{number}": "\n".join(
            f"The {place}th of the {number} sentences of this book says that all is well with it."
            for place in range(60)
        ).encode()
        for number in range(6)
    }
    texts |= {"empty": b"", "html": b"<html><body>Hello</body></html>", "short": b"One sentence. " * 9}
    rows = []
    for name, content in texts.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
        rows.append({"book_id": name, "path": str(tmp_path / f"{name}.txt")})
    (tmp_path / "folder.txt").mkdir()
    rows += [
        {"book_id": "folder", "path": str(tmp_path / "folder.txt")},
        {"book_id": "gone", "path": str(tmp_path / "gone.txt")},
        {"book_id": "relative", "path": "good0.txt"},
    ]
    pq.write_table(
        pa.Table.from_pylist(sorted(rows, key=lambda row: row["book_id"])), tmp_path / "books.parquet"
    )
    return tmp_path / "books.parquet"


def run_all(manifest, url):
    """The rows of the run, its units done in this process in reverse."""
    run, _ = create_or_join(str(url), manifest)
    work = open_chunks_work(run)
    for unit in reversed(run.manifest.units()):
        run_unit(run, work, unit)
    tables = []
    for unit in run.manifest.units():
        with run.store.open_input(part_path(unit)) as handle:
            tables.append(pq.read_table(handle))
    return run, pa.concat_tables(tables)


def test_rows_of_a_run(books, tmp_path):
    """A row a chunk in the order of the books; a book without any is one row with its code."""
    run, table = run_all(plan_chunks(RULES, books), tmp_path / "run")
    assert table.schema.equals(PART_SCHEMA)
    assert verify(run.url).holds
    failed = {row["book_id"]: row["error"] for row in table.to_pylist() if row["text"] is None}
    assert failed == {
        "empty": "not_text",
        "folder": "unreadable_file",
        "gone": "missing_file",
        "html": "html",
        "short": "shorter_than_a_chunk",
    }
    good = [row for row in table.to_pylist() if row["text"] is not None]
    assert [row["book_id"] for row in good] == [n for i in range(6) for n in [f"good{i}"] * 3] + [
        "relative"
    ] * 3
    assert all(row["error"] is None and row["language"] == "en" for row in good)
    assert table["source_row"].to_pylist() == sorted(table["source_row"].to_pylist())
    counts, errors = count_chunks(run)
    assert (counts["num_rows"], counts["num_chunks"], counts["error_rows"]) == (12, 21, 5)
    assert counts["windows"] == 35
    assert counts["not_sampled"] == 14
    assert errors == dict.fromkeys(failed.values(), 1)


def test_units_change_nothing(books, tmp_path):
    """The rows are the same for units of any size."""
    tables = [
        run_all(plan_chunks(RULES, books, unit_rows=size), tmp_path / f"run{size}")[1] for size in (1, 5, 100)
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_tokens_are_counted_by_the_bundle(books, tmp_path):
    """With a bundle each chunk says its tokens; a budget of them holds, and is part of the identity."""
    bundle = write_bundle(tmp_path / "bundle")
    with pytest.raises(UsageError, match=r"chunk_tokens is 100; .* add --bundle, or use --chunk-sentences"):
        plan_chunks(ChunkRules(chunk_tokens=100, language_check="off"), books)
    rules = ChunkRules(chunk_tokens=100, language="en", language_check="off")
    manifest = plan_chunks(rules, books, bundle=bundle)
    run, table = run_all(manifest, tmp_path / "run")
    counts = table["num_tokens"].drop_null().to_pylist()
    assert counts
    assert all(50 <= count <= 100 for count in counts)
    encoder = open_encoder(bundle)
    assert manifest.identity["tokenizer"] == encoder.fingerprint
    text = table["text"].drop_null()[0].as_py()
    assert len(encoder.encode_texts([text]).flat_ids) == counts[0] + encoder.special_tokens.num_tokens
    (bundle / "tokenizer.json").write_text((bundle / "tokenizer.json").read_text().replace("##", "@@"))
    with pytest.raises(RefusedError, match="changed since the run was planned"):
        open_chunks_work(run)


def test_strict(books, tmp_path):
    """Under `strict` the first book without chunks ends the run, by its name."""
    with pytest.raises(InputError, match=r"book empty \(row 0 of source books\) is bad \(not_text\)"):
        run_all(plan_chunks(RULES, books, strict=True, unit_rows=100), tmp_path / "run")


def test_the_language_check_needs_its_package(books, monkeypatch):
    """Without py3langid the plan says what to install, or what to set instead."""
    monkeypatch.setattr("assay.extras.has_package", lambda name: name != "py3langid")
    with pytest.raises(UsageError, match=r"assay-corpus\[books\].*--language-check off"):
        plan_chunks(ChunkRules(), books)


@pytest.mark.slow
def test_workers_change_nothing(books, tmp_path):
    """Two worker processes make the rows that one makes; a second call finds nothing to do."""
    tables = []
    for workers in ("1", "2"):
        url = str(tmp_path / f"run{workers}")
        result = run_chunks(RULES, books, url, placement=place_workers(workers, num_gpus=0), unit_rows=3)
        assert result.counts["num_chunks"] == 21
        paths = sorted((tmp_path / f"run{workers}" / "parts").glob("*.parquet"))
        tables.append(pa.concat_tables(pq.read_table(path) for path in paths))
        assert run_chunks(RULES, books, url, unit_rows=3).outcome.units_published == 0
    assert tables[0].equals(tables[1])
