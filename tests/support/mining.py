"""Mine runs in this process."""

import pyarrow as pa
import pyarrow.parquet as pq

from assay.mine.plan import plan_mine
from assay.mine.settings import MineSettings
from assay.mine.worker import open_mine_work
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join, part_path


def plan_here(tmp_path, sources, corpus, *, name="planned", **settings):
    """The manifest of a mine run."""
    return plan_mine(MineSettings(sources=(sources,), corpus=corpus, run=str(tmp_path / name), **settings))


def mine_here(tmp_path, sources, corpus, *, name="mined", block_rows=None, **settings):
    """The rows of all parts, in unit order."""
    asked = MineSettings(sources=(sources,), corpus=corpus, run=str(tmp_path / name), **settings)
    run, _ = create_or_join(asked.run, plan_mine(asked))
    work = open_mine_work(run, device="cpu", num_threads=1, block_rows=block_rows)
    work.load()
    tables = []
    for unit in run.manifest.units():
        run_unit(run, work, unit)
        with run.store.open_input(part_path(unit)) as handle:
            tables.append(pq.read_table(handle))
    return pa.concat_tables(tables)
