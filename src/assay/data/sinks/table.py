"""The format that merge writes a source of each format in, and how."""

from pathlib import Path

from assay.data.sinks.lines import write_csv, write_jsonl
from assay.data.sinks.parquet import write_arrow, write_npy, write_parquet, write_text
from assay.data.sinks.sink import AddedColumns, MergeSink
from assay.data.sources import Columns, Source

SINKS = {
    "parquet": MergeSink(format="parquet", write=write_parquet),
    "jsonl": MergeSink(format="jsonl", write=write_jsonl),
    "csv": MergeSink(format="csv", write=write_csv),
    "arrow": MergeSink(format="parquet", write=write_arrow),
    "npy": MergeSink(format="parquet", write=write_npy),
    "text": MergeSink(format="parquet", write=write_text),
}
"""By the source's format."""


def write_merged(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """Write to `out` the first `num_rows` rows of `source`, in their order, with the columns of `added` behind its own.

    `columns` names the id column. Raises SourceError where the source cannot be read, InputError
    where its types cannot be written, TakenNameError where a row of JSON Lines has a key of the name of
    an added column, OSError where `out` cannot be written.
    """
    SINKS[source.format].write(source, columns, num_rows, added, out)
