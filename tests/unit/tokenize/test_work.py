"""How a unit of text becomes a token part."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle

from assay.errors import InputError
from assay.runs.pipeline import run_unit
from assay.runs.run import FOOTER_STATS, create_or_join, part_path
from assay.runs.verify import verify
from assay.tokenize import work as module
from assay.tokenize.encode import Encoder
from assay.tokenize.plan import plan_tokenize
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.worker import open_tokenize_work

NUM_ROWS = 70


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The small bundle."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def texts():
    """70 texts, some long, some null, one empty."""
    generator = np.random.default_rng(0)
    texts = [
        " ".join(map(str, generator.integers(0, 100, generator.integers(1, 120)))) for _ in range(NUM_ROWS)
    ]
    return [None if row % 11 == 5 else "" if row == 8 else text for row, text in enumerate(texts)]


def write_source(path, texts, **columns):
    """A Parquet source of these texts."""
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()), **columns}), path, row_group_size=20)
    return path


def plan(source, bundle, run, **changes):
    """The tokenize run of these settings, created."""
    settings = TokenizeSettings(sources=(str(source),), bundle=str(bundle), run=str(run), **changes)
    return create_or_join(settings.run, plan_tokenize(settings))[0]


def run_all(run):
    """All units in this process; the rows of the parts in unit order, and each part's figures."""
    work = open_tokenize_work(run)
    tables, figures = [], []
    for unit in run.manifest.units():
        run_unit(run, work, unit)
        with run.store.open_input(part_path(unit)) as handle, pq.ParquetFile(handle) as file:
            figures.append(json.loads(file.metadata.metadata[FOOTER_STATS]))
            tables.append(file.read())
    return pa.concat_tables(tables), figures, work


@pytest.mark.parametrize("on_long", ["truncate", "head-tail", "error", "window-mean"])
def test_parts_hold_what_the_encoder_gives(on_long, bundle, texts, tmp_path, monkeypatch):
    """Whatever the units and batches, the ids, flags and codes are those of the whole column at once."""
    monkeypatch.setattr(module, "BATCH_ROWS", 7)
    source = write_source(tmp_path / "a.parquet", texts)
    run = plan(source, bundle, tmp_path / "run", on_long=on_long, unit_rows=13, max_length=40)
    table, figures, work = run_all(run)
    encoder = Encoder.from_bundle(bundle, max_length=40, on_long=on_long)
    tokens = encoder.encode(pa.array(texts, pa.large_string()))
    ids = [row.tolist() for row in np.split(tokens.flat_ids, tokens.offsets[1:-1])]
    assert table["input_ids"].to_pylist() == ids
    assert table["input_ids"].null_count == 0
    assert table["truncated"].to_pylist() == tokens.truncated.tolist()
    codes = [tokens.errors.get(row, "null" if text is None else None) for row, text in enumerate(texts)]
    assert table["error"].to_pylist() == codes
    assert table["source_row"].to_pylist() == list(range(NUM_ROWS))
    assert verify(run.url, sources=True).holds
    assert sum(each["num_rows"] for each in figures) == work.counters.rows == NUM_ROWS
    assert sum(each["num_tokens"] for each in figures) == work.counters.tokens == len(tokens.flat_ids)
    assert sum(each["truncated_rows"] for each in figures) == int(tokens.truncated.sum())
    num_errors = sum(code is not None for code in codes)
    assert sum(each["error_rows"] for each in figures) == work.counters.error_rows == num_errors
    assert sum(sum(each["errors"].values()) for each in figures) == num_errors


def test_pairs_keep_where_the_second_text_begins(bundle, texts, tmp_path):
    """A part of pairs says where token type 1 begins; rows with an error say 0."""
    seconds = [None if row == 30 else text for row, text in enumerate(reversed(texts))]
    source = write_source(tmp_path / "a.parquet", texts, other=pa.array(seconds, pa.string()))
    table, _, _ = run_all(plan(source, bundle, tmp_path / "run", text_pair_column="other", unit_rows=20))
    encoder = Encoder.from_bundle(bundle, max_length=64, on_long="truncate")
    tokens = encoder.encode(pa.array(texts, pa.large_string()), pa.array(seconds, pa.large_string()))
    assert table["second_start"].to_pylist() == tokens.second_starts.tolist()
    assert table["error"][30].as_py() == "null"
    assert table["second_start"][30].as_py() == 0


def test_a_large_vocabulary_has_wider_ids(tmp_path, texts):
    """Ids beyond 65,535 make a column of int32."""
    bundle = write_bundle(tmp_path / "bundle")
    content = json.loads((bundle / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab |= {f"zz{number}": number for number in range(len(vocab), 70_000)}
    (bundle / "tokenizer.json").write_text(json.dumps(content))
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**config, "vocab_size": len(vocab)}))
    source = write_source(tmp_path / "a.parquet", ["zz69999 of", *texts])
    table, _, _ = run_all(plan(source, bundle, tmp_path / "run"))
    assert table.schema.field("input_ids").type.value_type == pa.int32()
    assert 69_999 in table["input_ids"][0].as_py()


def test_strict_stops_at_the_first_bad_row(bundle, texts, tmp_path):
    """Under --strict a null text ends the run with its row, and its unit is not published."""
    source = write_source(tmp_path / "a.parquet", texts)
    run = plan(source, bundle, tmp_path / "run", strict=True, unit_rows=20)
    with pytest.raises(InputError, match=r"row 5 of source a is bad \(null\); --strict stops here"):
        run_all(run)
    assert run.part_files() == {}


def test_a_source_without_rows(bundle, tmp_path):
    """A source of no rows is an empty part."""
    run = plan(write_source(tmp_path / "a.parquet", []), bundle, tmp_path / "run")
    table, figures, _ = run_all(run)
    assert table.num_rows == 0
    assert figures[0]["errors"] == {}
