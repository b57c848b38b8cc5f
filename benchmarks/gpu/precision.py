"""fp16 against bf16 on one GPU: speed, and how far probabilities are from fp32, by family and on fine-tuned models.

    python recipes/prepare.py bbc
    python recipes/prepare.py newsgroups
    python recipes/prepare.py r8
    python benchmarks/gpu/precision.py --data recipes/data --record

Families have real shapes, random weights of a fixed seed and four labels. Their documents are distinct, of random
ids, their lengths log-normal (mean 228 tokens, 8 to 512). The fine-tuned models are MiniLM, trained here on the rows of
three recipes for some epochs (in bf16, as `assay train` does), and their documents all texts of the recipe, cut at
256 tokens.

Speed is that of the engine, from ids on the host to logits there. The two precisions take turns, and which is first
changes from round to round; figures are medians, ratios medians of pairs. The value is the least ratio of any model.

Differences are of a document's probabilities to those of transformers in fp32, padded in batches of like lengths: the
largest over its labels, and of that over documents the maximum and the 99.9th and 99th percentile; and the share of
documents with the same label. Of the fine-tuned models transformers in bf16 and fp16 stands beside them. A model of
random weights gives all documents nearly the same probabilities: its differences are small for that reason.

What `auto` takes for each model is printed with the largest weight and activation that it goes by.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _setup import (
    Model,
    SortedPadded,
    chosen_device,
    documents,
    finish,
    free_memory,
    make_bundle,
    models,
    parser,
    take,
    transformers_model,
)
from recipes import RECIPES, base_folder, read_recipe, read_split, tiny_base
from transformers import BertConfig, DistilBertConfig, ElectraConfig, ModernBertConfig

from assay.bundle.load import load_bundle
from assay.data.rows import SourceRows
from assay.engine.engine import Engine
from assay.engine.half import out_of_range
from assay.engine.load import load_engine
from assay.engine.ranges import measure_ranges
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.metrics import softmax
from assay.model.checkpoint import read_checkpoint
from assay.score.bundles import encoder_of
from assay.tokenize.chunks import chunks
from assay.tokenize.settings import LongDocuments
from assay.train.settings import TrainSettings
from assay.train.train import fit

CLAIM = "h100.fp16_over_bf16_speed"
PRECISIONS = ("fp16", "bf16")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TASKS = ("bbc", "newsgroups", "r8")
NUM_LABELS = 4
COMPARED = 2_000
"""Documents of a family whose probabilities are compared."""
TIMED = 40_000
"""Documents of a fine-tuned model that are timed: its texts, again and again."""
PADDED_TOKENS = 65_536
"""Most tokens of a batch of transformers, padding included."""
TINY_DOCUMENTS = 12


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured of a model."""

    name: str
    documents: int
    """Timed."""
    rates: dict[str, float]
    """Documents a second by precision, medians."""
    ratio: float
    """fp16 over bf16, the median of pairs."""
    differences: dict[str, dict[str, float]]
    """By precision, and by that of transformers."""
    run_again: int
    """Documents that were not finite in fp16."""
    ranges: dict[str, float | None]
    """The largest weight and activation."""
    reason: str | None
    """Why `auto` does not take fp16."""
    accuracy: float | None = None
    """Of a fine-tuned model, on validation rows."""

    def to_json(self) -> dict[str, Any]:
        """The figures, few digits each."""
        shown = {
            name: None if value is None else float(f"{value:.4g}") for name, value in self.ranges.items()
        }
        return {
            "documents": self.documents,
            "docs_per_second": {name: round(rate) for name, rate in self.rates.items()},
            "fp16_over_bf16": round(self.ratio, 4),
            "differences": self.differences,
            "run_again_in_fp32": self.run_again,
            "largest": shown,
            "auto": "fp16" if self.reason is None else f"bf16: {self.reason}",
            **({} if self.accuracy is None else {"validation_accuracy": round(self.accuracy, 4)}),
        }


def main() -> None:
    """Measure every family, then the fine-tuned models; print the table and the least ratio."""
    flags = parser(__doc__)
    flags.add_argument("--families", nargs="*", help="of those that are known; default all")
    flags.add_argument(
        "--tasks", nargs="*", choices=TASKS, default=list(TASKS), help="recipes to fine-tune for"
    )
    flags.add_argument(
        "--data", type=Path, default=RECIPES / "data", help="folder that recipes/prepare.py filled"
    )
    flags.add_argument("--base", type=Path, help="folder of MiniLM; default the installed package's")
    flags.add_argument("--epochs", type=int, default=2, help="of each fine-tuning")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipes")
    flags.add_argument("--limit", type=int, help="use so many rows of each split at most")
    arguments = flags.parse_args()
    device = chosen_device(arguments)
    chosen = families(tiny=arguments.tiny)
    if unknown := [name for name in arguments.families or () if name not in chosen]:
        raise SystemExit(f"no family {unknown[0]!r}; choose from {', '.join(chosen)}")
    if missing := [
        task for task in arguments.tasks if not (arguments.data / task / "train.parquet").exists()
    ]:
        raise SystemExit(
            f"{arguments.data}: no {missing[0]}/train.parquet; python recipes/prepare.py {missing[0]}; or leave it out"
            " of --tasks"
        )
    began = time.perf_counter()
    found = []
    names = list(chosen) if arguments.families is None else arguments.families
    chosen_models = [chosen[name] for name in names]
    for one in itertools.chain(measured_families(chosen_models, device, arguments), tuned(device, arguments)):
        found.append(one)
        show(one)
    if not found:
        raise SystemExit("nothing to measure; name some --families or --tasks")
    print(table(found))
    print(f"took {time.perf_counter() - began:.0f} s")
    slowest = min(found, key=lambda one: one.ratio)
    finish(
        arguments,
        CLAIM,
        slowest.ratio,
        "ratio",
        f"the same engine in bf16: {slowest.rates['bf16']:,.0f} docs/s with {slowest.name}, the least of "
        f"{len(found)} models",
        details={"rounds": arguments.rounds, "models": {one.name: one.to_json() for one in found}},
    )


def families(*, tiny: bool) -> dict[str, Model]:
    """The families that run packed, each in the size that it is known in; `tiny` shrinks them."""
    known = models(tiny=tiny)
    small = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
    size = small if tiny else {}
    distil = {"dim": 64, "n_layers": 3, "n_heads": 2, "hidden_dim": 128} if tiny else {}
    electra = small if tiny else {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    modern = ModernBertConfig(vocab_size=50368, max_position_embeddings=8192, **size)
    made = {
        "bert-base": (BertConfig(vocab_size=30522, **size), 8_000),
        "roberta-base": (known["roberta-base"].config, 8_000),
        "distilbert": (DistilBertConfig(vocab_size=30522, **distil), 16_000),
        "minilm": (known["minilm"].config, 45_000),
        "electra-small": (ElectraConfig(vocab_size=30522, embedding_size=128, **electra), 30_000),
        "deberta-v3-base": (known["deberta-v3-base"].config, 4_500),
        "modernbert-base": (modern, 6_000),
    }
    for config, _ in made.values():
        config.num_labels = NUM_LABELS
    return {
        name: Model(
            name=name,
            config=config,
            mean_parameter=20 if tiny else 260,
            longest=64 if tiny else 512,
            documents=num_documents,
        )
        for name, (config, num_documents) in made.items()
    }


def measured_families(
    chosen: Sequence[Model], device: torch.device, arguments: argparse.Namespace
) -> Iterator[Found]:
    """The families, one after the other."""
    for model in chosen:
        with tempfile.TemporaryDirectory() as folder:
            bundle = make_bundle(model, Path(folder) / model.name, device)
            corpus = documents(
                TINY_DOCUMENTS if arguments.tiny else model.documents,
                mean_parameter=model.mean_parameter,
                longest=model.longest,
                vocab_size=model.config.vocab_size,
            )
            few = take(corpus, np.arange(min(COMPARED, corpus.num_sequences)))
            yield measured(model.name, bundle, few, corpus, device, arguments)
        free_memory(device)


def tuned(device: torch.device, arguments: argparse.Namespace) -> Iterator[Found]:
    """The fine-tuned models, each trained first."""
    for task in arguments.tasks:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            base = tiny_base(place / "base", arguments) if arguments.tiny else base_folder(arguments)
            recipe = {**read_recipe(task, arguments), "epochs": arguments.epochs}
            settings = TrainSettings(
                base=str(base), out=str(place / task), data=(task,), report_texts=False, **recipe
            )
            train_rows, validation_rows = (
                read_split(arguments, task, split, recipe["task"])[0] for split in ("train", "validation")
            )
            print(
                f"\nfine-tuning for {task}: {train_rows.num_rows:,} rows, {arguments.epochs} epochs",
                flush=True,
            )
            report = fit(settings, train_rows, validation_rows)
            bundle = load_bundle(place / task)
            files = sorted((arguments.data / task).glob("*.parquet"))
            texts = pa.concat_tables([pq.read_table(file, columns=["text"]) for file in files])["text"]
            if arguments.tiny:
                texts = texts.slice(0, TINY_DOCUMENTS)
            few = encoded(texts, encoder_of(bundle, LongDocuments(max_length=settings.max_length)))
            times = 1 if arguments.tiny else -(-TIMED // few.num_sequences)
            corpus = take(few, np.tile(np.arange(few.num_sequences), times))
            accuracy = report.best.metrics["accuracy"]
            yield measured(
                f"MiniLM, {task}",
                place / task,
                few,
                corpus,
                device,
                arguments,
                is_tuned=True,
                accuracy=accuracy,
            )
        free_memory(device)


def encoded(texts: pa.ChunkedArray, encoder: Any) -> Sequences:  # noqa: ANN401 - an Encoder
    """The token ids of texts."""
    column = texts.combine_chunks().cast(pa.large_string())
    rows = SourceRows(start=0, num_rows=len(column), texts=column)
    parts = [
        encoder.views.expand(chunk.tokens.rows).sequences
        for chunk in chunks([rows], encoder, max_tokens=None)
    ]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    flat = np.concatenate([part.flat_ids[part.offsets[0] : part.offsets[-1]] for part in parts])
    return Sequences(flat_ids=flat, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def measured(
    name: str,
    folder: Path,
    few: Sequences,
    corpus: Sequences,
    device: torch.device,
    arguments: argparse.Namespace,
    *,
    is_tuned: bool = False,
    accuracy: float | None = None,
) -> Found:
    """Compare the probabilities of `few` with fp32, then time `corpus`."""
    print(
        f"\n{name}: {corpus.num_sequences:,} documents, mean {np.diff(corpus.offsets).mean():.0f} tokens",
        flush=True,
    )
    ranges = measure_ranges(read_checkpoint(folder), headless=False)
    expected = padded_logits(folder, few, device, "fp32")
    engines = {each: load_engine(folder, device=str(device), precision=each) for each in PRECISIONS}
    differences, run_again = {}, 0
    for precision, engine in engines.items():
        print(f"  {precision}: {engine.description()}", flush=True)
        logits, stats = run_sequences(engine, few, deduplicate=False)
        differences[precision] = compared(logits, expected)
        if precision == "fp16":
            run_again = len(stats.fp32_sequences)
    if is_tuned:
        for precision in PRECISIONS:
            logits = padded_logits(folder, few, device, precision)
            differences[f"transformers, {precision}"] = compared(logits, expected)
    free_memory(device)
    seconds: dict[str, list[float]] = {each: [] for each in PRECISIONS}
    for turn in range(arguments.rounds + 1):
        for precision in PRECISIONS if turn % 2 else PRECISIONS[::-1]:
            took = timed(engines[precision], corpus)
            if turn:  # in the first one every shape is met
                seconds[precision].append(took)
    pairs = zip(seconds["bf16"], seconds["fp16"], strict=True)
    return Found(
        name=name,
        documents=corpus.num_sequences,
        rates={each: corpus.num_sequences / statistics.median(took) for each, took in seconds.items()},
        ratio=statistics.median(slower / faster for slower, faster in pairs),
        differences=differences,
        run_again=run_again,
        ranges=ranges,
        reason=out_of_range(ranges),
        accuracy=accuracy,
    )


def timed(engine: Engine, corpus: Sequences) -> float:
    """Seconds of a pass."""
    began = time.perf_counter()
    run_sequences(engine, corpus, deduplicate=False)
    return time.perf_counter() - began


def padded_logits(
    folder: Path, few: Sequences, device: torch.device, precision: str
) -> npt.NDArray[np.float32]:
    """The logits [N, C] of transformers in a precision."""
    torch.backends.cuda.matmul.allow_tf32 = False
    plain = SortedPadded(
        transformers_model(folder, device, DTYPES[precision]), few, device, max_tokens=PADDED_TOKENS
    )
    plain.run()
    logits = plain.logits()
    del plain
    free_memory(device)
    return logits


def compared(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> dict[str, float]:
    """How far the probabilities of two sets of logits [N, C] are from each other."""
    left, right = softmax(found), softmax(expected)
    largest_N = np.abs(left - right).max(axis=1)
    figures = {
        "max": float(largest_N.max()),
        "99.9%": float(np.quantile(largest_N, 0.999)),
        "99%": float(np.quantile(largest_N, 0.99)),
    }
    agreement = float((left.argmax(axis=1) == right.argmax(axis=1)).mean())
    return {
        **{name: float(f"{value:.3g}") for name, value in figures.items()},
        "labels_agree": round(agreement, 6),
    }


def show(found: Found) -> None:
    """What was measured of a model, some lines."""
    rates = ", ".join(f"{name} {rate:,.0f} docs/s" for name, rate in found.rates.items())
    print(f"  {rates}: fp16 over bf16 {found.ratio:.4f}")
    for name, figures in found.differences.items():
        print(f"  {name:20} " + ", ".join(f"{key} {value:g}" for key, value in figures.items()))
    largest = ", ".join(f"{key} {value or float('nan'):,.4g}" for key, value in found.ranges.items())
    print(
        f"  largest {largest}; auto takes {'fp16' if found.reason is None else f'bf16: {found.reason}'}; "
        f"{found.run_again} documents ran again in fp32",
        flush=True,
    )


def table(found: Sequence[Found]) -> str:
    """All models, in Markdown."""
    lines = [
        "",
        "| | fp16 / bf16 | fp16 docs/s | bf16 docs/s | fp16: max, 99.9%, 99% | bf16 | labels that agree: fp16, bf16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        sides = [
            ", ".join(f"{one.differences[each][key]:.2g}" for key in ("max", "99.9%", "99%"))
            for each in PRECISIONS
        ]
        agree = ", ".join(f"{one.differences[each]['labels_agree']:.5g}" for each in PRECISIONS)
        lines.append(
            f"| {one.name} | {one.ratio:.3f} | {one.rates['fp16']:,.0f} | {one.rates['bf16']:,.0f} | "
            f"{' | '.join(sides)} | {agree} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
