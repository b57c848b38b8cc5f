"""Ids of every scalar type through every command that touches ids, where pandas is not installed."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle
from support.scoring import make_classifier, score_here

from assay.data.ids import plain_ids, python_values
from assay.errors import InputError
from assay.runs.verify import verify
from assay.score.merge.merge import merge

TESTS = Path(__file__).parents[1]

SCRIPT = """
import sys
class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoPandas())
import pyarrow as pa
try:  # Arrow looks for pandas once; without it no time of nanoseconds becomes a Python value
    pa.array([1], pa.timestamp("ns")).to_pylist()
    raise AssertionError("pandas was found")
except ValueError:
    del sys.meta_path[0]
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support.scoring import score_here, tokenize_here
from assay.data.duplicates import count_duplicate_ids
from assay.labelled.read import read_labelled
from assay.labelled.settings import LabelledSources
from assay.runs.verify import verify
from assay.score.merge.merge import merge
from assay.score.report.report import report
from assay.tasks import Task
bundle = sys.argv[2]
for source in map(Path, sys.argv[3:]):
    folder = source.parent / source.stem
    run = score_here(source, bundle, folder / "run", engine="fake")
    proof = verify(run.url, sources=True, duplicates=True)
    assert proof.holds and proof.duplicate_ids == 1, (source, proof)
    merge(run.url, str(folder / "merged"))
    report(run.url)
    found = count_duplicate_ids([run.manifest.source(0)], run.manifest.source_columns())
    assert found.num_rows == len(found.examples) == 1, (source, found)
    tokens = tokenize_here(source, bundle, folder / "tokens")
    assert verify(tokens.url, sources=True).holds, source
    try:
        read_labelled([str(source)], LabelledSources(id_column="id"), task=Task.SINGLE_LABEL)
        raise AssertionError(source)
    except Exception as error:
        assert "1 null, 1 without an id" in str(error), error
    columns = LabelledSources(text_column="label", group_column="group")
    rows = read_labelled([str(source)], columns, task=Task.SINGLE_LABEL)
    assert len(set(rows.groups)) == 2, rows.groups
    print(source.stem)
"""

IDS = {
    "timestamp_ns": pa.array([1, 2, 2, None], pa.timestamp("ns", "UTC")),
    "time64_ns": pa.array([1, 2, 2, None], pa.time64("ns")),
    "duration_ns": pa.array([1, 2, 2, None], pa.duration("ns")),
    "date64": pa.array([86_400_000, 0, 0, None], pa.date64()),
    "string_view": pa.array(["a", "b", "b", None], pa.string_view()),
    "binary_view": pa.array([b"a", b"\xff", b"\xff", None], pa.binary_view()),
    "decimal32": pa.array([1, 2, 2, None], pa.decimal32(5, 2)),
    "float16": pa.array([1.5, 2.5, 2.5, None], pa.float16()),
    "uuid": pa.array([b"a" * 16, b"b" * 16, b"b" * 16, None], pa.uuid()),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", "2", "2", None])),
}


@pytest.mark.timeout(300)
def test_ids_of_every_scalar_type(tmp_path):
    """Score, tokenize, verify --duplicates, --unique-ids, merge, report and labelled rows take any scalar id.

    One row of each source is bad and one id is null, so that examples are shown and nulls kept.
    """
    bundle = make_classifier(tmp_path / "bundle")
    sources = []
    for name, ids in IDS.items():
        group = plain_ids(ids).take(pa.array([0, 1, 1, 0]))
        columns = {"id": ids, "group": group, "text": ["x", None, "y", "z"], "label": ["p", "q", "p", "q"]}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        sources.append(str(tmp_path / f"{name}.parquet"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(TESTS), str(bundle), *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == list(IDS)


RUN_ENDS = [
    pa.RunEndEncodedArray.from_arrays(pa.array([1, 3, 4], pa.int32()), pa.array(["a", "b", None])),
    pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int16()), pa.array([1, 2], pa.timestamp("ns"))),
    pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int64()), pa.array(["a", "b"]).dictionary_encode()),
    pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int64()), pa.array(["a", "b"], pa.string_view())),
]


@pytest.mark.parametrize("ids", RUN_ENDS, ids=["string", "timestamp", "dictionary", "view"])
def test_ids_of_run_ends(tmp_path, ids):
    """Arrow files may keep ids, and any column, as runs, which Parquet cannot: merged files have the values."""
    bundle = write_bundle(tmp_path / "bundle")
    table = pa.table({"id": ids, "text": ["x", None, "y", "z"], "more": ids})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    run = score_here(tmp_path / "a.arrow", bundle, tmp_path / "run", engine="fake")
    assert verify(run.url, sources=True, duplicates=True).holds
    merge(run.url, str(tmp_path / "merged"))
    merged = pq.read_table(tmp_path / "merged" / "a.parquet")
    expected = python_values(ids)
    for name in ("id", "more"):
        assert python_values(merged[name].combine_chunks()) == expected, name
        assert merged.schema.field(name).type == ids.type.value_type, name


def test_columns_that_parquet_cannot_hold_are_named(tmp_path):
    """Merge says which column it is that cannot be written, among those that can."""
    bundle = write_bundle(tmp_path / "bundle")
    table = pa.table({"id": [1], "text": ["x"], "span": pa.array([pa.MonthDayNano([0, 1, 0])])})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    run = score_here(tmp_path / "a.arrow", bundle, tmp_path / "run", engine="fake")
    with pytest.raises(
        InputError, match=r"Parquet cannot hold 'span' \(month_day_nano_interval\); drop or convert"
    ):
        merge(run.url, str(tmp_path / "merged"))
