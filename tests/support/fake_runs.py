"""Runs whose workers are fake: plan one, drive it, read its parts back."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict
from support.fake_worker import FakeWork, Orders

from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.runs.cut import cut_evenly, id_field
from assay.runs.kinds import RunKind, RunRecord
from assay.runs.local import process_worker
from assay.runs.manifest import new_manifest
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join, part_path

SUPPORT = Path(__file__).parent


class FakeIdentity(RunRecord):
    """What makes the numbers of fake workers: anything that a test says."""

    model_config = ConfigDict(extra="allow", frozen=True)


class FakeSettings(FakeIdentity):
    """What fake workers need besides."""


FAKE = RunKind(name="score", identity=FakeIdentity, settings=FakeSettings)
SCORES = (
    pa.field("num_tokens", pa.int32()),
    pa.field("error", pa.string()),
    pa.field("prediction", pa.float32()),
)


def write_sources(folder, sizes, *, ids=True, row_group_rows=100):
    """A Parquet source for each size, `a.parquet`, `b.parquet`, ...; every 50th text is null."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        texts = [None if row % 50 == 49 else f"document {row} of {number}" for row in range(size)]
        columns = {"id": [f"{number}-{row}" for row in range(size)]} if ids else {}
        table = pa.table(
            {**columns, "text": texts},
            schema=pa.schema([*((name, pa.string()) for name in columns), ("text", pa.string())]),
        )
        pq.write_table(table, folder / f"{chr(ord('a') + number)}.parquet", row_group_size=row_group_rows)
    return folder


def plan_run(
    folder, *, unit_rows=20, limit_rows=None, identity=None, settings=None, kind=FAKE, fields=SCORES
):
    """The manifest of a run over the sources in `folder`."""
    columns = Columns()
    sources = find_sources([str(folder)], columns=columns)
    return new_manifest(
        kind=kind,
        assay_version="0",
        identity=FakeIdentity(**{"bundle": "b" * 32, "max_length": 64, **(identity or {})}),
        settings=FakeSettings(**(settings or {})),
        columns=columns,
        sources=sources,
        boundaries=cut_evenly(sources, unit_rows, limit_rows),
        part_schema=pa.schema([id_field(sources, columns), *fields], metadata={"assay.task": "regression"}),
    )


def make_run(url, folder, *, publish=False, **options):
    """The run at `url` over the sources in `folder`; with `publish` every unit is published in this process."""
    run, _ = create_or_join(str(url), plan_run(folder, **options))
    if publish:
        for unit in run.manifest.units():
            publish_unit(run, unit)
    return run


def publish_unit(run, unit):
    """Publish one unit in this process, as a worker would."""
    return run_unit(run, FakeWork(run.manifest), unit)


def fake_workers(run, num_workers=1, orders=None, *, host=None):
    """How to start fake workers: each from nothing, or in milliseconds by the host at that address."""
    if host is None:
        arguments = (sys.executable, str(SUPPORT / "fake_worker.py"), run.url)
    else:
        arguments = (sys.executable, "-I", "-S", str(SUPPORT / "worker_host.py"), host, run.url)
    environment = orders.environment() if orders else {}
    return [process_worker(arguments, name="a worker", environment=environment)] * num_workers


def hosted_workers(run, host, num_workers=1):
    """How to start real workers of `assay score` by their host, without threads of their own."""
    arguments = ("--device", "cpu", "--threads", "1")
    command = (sys.executable, "-I", "-S", str(SUPPORT / "worker_host.py"), host, run.url, *arguments)
    return [process_worker(command, name="a worker")] * num_workers


def start_driver(run_url, folder, *, workers=1, unit_rows=20, orders=None, environment=None, host=None):
    """A driver in a process of its own, see drive.py; its workers are started by the host, if there is one."""
    return subprocess.Popen(
        [sys.executable, str(SUPPORT / "drive.py"), str(run_url), str(folder), str(workers), str(unit_rows)],
        env={
            **os.environ,
            **(orders or Orders()).environment(),
            **({"WORKER_HOST": host} if host else {}),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def contents(run):
    """What is in each part: its rows, and what its footer says about them; by unit name."""
    found = {}
    for name in sorted(run.part_files()):
        with run.store.open_input(f"parts/{name}.parquet") as handle, pq.ParquetFile(handle) as file:
            footer = file.metadata.metadata
            kept = (
                b"assay.run_id",
                b"assay.unit",
                b"assay.rows_in",
                b"assay.rows_out",
                b"assay.id_checksum",
                b"assay.task",
            )
            found[name] = (file.read().to_pydict(), {key: footer[key] for key in kept})
    return found


def part_file(run, unit):
    """The local file of a unit's part."""
    return Path(run.url) / part_path(unit)


def footer_of(path):
    """The key-value metadata in the footer of a Parquet file."""
    return pq.read_metadata(path).metadata


def leftovers(run):
    """Temporary files in a local run."""
    scratch = Path(run.url) / "tmp"
    return sorted(scratch.iterdir()) if scratch.exists() else []
