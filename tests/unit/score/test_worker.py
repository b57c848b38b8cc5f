"""The process that scores: what it does before its engine is there."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle

from assay.runs.run import create_or_join
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here

HEAVY = ("torch", "transformers", "sklearn", "scipy")


@pytest.fixture
def run(tmp_path):
    """A run of three units on the fake engine."""
    bundle = write_bundle(tmp_path / "bundle")
    pq.write_table(pa.table({"text": ["document of 1"] * 9}), tmp_path / "data.parquet")
    settings = ScoreSettings(
        sources=(str(tmp_path / "data.parquet"),),
        bundle=str(bundle),
        run=str(tmp_path / "run"),
        engine="fake",
        unit_rows=3,
    )
    return create_or_join(settings.run, plan_here(settings)[0])[0]


def python(code, *arguments):
    """What these lines of Python print, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["assay.score.worker", "assay.tokenize.worker", "assay.score.verb"])
def test_starting_imports_nothing_heavy(module):
    """A worker listens, and a driver begins, without torch and transformers, which take seconds to import."""
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    assert python(code) == ""


def test_a_driver_imports_nothing_heavy(run):
    """The whole of `assay score`, its help too, runs in a process that never imports what its workers need."""
    code = f"""
import sys
from assay.cli.main import main
assert main(["score", "--help"]) == 0
source, bundle, run = sys.argv[1:]
words = ["--engine", "fake", "--unit-rows", "3", "--parity-documents", "32"]
assert main(["score", source, "--bundle", bundle, "--run", run, *words]) == 0
print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""
    folder = Path(run.url).parent
    command = [sys.executable, "-c", code, str(folder / "data.parquet"), str(folder / "bundle"), run.url]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""
    assert len(run.part_files()) == 3


def test_the_first_unit_is_read_without_the_engine(run):
    """A unit is read and tokenized before `load`, which is what imports torch; then it is scored."""
    code = f"""
import sys
from assay.runs.run import open_run
from assay.score.worker import open_score_work

run = open_run(sys.argv[1])
work = open_score_work(run, device="cpu", num_threads=1, should_stop=lambda: False)
unit = run.manifest.units()[1]
chunks = list(work.prepare(unit))
print(sum(chunk.num_rows for chunk in chunks), [name for name in {HEAVY} if name in sys.modules])
print(work.load())
print(run.publish(unit, work.finish(unit, map(work.compute, chunks)), rows_in=lambda: work.rows_in).rows_out)
"""
    assert python(code, run.url).splitlines() == [
        "3 []",
        "fake engine, outputs of shape (2,): made-up numbers, no model",
        "3",
    ]
