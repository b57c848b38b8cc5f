"""Runs whose parts hold any number of rows for a row of the source: published, served, verified, told of."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.fake_runs import FakeIdentity, FakeSettings, footer_of, part_file, plan_run, write_sources

from assay.data.reading import read_rows
from assay.errors import UnitError
from assay.processes import Parent
from assay.runs.kinds import RunKind
from assay.runs.pipeline import run_unit
from assay.runs.protocol import Finish, Take, command_to_json
from assay.runs.run import create_or_join
from assay.runs.status import status
from assay.runs.verify import verify
from assay.runs.worker import Mailbox, serve_units
from assay.telemetry import Counters

WORDS = RunKind(name="words", identity=FakeIdentity, settings=FakeSettings, rows_out="any_number")
FIELDS = (pa.field("source_row", pa.int64()), pa.field("word", pa.string()))


class WordsWork:
    """A row for each word of a text; a null text has none. `skip` rows are never read."""

    def __init__(self, manifest, *, skip=0):
        self.counters = Counters()
        self.rows_in = 0
        self._manifest = manifest
        self._skip = skip

    def load(self):
        return "words"

    def prepare(self, unit):
        source, columns = self._manifest.source(unit.source), self._manifest.source_columns()
        return read_rows(source, columns, unit.start + self._skip, unit.stop, batch_rows=7)

    def compute(self, rows):
        return rows

    def finish(self, unit, computed):
        self.rows_in = 0
        for rows in computed:
            self.rows_in += rows.num_rows
            self.counters.rows += rows.num_rows
            made = [
                (id_, rows.start + index, word)
                for index, (id_, text) in enumerate(
                    zip(rows.ids.to_pylist(), rows.texts.to_pylist(), strict=True)
                )
                for word in (text or "").split()
            ]
            ids, origins, words = zip(*made, strict=True) if made else ((), (), ())
            schema = self._manifest.arrow_schema()
            arrays = [
                pa.array(values, field.type)
                for values, field in zip((ids, origins, words), schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def stats(self):
        return {}


@pytest.fixture
def run(tmp_path):
    """A run of words over 100 rows, two of them null, in five units; none is published."""
    folder = write_sources(tmp_path / "sources", [100])
    return create_or_join(str(tmp_path / "run"), plan_run(folder, kind=WORDS, fields=FIELDS))[0]


def publish(run):
    """Publish every unit."""
    for unit in run.manifest.units():
        run_unit(run, WordsWork(run.manifest), unit)


def problems(run, **options):
    """What verify finds."""
    return verify(run.url, **options).problems


def rewrite(run, change):
    """Change the rows of the first part, under its own footer."""
    path = part_file(run, run.manifest.units()[0])
    footer = {key: value for key, value in footer_of(path).items() if key != b"ARROW:schema"}
    table = change(pq.read_table(path)).replace_schema_metadata(footer)
    path.unlink()
    pq.write_table(table, path)


def test_served_by_a_worker(run):
    """A worker serves such a run like any other: parts say how many rows went in and how many came out."""
    commands = [*(Take(unit.name) for unit in run.manifest.units()), Finish()]
    lines = io.StringIO("".join(json.dumps(command_to_json(command)) + "\n" for command in commands))
    serve_units(run, WordsWork(run.manifest), Mailbox(run, Parent(lines, io.StringIO())))
    footer = footer_of(part_file(run, run.manifest.units()[2]))
    assert (footer[b"assay.rows_in"], footer[b"assay.rows_out"]) == (b"20", b"76")
    found = status(run.url)
    assert (found.kind, found.rows_published, found.is_complete) == ("words", 100, True)


def test_verified_in_and_out(run):
    """The proof counts each source row once and every row of the parts, and compares ids with the sources."""
    publish(run)
    proof = verify(run.url, sources=True, duplicates=True)
    assert proof.holds, proof.problems
    assert (proof.rows_total, proof.rows_in, proof.rows_out) == (100, 100, 392)
    assert proof.duplicate_ids == 0
    assert "100 in, 392 out" in str(proof)


def test_a_unit_that_was_not_read_whole(run):
    """Whatever comes out, a unit of which a row was not read fails."""
    unit = run.manifest.units()[0]
    with pytest.raises(UnitError, match="unit a-0-20 of 20 rows: 19 were read and 76 came out"):
        run_unit(run, WordsWork(run.manifest, skip=1), unit)
    assert not run.is_published(unit)


def test_rows_that_went_missing_afterwards(run):
    """A part that has fewer rows than its footer says is found."""
    publish(run)
    rewrite(run, lambda table: table.slice(0, 70))
    assert "parts/a-0-20.parquet has 70 rows and its footer says '80'" in problems(run)[0]


@pytest.mark.parametrize("rows", [[-1, *range(79)], [*range(79), 20], [1, 0, *[5] * 78]])
def test_rows_of_no_row_of_the_unit(run, rows):
    """Rows that name a source row outside of the unit, or out of order, are found."""
    publish(run)
    column = pa.array(rows, pa.int64())
    rewrite(run, lambda table: table.set_column(1, "source_row", column))
    assert any("rows are not of rows 0 to 19, in order" in problem for problem in problems(run))


def test_rows_that_belong_to_another_row(run):
    """A row whose id is not that of the source row it names is found where the sources are read again."""

    def one_late(table):
        return table.set_column(1, "source_row", pa.array([0, *table["source_row"].to_pylist()[:-1]]))

    publish(run)
    rewrite(run, one_late)
    assert not problems(run)
    assert "its ids are not those of source a" in problems(run, sources=True)[0]
