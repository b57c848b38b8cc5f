"""How a unit becomes a part: figures, strictness, refusals; and every format of sources gives the same scores."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle
from support.scoring import read_parts

from assay.bundle.load import load_bundle
from assay.data.storage import open_store
from assay.engine.fake import FakeEngine
from assay.errors import InputError, RefusedError
from assay.runs.pipeline import StopRequestedError, run_unit
from assay.runs.run import FOOTER_STATS, create_or_join, part_path
from assay.runs.verify import verify
from assay.score.merge.merge import merge
from assay.score.scorer import Scorer
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here
from assay.score.worker import open_score_work
from assay.tokenize.encode import Encoder
from assay.tokenize.sample import take_sample

NUM_ROWS = 60
UNIT_ROWS = 17


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The small bundle; its engine is the fake."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def texts():
    """60 different texts: short, long, empty, blank, quoted, of several lines, beyond ASCII."""
    generator = np.random.default_rng(0)
    words = ["document", "of", *map(str, range(100)), "unknown"]
    texts = [
        f"{row} " + " ".join(generator.choice(words, int(generator.integers(0, 90))))
        for row in range(NUM_ROWS)
    ]
    texts[1:6] = ["", "  \t ", 'a "quoted", document', "two\nlines of 7", "Zürich 北京 🙂 42"]
    return texts


def plan(patterns, bundle, run, **settings):
    """The run of these settings on the fake engine, created."""
    patterns = (str(patterns),) if not isinstance(patterns, tuple) else patterns
    settings = {"engine": "fake", "unit_rows": UNIT_ROWS, **settings}
    chosen = ScoreSettings(sources=patterns, bundle=str(bundle), run=str(run), **settings)
    manifest, *_ = plan_here(chosen)
    return create_or_join(chosen.run, manifest)[0]


def open_work(run):
    """The work that a worker would do, loaded."""
    work = open_score_work(run, device="cpu", num_threads=1, should_stop=lambda: False)
    work.load()
    return work


def score_here(patterns, bundle, run, **settings):
    """A whole scoring run in this process."""
    made = plan(patterns, bundle, run, **settings)
    work = open_work(made)
    for unit in made.manifest.units():
        run_unit(made, work, unit)
    return made


def scores(table):
    """The rows without what names them."""
    return table.drop_columns([table.column_names[0]]).to_pylist()


@pytest.fixture(scope="module")
def expected(bundle, texts, tmp_path_factory):
    """The scores of the texts by the shortest way: encoder, fake engine, no run."""
    encoder = Encoder.from_bundle(bundle, max_length=64, on_long="truncate")
    scorer = Scorer(load_bundle(bundle), FakeEngine(output_shape=(2,)), encoder)
    from assay.data.rows import SourceRows
    from assay.tokenize.chunks import to_chunk

    rows = SourceRows(start=0, num_rows=len(texts), texts=pa.array(texts, pa.large_string()))
    columns = scorer.score(to_chunk(rows, encoder, max_tokens=64)).columns
    return pa.table(columns).to_pylist()


# ------------------------------------------------------------ every format


def table_of(texts, **columns):
    """A table of ids and these texts."""
    return pa.table({"id": [f"row-{row}" for row in range(len(texts))], "text": texts, **columns})


def write_parquet(folder, texts):
    """Parquet of three row groups."""
    pq.write_table(table_of(texts), folder / "data.parquet", row_group_size=25)
    return {}


def write_views(folder, texts):
    """Parquet whose texts are dictionary-encoded."""
    table = table_of(texts)
    encoded = table["text"].combine_chunks().dictionary_encode()
    pq.write_table(table.set_column(1, "text", encoded), folder / "data.parquet", row_group_size=25)
    return {}


def write_nested(folder, texts):
    """Parquet whose texts lie two structs deep."""
    inner = pa.array([{"body": {"text": text}} for text in texts])
    pq.write_table(
        pa.table({"id": [f"row-{k}" for k in range(len(texts))], "doc": inner}), folder / "n.parquet"
    )
    return {"text_column": "doc.body.text"}


def json_lines(texts):
    """The texts as JSON Lines."""
    return "".join(json.dumps({"id": f"row-{row}", "text": text}) + "\n" for row, text in enumerate(texts))


def write_jsonl(folder, texts):
    """JSON Lines."""
    (folder / "data.jsonl").write_text(json_lines(texts))
    return {}


def write_jsonl_gz(folder, texts):
    """JSON Lines, gzip."""
    (folder / "data.jsonl.gz").write_bytes(gzip.compress(json_lines(texts).encode()))
    return {}


def write_jsonl_zst(folder, texts):
    """JSON Lines, zstd."""
    with pa.CompressedOutputStream(str(folder / "data.jsonl.zst"), "zstd") as sink:
        sink.write(json_lines(texts).encode())
    return {}


def write_csv(folder, texts):
    """CSV."""
    pa.csv.write_csv(table_of(texts), folder / "data.csv")
    return {}


def write_csv_gz(folder, texts):
    """CSV, gzip."""
    with pa.CompressedOutputStream(str(folder / "data.csv.gz"), "gzip") as sink:
        pa.csv.write_csv(table_of(texts), sink)
    return {}


def write_arrow(folder, texts):
    """A saved dataset of two Arrow files."""
    table = table_of(texts)
    for number, piece in enumerate((table.slice(0, 31), table.slice(31))):
        name = f"data-{number:05}-of-00002.arrow"
        with pa.ipc.new_stream(folder / name, piece.schema) as writer:
            writer.write_table(piece, max_chunksize=7)
    files = [{"filename": f"data-{number:05}-of-00002.arrow"} for number in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")
    return {}


def write_text(folder, texts):
    """A folder of a text file a row."""
    for row, text in enumerate(texts):
        (folder / f"row-{row:03}.txt").write_text(text)
    return {}


WRITERS = [
    write_parquet,
    write_views,
    write_nested,
    write_jsonl,
    write_jsonl_gz,
    write_jsonl_zst,
    write_csv,
    write_csv_gz,
    write_arrow,
    write_text,
]


def read_merged(folder):
    """The merged files, in order of their names, as rows."""
    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "_merge.json"):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
            continue
        with pa.input_stream(str(path), compression="detect") as stream:
            content = stream.read()
        if ".jsonl" in path.name:
            rows += [json.loads(line) for line in content.decode().splitlines()]
        else:
            options = pa.csv.ParseOptions(newlines_in_values=True)
            rows += pa.csv.read_csv(pa.BufferReader(content), parse_options=options).to_pylist()
    return rows


@pytest.mark.parametrize("write", WRITERS, ids=[writer.__name__.removeprefix("write_") for writer in WRITERS])
def test_every_format_gives_the_same_scores(write, bundle, texts, expected, tmp_path):
    """Whatever the texts lie in, their scores are equal, the run verifies, and merging meets id with id."""
    folder = tmp_path / "sources"
    folder.mkdir()
    settings = write(folder, texts)
    run = score_here(folder, bundle, tmp_path / "run", **settings)
    table = read_parts(run)
    assert scores(table) == expected
    names = [f"row-{k:03}.txt" if write is write_text else f"row-{k}" for k in range(NUM_ROWS)]
    assert table["id"].to_pylist() == names
    proof = verify(run.url, sources=True, duplicates=True)
    assert proof.holds, proof
    report = merge(run.url, str(tmp_path / "out"))
    assert (report.rows, report.ids_checked) == (NUM_ROWS, NUM_ROWS)
    merged = read_merged(tmp_path / "out")
    assert [row["id"] for row in merged] == names
    for row, want in zip(merged, expected, strict=True):
        assert row["prediction"] == want["prediction"]
        assert row["prob_spam"] == pytest.approx(want["prob_spam"], abs=1e-7)
        assert row["num_tokens"] == want["num_tokens"]


def test_a_bucket_gives_the_same_scores(bundle, texts, expected, s3_url, tmp_path):
    """Sources, run and merged files on an object store."""
    folder = tmp_path / "local"
    folder.mkdir()
    write_parquet(folder, texts)
    store = open_store(s3_url)
    store.create("in/data.parquet", folder / "data.parquet")
    store.create("in/more.jsonl", json_lines(texts).encode())
    run = score_here(f"{s3_url}/in", bundle, f"{s3_url}/run")
    assert scores(read_parts(run)) == expected * 2
    assert verify(run.url, sources=True).holds
    assert merge(run.url, f"{s3_url}/out").ids_checked == 2 * NUM_ROWS


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.uint16()),
        pa.list_(pa.int32()),
        pa.list_(pa.int64()),
        pa.large_list(pa.int32()),
        pa.large_list(pa.uint16()),
    ],
    ids=str,
)
def test_stored_token_ids_give_the_same_scores(kind, bundle, texts, expected, tmp_path):
    """Ids made elsewhere, of any integer and list type, score as their texts; no ids, or null, is a code."""
    encoder = Encoder.from_bundle(bundle, max_length=64, on_long="truncate")
    tokens = encoder.encode(pa.array(texts, pa.large_string()))
    ids = [row.tolist() for row in np.split(tokens.flat_ids, tokens.offsets[1:-1])]
    ids[10], ids[40], ids[41] = [], None, [2] * 65
    table = pa.table({"id": range(NUM_ROWS), "tokens": pa.array(ids, kind)})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=25)
    run = score_here(tmp_path / "data.parquet", bundle, tmp_path / "run", input_ids_column="tokens")
    found = scores(read_parts(run))
    codes = {10: "no_ids", 40: "null", 41: "too_long"}
    for row, (one, want) in enumerate(zip(found, expected, strict=True)):
        if row in codes:
            assert one["error"] == codes[row]
            assert one["num_tokens"] == 0
            assert one["prob_ham"] is one["prob_spam"] is one["prediction"] is one["probability"] is None
        else:
            # Whether a text was cut is not known here.
            assert one == {**want, "truncated": False}
    assert merge(run.url, str(tmp_path / "out")).ids_checked == NUM_ROWS


def test_pairs(bundle, texts, tmp_path):
    """Pairs from Parquet and from JSON Lines score alike, and unlike their first texts alone."""
    seconds = [None if row == 9 else text for row, text in enumerate(reversed(texts))]
    pq.write_table(table_of(texts, other=pa.array(seconds)), tmp_path / "pairs.parquet")
    lines = [
        json.dumps({"id": f"row-{row}", "text": one, "other": other})
        for row, (one, other) in enumerate(zip(texts, seconds, strict=True))
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    tables = [
        read_parts(score_here(tmp_path / name, bundle, tmp_path / f"run-{name}", text_pair_column="other"))
        for name in ("pairs.parquet", "pairs.jsonl")
    ]
    assert tables[0].equals(tables[1])
    assert tables[0]["error"].to_pylist() == ["null" if row == 9 else None for row in range(NUM_ROWS)]
    alone = read_parts(score_here(tmp_path / "pairs.parquet", bundle, tmp_path / "alone"))
    assert tables[0]["prob_ham"].to_pylist() != alone["prob_ham"].to_pylist()


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(range(NUM_ROWS), pa.int64()),
        pa.array([f"k{row}" for row in range(NUM_ROWS)], pa.large_string()),
        pa.array([bytes([row]) for row in range(NUM_ROWS)], pa.binary()),
        pa.array([row * 86_400_000_000 for row in range(NUM_ROWS)], pa.timestamp("us", tz="UTC")),
        pa.array([None if row == 5 else row for row in range(NUM_ROWS)], pa.int32()),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_pass_through_typed(ids, bundle, texts, tmp_path):
    """Ids of any scalar type, nulls included, come out as they went in."""
    pq.write_table(pa.table({"key": ids, "text": texts}), tmp_path / "data.parquet", row_group_size=25)
    run = score_here(tmp_path / "data.parquet", bundle, tmp_path / "run", id_column="key")
    table = read_parts(run)
    assert table.schema.field("id").type == ids.type
    assert table["id"].combine_chunks().equals(ids)
    assert merge(run.url, str(tmp_path / "out")).ids_checked == NUM_ROWS


def test_without_ids_rows_are_counted(bundle, texts, tmp_path):
    """A source without ids is named by its row numbers, which go on across units."""
    pq.write_table(pa.table({"text": texts}), tmp_path / "data.parquet")
    run = score_here(tmp_path / "data.parquet", bundle, tmp_path / "run")
    assert len(run.manifest.units()) > 1
    assert read_parts(run)["source_row"].to_pylist() == list(range(NUM_ROWS))
    assert merge(run.url, str(tmp_path / "out")).rows == NUM_ROWS


def test_a_source_without_rows(bundle, tmp_path):
    """A source of no rows is an empty part, and merges to an empty file."""
    pq.write_table(table_of(pa.array([], pa.string())), tmp_path / "none.parquet")
    run = score_here(tmp_path / "none.parquet", bundle, tmp_path / "run")
    assert read_parts(run).num_rows == 0
    assert verify(run.url).holds
    assert merge(run.url, str(tmp_path / "out")).rows == 0


# ------------------------------------------------------------ figures and refusals


def holed(texts):
    """The texts, every seventh of them null."""
    return [None if row % 7 == 3 else text for row, text in enumerate(texts)]


def test_the_figures_of_a_part(bundle, texts, expected, tmp_path):
    """A footer counts the rows, tokens, duplicates and errors of its unit alone, with examples of each code."""
    doubled = holed([texts[row // 2] for row in range(NUM_ROWS)])
    pq.write_table(table_of(doubled), tmp_path / "data.parquet", row_group_size=30)
    run = plan(tmp_path / "data.parquet", bundle, tmp_path / "run", unit_rows=30)
    work = open_work(run)
    table_rows, totals = 0, []
    for unit in run.manifest.units():
        run_unit(run, work, unit)
        part = tmp_path / "run" / part_path(unit)
        figures = json.loads(pq.read_metadata(part).metadata[FOOTER_STATS])
        table = pq.read_table(part)
        nulls = [row["id"] for row in table.to_pylist() if row["error"] == "null"]
        assert figures["num_rows"] == table.num_rows == 30
        assert figures["num_tokens"] == sum(table["num_tokens"].to_pylist())
        assert figures["error_rows"] == len(nulls)
        assert figures["errors"] == {"null": {"count": len(nulls), "examples": nulls[:5]}}
        assert figures["truncated_rows"] == sum(table["truncated"].to_pylist())
        distinct = len({text.strip() for text in doubled[unit.start : unit.stop] if text is not None})
        assert figures["duplicate_rows"] == 30 - len(nulls) - distinct
        table_rows += table.num_rows
        totals.append(figures)
    assert work.counters.rows == table_rows == NUM_ROWS
    assert work.counters.error_rows == sum(figures["error_rows"] for figures in totals)
    assert work.counters.tokens == sum(figures["forward_tokens"] for figures in totals)


def test_strict_stops_at_the_first_bad_row(bundle, texts, tmp_path):
    """Under --strict a bad row ends the run with its number, and the unit is not published."""
    pq.write_table(table_of(holed(texts)), tmp_path / "data.parquet", row_group_size=30)
    run = plan(tmp_path / "data.parquet", bundle, tmp_path / "run", strict=True, unit_rows=30)
    first, second = run.manifest.units()
    with pytest.raises(InputError, match=r"row 3 of source data is bad \(null\)"):
        run_unit(run, open_work(run), first)
    with pytest.raises(InputError, match=r"row 31 of source data is bad \(null\)"):
        run_unit(run, open_work(run), second)
    assert run.part_files() == {}


def test_a_unit_that_is_stopped_publishes_nothing(bundle, texts, tmp_path):
    """Told to stop, the work of a unit ends without a part."""
    pq.write_table(table_of(texts), tmp_path / "data.parquet")
    run = plan(tmp_path / "data.parquet", bundle, tmp_path / "run")
    work = open_score_work(run, device="cpu", num_threads=1, should_stop=lambda: True)
    work.load()
    with pytest.raises(StopRequestedError):
        run_unit(run, work, run.manifest.units()[0])
    assert run.part_files() == {}


def test_the_gate_reads_beside_the_first_unit(bundle, texts, tmp_path, monkeypatch):
    """The parity sample is read while a unit is, from the same source; neither notices the other."""
    monkeypatch.setattr("assay.tokenize.chunks.TEXT_BATCH_ROWS", 5)
    monkeypatch.setattr("assay.tokenize.chunks.FIRST_CHUNK_ROWS", 5)
    pq.write_table(table_of(texts), tmp_path / "data.parquet", row_group_size=30)
    run = plan(tmp_path / "data.parquet", bundle, tmp_path / "run")
    encoder = Encoder.from_bundle(bundle, max_length=64, on_long="truncate")
    unit = run.manifest.units()[0]
    alone = [chunk.ids.to_pylist() for chunk in open_work(run).prepare(unit)]
    expected = take_sample(run.manifest, encoder, 20).sequences
    read = []
    for chunk in open_work(run).prepare(unit):
        read.append(chunk.ids.to_pylist())
        sample = take_sample(run.manifest, encoder, 20).sequences
        assert sample.flat_ids.tolist() == expected.flat_ids.tolist()
    assert read == alone
    assert len(read) > 1


def test_a_bundle_that_changed_since_planning_is_refused(texts, tmp_path):
    """A worker does not score a run with another model than it was planned with."""
    bundle = write_bundle(tmp_path / "bundle")
    pq.write_table(table_of(texts), tmp_path / "data.parquet")
    run = plan(tmp_path / "data.parquet", bundle, tmp_path / "run")
    write_bundle(tmp_path / "bundle", weight=1.0)
    with pytest.raises(RefusedError, match="put it back, or use another --run"):
        open_work(run)
    write_bundle(tmp_path / "bundle")
    (bundle / "calibration.json").write_text('{"format_version": 1, "temperature": 2.0}')
    with pytest.raises(RefusedError, match=r"was .* when the run was planned"):
        open_work(run)


def test_windows_and_pairs_of_the_fake_engine(bundle, texts, tmp_path):
    """Windows of long documents are reduced within a document, in every unit plan."""
    pq.write_table(table_of(texts), tmp_path / "data.parquet", row_group_size=13)
    tables = [
        read_parts(
            score_here(
                tmp_path / "data.parquet",
                bundle,
                tmp_path / f"run{unit_rows}",
                on_long="window-max",
                max_length=16,
                stride=3,
                unit_rows=unit_rows,
            )
        )
        for unit_rows in (5, 60)
    ]
    assert tables[0].equals(tables[1])
    assert max(tables[0]["num_tokens"].to_pylist()) > 16
