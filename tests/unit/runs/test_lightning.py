"""The streaming prediction writer: every row once and in order, or nothing that looks finished."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pytorch_lightning")

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from assay.data.ids import IdChecksum
from assay.data.storage import LocalStore
from assay.errors import CheckError, RefusedError, SourceError, UsageError, WorkError
from assay.runs.lightning import PredictionWriter, _from_rank, weights_checksum
from assay.runs.predictions import layout as layouts
from assay.runs.predictions import merging
from assay.runs.predictions import publish as publishing
from assay.runs.predictions import staging as staging_rows
from assay.runs.predictions.layout import PredictionLayout
from assay.runs.predictions.publish import publish_predictions
from assay.runs.predictions.result import claim, find_predictions
from assay.runs.predictions.staging import RowStaging

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero"),
    pytest.mark.filterwarnings("ignore:.*couldn't infer the indices"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
]

ROOT = Path(__file__).resolve().parents[3]
LABELS = (None, True, False)


def meds_cohort(num_rows):
    """A MEDS-like cohort: identifiers, and a label that is null where it was censored."""
    rows = range(num_rows)
    return pa.table(
        {
            "subject_id": pa.array([10_000_000_000 + row // 2 for row in rows], pa.int64()),
            "prediction_time": pa.array(
                [datetime(2020, 1, 1) + timedelta(hours=row) for row in rows],  # noqa: DTZ001  MEDS times are naive
                pa.timestamp("us"),
            ),
            "query": pa.array([f"ICD//I{row % 5}" for row in rows], pa.large_string()),
            "duration_days": pa.array([row + 0.5 for row in rows], pa.float32()),
            "boolean_value": pa.array([LABELS[row % 3] for row in rows], pa.bool_()),
        }
    )


def meds_schema():
    """The cohort's columns and two probabilities, in the order of a MEDS prediction."""
    fields = list(meds_cohort(0).schema)
    ids = [field.with_nullable(False) for field in fields[:-1]]
    probabilities = [pa.field(name, pa.float32(), nullable=False) for name in ("censor_prob", "occurs_prob")]
    return pa.schema([*ids[:2], fields[-1], *ids[2:], *probabilities])


OUTPUTS = {"censor_probs": "censor_prob", "occurs_probs": "occurs_prob"}


class Numbers(Dataset):
    """Rows that carry their own ids."""

    def __init__(self, num_rows, lost=()):
        self.rows = [row for row in range(num_rows) if row not in lost]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return {"row": row, "x": torch.tensor(float(row))}


class Model(LightningModule):
    """Predicts the row itself, so that a row in the wrong place is seen."""

    def __init__(self, dtype=torch.float32, fail_at=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1 / 1024))
        self.norm = torch.nn.BatchNorm1d(1)
        self.dtype_out = dtype
        self.fail_at = fail_at

    def predict_step(self, batch, batch_idx):
        if batch_idx == self.fail_at:
            raise ValueError("the model broke")
        occurs = (batch["x"] * self.scale).to(self.dtype_out)
        return {"occurs_probs": occurs, "censor_probs": 1 - occurs[:, None], "unused": None}


def predict(writer, dataset, model=None, **loader):
    """One process's predict with a writer."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[writer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = model or Model()
    loader = DataLoader(dataset, **{"batch_size": 16, **loader})
    return trainer.predict(model, loader, return_predictions=False)


def meds_writer(out, size, **changes):
    """A writer for the MEDS-like cohort."""
    return PredictionWriter(
        out, **{"schema": meds_schema(), "outputs": OUTPUTS, "rows": meds_cohort(size), **changes}
    )


def read_parts(out):
    """The result as any reader gets it: all files in order of their names."""
    paths = sorted((Path(out) / "parts").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths])


def files_below(folder):
    """Every file and its content."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def assert_whole(out, num_rows, scale=1 / 1024):
    """The result of `Model` for the cohort: each row once, in order, beside what is known of it."""
    table = read_parts(out)
    assert table.schema.remove_metadata() == meds_schema()
    assert table.select(meds_cohort(0).column_names).equals(
        meds_cohort(num_rows).cast(
            pa.schema([meds_schema().field(name) for name in meds_cohort(0).column_names])
        )
    )
    assert np.array_equal(table["occurs_prob"], (np.arange(num_rows) * scale).astype(np.float32))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_cohort_comes_out_in_order(tmp_path, shuffle):
    """Partial last batch, rows in any order: typed identifiers and null labels meet their own prediction."""
    writer = meds_writer(tmp_path / "out", 101)
    assert predict(writer, Numbers(101), shuffle=shuffle) is None
    assert_whole(tmp_path / "out", 101)
    assert read_parts(tmp_path / "out")["boolean_value"].null_count == 34
    assert (writer.result.num_rows, writer.result.num_repeats, writer.result.created) == (101, 0, True)
    assert find_predictions(LocalStore(tmp_path / "out")).parts == writer.result.parts
    left = sorted(path.relative_to(tmp_path / "out").as_posix() for path in files_below(tmp_path / "out"))
    assert left == ["complete.json", writer.result.parts[0], "predictions.json"]


def test_footers_are_those_of_parts(tmp_path):
    """A part names its run, unit, rows and the checksum of its first identifier."""
    writer = meds_writer(tmp_path, 20)
    predict(writer, Numbers(20))
    footer = pq.read_metadata(tmp_path / writer.result.parts[0]).metadata
    checksum = IdChecksum()
    checksum.update(meds_cohort(20)["subject_id"])
    assert footer[b"assay.run_id"].decode() == writer.result.run_id
    assert footer[b"assay.unit"] == b"predictions-000000000000-000000000020"
    assert footer[b"assay.rows_out"] == b"20"
    assert footer[b"assay.id_checksum"].decode() == checksum.hexdigest()
    assert json.loads(footer[b"assay.stats"])["world_size"] == 1


def test_rows_may_be_a_dataset_or_a_function(tmp_path):
    """A dataset of many files is read once in order; a function is asked for ascending row ids."""
    for start in range(0, 50, 20):
        pq.write_table(meds_cohort(50).slice(start, 20), tmp_path / f"{start:02}.parquet")
    dataset = ds.dataset(sorted(map(str, tmp_path.glob("*.parquet"))))
    predict(meds_writer(tmp_path / "dataset", 50, rows=dataset), Numbers(50), shuffle=True)
    assert_whole(tmp_path / "dataset", 50)
    function = meds_writer(tmp_path / "function", 50, rows=meds_cohort(50).take, num_rows=50)
    predict(function, Numbers(50), shuffle=True)
    assert_whole(tmp_path / "function", 50)


def test_without_rows_the_ids_stand_for_themselves(tmp_path):
    """A schema may hold the row ids and outputs alone; then the rows found must have no gap."""
    schema = pa.schema([("row", pa.int64()), ("p", pa.float32())])
    predict(PredictionWriter(tmp_path / "a", schema=schema, outputs={"occurs_probs": "p"}), Numbers(9))
    assert read_parts(tmp_path / "a")["row"].to_pylist() == list(range(9))
    with pytest.raises(CheckError, match=r"1 of 9 rows were not predicted \(the first: row 4\)"):
        predict(
            PredictionWriter(tmp_path / "b", schema=schema, outputs={"occurs_probs": "p"}), Numbers(9, {4})
        )


def test_an_empty_cohort_gives_a_valid_file(tmp_path):
    """No row, no batch: one file without rows, with the schema."""
    writer = meds_writer(tmp_path, 0)
    predict(writer, Numbers(0))
    assert_whole(tmp_path, 0)
    assert writer.result.num_rows == 0
    assert len(writer.result.parts) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    """bfloat16, which numpy lacks, and float16 come out as the float32 of the same value."""
    predict(meds_writer(tmp_path, 33), Numbers(33), Model(dtype))
    expected = (torch.arange(33.0) / 1024).to(dtype).float().numpy()
    assert np.array_equal(read_parts(tmp_path)["occurs_prob"], expected)


def test_an_embedding_is_an_output_too(tmp_path):
    """Two-dimensional outputs become lists of a fixed size."""

    class Embedder(Model):
        def predict_step(self, batch, batch_idx):
            return {"embedding": torch.stack([batch["x"], -batch["x"]], dim=1).bfloat16()}

    schema = pa.schema([("embedding", pa.list_(pa.float32(), 2))])
    predict(
        PredictionWriter(tmp_path, schema=schema, outputs={"embedding": "embedding"}, num_rows=40),
        Numbers(40),
        Embedder(),
        shuffle=True,
    )
    assert read_parts(tmp_path)["embedding"].to_pylist() == [[row, -row] for row in range(40)]


def test_what_is_not_finite_is_counted(tmp_path):
    """A NaN passes through and is counted."""

    class Broken(Model):
        def predict_step(self, batch, batch_idx):
            return {"p": torch.where(batch["x"] == 3, math.nan, batch["x"])}

    writer = PredictionWriter(
        tmp_path, schema=pa.schema([("p", pa.float32())]), outputs={"p": "p"}, num_rows=8
    )
    predict(writer, Numbers(8), Broken())
    assert writer.result.num_not_finite == 1
    assert math.isnan(read_parts(tmp_path)["p"][3].as_py())


def test_an_exception_leaves_whole_files_and_no_result(tmp_path):
    """What was predicted before is readable, nothing looks finished, and the same predict again succeeds."""
    writer = meds_writer(tmp_path, 101)
    with pytest.raises(ValueError, match="the model broke"):
        predict(writer, Numbers(101), Model(fail_at=4))
    (staged,) = (tmp_path / "staged").rglob("*.parquet")
    assert pq.read_table(staged)["row"].to_pylist() == list(range(64))
    assert pq.read_table(staged)["occurs_prob"].type == pa.float32()
    assert not (tmp_path / "parts").exists()
    assert not (tmp_path / "complete.json").exists()
    assert writer.result is None
    assert not list((tmp_path / "tmp").iterdir())
    predict(meds_writer(tmp_path, 101), Numbers(101))
    assert_whole(tmp_path, 101)


def test_a_lost_row_is_caught(tmp_path):
    """Rows that no batch held are counted, the first named, and nothing is published."""
    with pytest.raises(CheckError, match=r"3 of 101 rows were not predicted \(the first: row 7\)"):
        predict(meds_writer(tmp_path, 101), Numbers(101, {7, 50, 100}))
    assert not (tmp_path / "parts").exists()
    assert not (tmp_path / "complete.json").exists()


def test_a_row_beyond_the_cohort_is_refused(tmp_path):
    """Row ids that the cohort does not have stop the work at once."""
    with pytest.raises(CheckError, match=r"3 row ids of a batch .* \(the first: 98\).* from 0 to 97"):
        predict(meds_writer(tmp_path, 98), Numbers(101))


def test_ids_that_name_two_rows_are_caught(tmp_path):
    """Two predictions of one row that lie apart mean that ids are not of the whole cohort."""

    class Restarting(Numbers):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "row": index % 50}

    with pytest.raises(CheckError, match=r"row \d+ was predicted twice, censor_prob"):
        predict(meds_writer(tmp_path, 50, duplicate_tolerance=0.01), Restarting(100))


def test_the_same_again_changes_nothing(tmp_path):
    """A second predict of the same model and cohort leaves every byte as it was."""
    predict(meds_writer(tmp_path, 30), Numbers(30))
    before = files_below(tmp_path)
    again = meds_writer(tmp_path, 30)
    predict(again, Numbers(30), batch_size=7, shuffle=True)
    assert files_below(tmp_path) == before
    assert (again.result.created, again.result.num_rows) == (False, 30)


def test_another_result_is_refused(tmp_path):
    """Other weights, another cohort, a run of another kind: refused before the first row, with the reason."""
    predict(meds_writer(tmp_path / "out", 30), Numbers(30))
    before = files_below(tmp_path)
    other_model = Model()
    torch.nn.init.constant_(other_model.scale, 0.5)
    with pytest.raises(RefusedError, match=r"holds another result: weights was \w+\.\.\.\w+, now"):
        predict(meds_writer(tmp_path / "out", 30), Numbers(30), other_model)
    labels = meds_cohort(30).set_column(4, "boolean_value", pa.array([True] * 30))
    with pytest.raises(RefusedError, match="rows was"):
        predict(meds_writer(tmp_path / "out", 30, rows=labels), Numbers(30))
    with pytest.raises(RefusedError, match="checkpoint was null, now b"):
        predict(meds_writer(tmp_path / "out", 30, identity={"checkpoint": "b"}), Numbers(30))
    assert files_below(tmp_path) == before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(RefusedError, match="run of another kind"):
        predict(meds_writer(tmp_path / "run", 30), Numbers(30))
    (tmp_path / "parts" / "parts").mkdir(parents=True)
    (tmp_path / "parts" / "parts" / "a.parquet").write_text("")
    with pytest.raises(RefusedError, match=r"parts but no predictions\.json"):
        predict(meds_writer(tmp_path / "parts", 30), Numbers(30))


def test_weights_have_one_checksum():
    """Equal weights hash alike in every type, other values or types do not."""
    assert weights_checksum(Model()) == weights_checksum(Model())
    assert weights_checksum(Model()) != weights_checksum(Model().bfloat16())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"outputs": {"occurs_probs": "occur_prob"}},
            "'occur_prob' is not in the schema .nearest: occurs_prob",
        ),
        (
            {"outputs": {"occurs_probs": "occurs_prob"}},
            "'censor_prob' of the schema is not an output and not in rows",
        ),
        ({"outputs": {**OUTPUTS, "x": "query"}}, "has type large_string; outputs are float32"),
        ({"outputs": {"a": "occurs_prob", "b": "occurs_prob"}}, "two outputs go to one column"),
        ({"num_rows": 5}, "num_rows is 5 and rows has 10"),
        ({"rows": meds_cohort(10).drop(["query"])}, "'query' of the schema is not an output and not in rows"),
        ({"rows": meds_cohort(10).take, "num_rows": -1}, "num_rows is -1; a cohort has 0 rows or more"),
    ],
)
def test_a_layout_that_does_not_add_up_is_refused(tmp_path, changes, message):
    """What cannot work is said when the writer is made, not after hours of predicting."""
    with pytest.raises(UsageError, match=message):
        meds_writer(tmp_path, 10, **changes)


@pytest.mark.parametrize(
    ("step", "row_key", "message"),
    [
        (lambda batch: {"p": batch["x"]}, "id", r"the batch has no 'id' \(row, x\)"),
        (lambda batch: {"p": batch["x"]}, "x", r"row ids 'x' are float32 of shape \(4,\)"),
        (lambda batch: {"q": batch["x"]}, "row", "predict_step returned no 'p'"),
        (lambda batch: batch["x"], "row", "predict_step returned Tensor for batch 0"),
        (lambda batch: {"p": batch["x"][:3]}, "row", r"'p' of shape \(3,\); for 4 row ids"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(tmp_path, step, row_key, message):
    """A batch without row ids, or a prediction without its keys or lengths, stops with one line."""

    class Odd(Model):
        def predict_step(self, batch, batch_idx):
            return step(batch)

    writer = PredictionWriter(
        tmp_path, schema=pa.schema([("p", pa.float32())]), outputs={"p": "p"}, row_key=row_key
    )
    with pytest.raises(UsageError, match=message):
        predict(writer, Numbers(4), Odd())


def test_rows_of_the_wrong_type_are_refused(tmp_path):
    """Identifiers are cast only where nothing is lost, and no null enters a column that allows none."""
    times = meds_cohort(4).set_column(1, "prediction_time", pa.array(["x"] * 4))
    with pytest.raises(SourceError, match="'prediction_time' of rows cannot become timestamp"):
        predict(meds_writer(tmp_path / "a", 4, rows=times), Numbers(4))
    holes = meds_cohort(4).set_column(2, "query", pa.array(["x", None, "y", "z"], pa.large_string()))
    with pytest.raises(SourceError, match="'query' of rows has 1 nulls and the schema allows none"):
        predict(meds_writer(tmp_path / "b", 4, rows=holes), Numbers(4))


# ------------------------------------------------------------ merging, without a Trainer

P = pa.schema([("row", pa.int64()), ("p", pa.float32())])


def stage(store, layout, rank, batches):
    """One rank's staged files."""
    staging = RowStaging(store, layout, attempt="a", rank=rank)
    for rows, values in batches:
        staging.add(np.array(rows, dtype=np.int64), {"p": np.array(values, dtype=np.float32)})
    return staging.close()


def publish(store, layout, reports):
    """All ranks' reports as one, published."""
    report = {
        "files": [name for each in reports for name in each["files"]],
        "num_repeats": sum(each["num_repeats"] for each in reports),
    }
    run_id = claim(store, layout.identity())
    return publish_predictions(store, layout, run_id=run_id, report=report, world_size=len(reports))


def test_the_lowest_rank_wins(tmp_path):
    """Of a row predicted twice, on ranks or within one, the first prediction of the lowest rank stays."""
    store = LocalStore(tmp_path)
    layout = PredictionLayout(schema=P, outputs={"p": "p"}, num_rows=4, duplicate_tolerance=0.5)
    reports = [
        stage(store, layout, 0, [([3, 1, 3], [0.3, 0.1, 0.35])]),
        stage(store, layout, 1, [([0, 1, 2], [0.0, 0.15, 0.2])]),
    ]
    done = publish(store, layout, reports)
    assert read_parts(tmp_path)["p"].to_pylist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert done.num_repeats == 2


@pytest.mark.parametrize("seed", range(4))
def test_many_runs_are_merged_in_passes(tmp_path, monkeypatch, seed):
    """Shuffled rows on many ranks, small groups and fan-in, several parts: every row once and in order."""
    monkeypatch.setattr(staging_rows, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(staging_rows, "STAGED_FILE_ROWS", 150)
    monkeypatch.setattr(merging, "MERGE_ROWS", 7)
    monkeypatch.setattr(layouts, "SCAN_ROWS", 7)
    monkeypatch.setattr(merging, "FAN_IN", 3)
    monkeypatch.setattr(publishing, "PART_ROWS", 300)
    store = LocalStore(tmp_path)
    rng = np.random.default_rng(seed)
    layout = PredictionLayout(
        schema=pa.schema([("id", pa.string()), *P]),
        outputs={"p": "p"},
        rows=pa.table({"id": [f"d{row}" for row in range(1000)]}),
    )
    rows = np.concatenate([rng.permutation(1000), rng.integers(0, 1000, 40)])
    reports = [
        stage(store, layout, rank, [(share[i : i + 9], share[i : i + 9]) for i in range(0, len(share), 9)])
        for rank, share in enumerate(np.array_split(rows, 3))
    ]
    assert sum(len(report["files"]) for report in reports) > 3
    done = publish(store, layout, reports)
    table = read_parts(tmp_path)
    assert table["row"].to_pylist() == list(range(1000))
    assert table["p"].to_pylist() == list(range(1000))
    assert table["id"].to_pylist() == [f"d{row}" for row in range(1000)]
    assert (len(done.parts), done.num_repeats) == (4, 40)
    assert not list((tmp_path / "tmp").iterdir())


def test_a_publish_that_was_killed_is_gone_on_with(tmp_path, monkeypatch):
    """Parts without complete.json are not a result; the same run completes them, another's are refused."""
    monkeypatch.setattr(publishing, "PART_ROWS", 10)
    store = LocalStore(tmp_path)
    layout = PredictionLayout(schema=P, outputs={"p": "p"}, num_rows=25)
    publish(store, layout, [stage(store, layout, 0, [(range(25), range(25))])])
    (tmp_path / "complete.json").unlink()
    kept, *others = sorted((tmp_path / "parts").iterdir())
    for path in others:
        path.unlink()
    before = kept.read_bytes()
    assert find_predictions(store) is None
    publish(store, layout, [stage(store, layout, 0, [(range(25), range(25))])])
    assert read_parts(tmp_path)["row"].to_pylist() == list(range(25))
    assert kept.read_bytes() == before
    (tmp_path / "complete.json").unlink()
    pq.write_table(pa.table({"row": [0]}), kept)
    with pytest.raises(RefusedError, match="is of run ''"):
        publish(store, layout, [stage(store, layout, 0, [(range(25), range(25))])])


def test_files_are_closed_as_time_goes(tmp_path, monkeypatch):
    """A rank's file is whole after some minutes, so that a kill costs no more than that."""
    monkeypatch.setattr(staging_rows, "ROW_GROUP_ROWS", 10)
    now = iter([0.0, 100.0, 301.0, 302.0, 303.0])
    layout = PredictionLayout(schema=P, outputs={"p": "p"})
    staging = RowStaging(LocalStore(tmp_path), layout, attempt="a", rank=2, clock=lambda: next(now))
    for start in (0, 10):
        staging.add(np.arange(start, start + 10), {"p": np.zeros(10, dtype=np.float32)})
    (path,) = (tmp_path / "staged" / "a").iterdir()
    assert path.name == "rank-00002-000000.parquet"
    assert pq.read_table(path).num_rows == 20
    staging.add(np.arange(20, 30), {"p": np.zeros(10, dtype=np.float32)})
    assert staging.close()["files"] == [
        "staged/a/rank-00002-000000.parquet",
        "staged/a/rank-00002-000001.parquet",
    ]


def test_a_bucket_holds_a_result_too(s3_url):
    """RowStaging, merging and publishing work on an object store."""
    from assay.data.storage import open_store

    store = open_store(f"{s3_url}/predictions")
    layout = PredictionLayout(schema=P, outputs={"p": "p"}, num_rows=6)
    done = publish(
        store, layout, [stage(store, layout, rank, [(range(rank, 6, 2), [0] * 3)]) for rank in (0, 1)]
    )
    with store.open_input(done.parts[0]) as handle:
        assert pq.read_table(handle)["row"].to_pylist() == list(range(6))
    assert [info.path for info in store.list()] == ["complete.json", done.parts[0], "predictions.json"]


# ------------------------------------------------------------ processes


def run_script(folder, script, *arguments):
    """Runs a script in `folder`; Lightning starts the second rank by running it again."""
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, path.name, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.slow
def test_the_page_on_lightning_tells_the_truth(tmp_path):
    """The script of docs/how-to/lightning.md, run as it stands: two ranks, an odd number of rows."""
    page = (ROOT / "docs" / "how-to" / "lightning.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    result = run_script(tmp_path, script)
    assert result.returncode == 0, result.stderr
    assert "1001 rows in" in result.stdout
    table = read_parts(tmp_path / "predictions")
    assert table["subject_id"].to_pylist() == list(range(1001))
    assert table["boolean_value"].null_count == 334
    assert json.loads((tmp_path / "predictions" / "complete.json").read_text())["num_rows"] == 1001
    footer = pq.read_metadata(next((tmp_path / "predictions" / "parts").iterdir())).metadata
    assert json.loads(footer[b"assay.stats"])["world_size"] == 2


PADDED = """
    import sys
    import pyarrow as pa
    import torch
    from pytorch_lightning import LightningModule, Trainer, seed_everything
    from torch.utils.data import DataLoader
    from torch.utils.data.distributed import DistributedSampler

    from assay.errors import CheckError
    from assay.runs.lightning import PredictionWriter

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def predict_dataloader(self):
            rows = [{"row": row, "x": torch.tensor([float(row)])} for row in range(self.num_rows)]
            sampler = DistributedSampler(rows, shuffle=True, seed=3)
            return DataLoader(rows, batch_size=8, sampler=sampler)

        def predict_step(self, batch, batch_idx):
            return {"p": self.linear(batch["x"]).bfloat16(), "row": batch["row"]}

    def predict(out, num_rows, found):
        seed_everything(0)
        schema = pa.schema([("row", pa.int64()), ("p", pa.float32())])
        writer = PredictionWriter(out, schema=schema, outputs={"p": "p"}, num_rows=num_rows)
        model = Model()
        model.num_rows = found
        trainer = Trainer(
            accelerator="cpu", devices=2, strategy="ddp", callbacks=[writer], logger=False,
            enable_progress_bar=False, use_distributed_sampler=False,
        )
        try:
            trainer.predict(model, return_predictions=False)
        except CheckError as error:
            print(f"rank {trainer.global_rank}: {error}", flush=True)
        else:
            print(f"rank {trainer.global_rank}: {writer.result}", flush=True)

    if __name__ == "__main__":
        predict("whole", 45, 45)
        predict("short", 45, 43)
"""


@pytest.mark.slow
def test_padding_of_a_distributed_sampler_is_dropped(tmp_path):
    """Two ranks share an odd number of shuffled rows: the repeated row goes; a lost row fails both ranks."""
    result = run_script(tmp_path, textwrap.dedent(PADDED))
    assert result.returncode == 0, result.stderr
    assert read_parts(tmp_path / "whole")["row"].to_pylist() == list(range(45))
    assert json.loads((tmp_path / "whole" / "complete.json").read_text())["num_repeats"] == 1
    for rank in (0, 1):
        assert re.search(rf"rank {rank}: Predictions\(.*num_rows=45, num_repeats=1", result.stdout), (
            result.stdout
        )
        missing = rf"rank {rank}: 2 of 45 rows were not predicted \(the first: row 43\)"
        assert re.search(missing, result.stdout), result.stdout
    assert not (tmp_path / "short" / "parts").exists()


KILLED = """
    import os
    import signal
    import numpy as np
    import pyarrow as pa
    from assay.data.storage import LocalStore
    from assay.runs.predictions import staging
    from assay.runs.predictions.layout import PredictionLayout

    staging.ROW_GROUP_ROWS, staging.STAGED_FILE_ROWS = 10, 20
    layout = PredictionLayout(schema=pa.schema([("p", pa.float32())]), outputs={"p": "p"})
    rank = staging.RowStaging(LocalStore("out"), layout, attempt="a", rank=0)
    for row in range(0, 55, 5):
        rank.add(np.arange(row, row + 5), {"p": np.zeros(5, dtype=np.float32)})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_costs_the_unfinished_file(tmp_path):
    """SIGKILL leaves every file that was closed, whole, and no file that is half written."""
    result = run_script(tmp_path, textwrap.dedent(KILLED))
    assert result.returncode == -signal.SIGKILL
    staged = sorted((tmp_path / "out" / "staged").rglob("*"))
    tables = [pq.read_table(path) for path in staged if path.is_file()]
    assert pc.sum(pa.concat_tables(tables)["row"]).as_py() == sum(range(40))
    assert not (tmp_path / "out" / "parts").exists()


def test_without_lightning_the_import_says_what_to_install():
    """The extra is optional: without it, importing the module gives one line with the command."""
    script = "import sys; sys.modules['pytorch_lightning'] = None; import assay.runs.lightning"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: assay.runs.lightning needs the package pytorch_lightning")
    assert last.endswith("pip install 'assay-corpus[lightning]'")


class NearlyASourceError(SourceError):
    """An error of a source that the tree has no name for."""


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (SourceError("no file"), SourceError, "no file"),
        (NearlyASourceError("no file"), SourceError, "no file"),
        (KeyError("p"), WorkError, "rank 0 failed: KeyError: 'p'"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_an_error_of_one_rank_is_the_same_on_the_others(raised, kind, message):
    """What rank 0 failed of arrives as its kind in the one tree of errors; of a library's, its name is told."""
    sent = []

    def fail():
        raise raised

    def trainer(rank, broadcast):
        return SimpleNamespace(global_rank=rank, strategy=SimpleNamespace(broadcast=broadcast))

    with pytest.raises(type(raised)):
        _from_rank(trainer(0, lambda text, src: sent.append(text) or text), 0, fail)
    with pytest.raises(kind) as caught:
        _from_rank(trainer(1, lambda text, src: sent[0]), 0, fail)
    assert type(caught.value) is kind
    assert str(caught.value) == message
