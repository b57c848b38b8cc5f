"""Finished embed runs of made-up vectors, written by hand with the pieces that every run is made of."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.runs.cut import id_field
from assay.runs.kinds import RunKind, RunRecord
from assay.runs.manifest import new_manifest
from assay.runs.plan import plan_boundaries
from assay.runs.run import Run, create_or_join


class EmbedIdentity(RunRecord):
    """The fields that say whether vectors can be compared."""

    bundle: str
    tokenizer: str
    pooling: str
    normalised: bool
    max_length: int


class EmbedRecord(RunRecord):
    """Nothing."""


EMBED = RunKind(name="embed", identity=EmbedIdentity, settings=EmbedRecord)


def write_embed_run(
    folder: Path,
    texts: Sequence[str | None],
    vectors: np.ndarray,
    *,
    unit_rows: int = 7,
    publish: bool = True,
    kind: pa.DataType | None = None,
    pooling: str = "mean",
    **columns: object,
) -> Run:
    """A run over `folder`/texts.parquet in `folder`/run; a null text has a null vector."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"text": pa.array(texts, pa.string()), **columns})
    pq.write_table(table, folder / "texts.parquet")
    names = Columns()
    sources = find_sources([str(folder / "texts.parquet")], columns=names)
    first = id_field(sources, names)
    dimension = vectors.shape[1]
    schema = pa.schema(
        [
            first,
            ("num_tokens", pa.int32()),
            ("truncated", pa.bool_()),
            ("error", pa.string()),
            ("embedding", pa.list_(kind or pa.float32(), dimension)),
        ]
    )
    manifest = new_manifest(
        kind=EMBED,
        assay_version="0",
        identity=EmbedIdentity(
            bundle="b" * 32, tokenizer="t", pooling=pooling, normalised=True, max_length=128
        ),
        settings=EmbedRecord(),
        columns=names,
        sources=sources,
        boundaries=[plan_boundaries(len(texts), (0,), unit_rows)],
        part_schema=schema,
    )
    run, _ = create_or_join(str(folder / "run"), manifest)
    for unit in manifest.units() if publish else ():
        rows = range(unit.start, unit.stop)
        values = [None if texts[row] is None else vectors[row].tolist() for row in rows]
        ids = table.column("id").slice(unit.start, unit.num_rows) if first.name == "id" else pa.array(rows)
        batch = pa.record_batch(
            [
                ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids.cast(pa.int64()),
                pa.array([1] * len(rows), pa.int32()),
                pa.array([False] * len(rows)),
                pa.array(["null" if texts[row] is None else None for row in rows], pa.string()),
                pa.array(values, schema.field("embedding").type),
            ],
            schema=schema,
        )
        run.publish(unit, [batch], rows_in=lambda unit=unit: unit.num_rows)
    return run


def write_pairs(path: Path, pairs: Sequence[tuple[object, object]], **columns: object) -> str:
    """Rows of anchor and positive, as Parquet or JSON Lines by the name."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({"anchor": anchor, "positive": positive}) for anchor, positive in pairs]
        path.write_text("\n".join(lines) + "\n")
    else:
        anchors, positives = zip(*pairs, strict=True)
        pq.write_table(pa.table({"anchor": list(anchors), "positive": list(positives), **columns}), path)
    return str(path)
