"""What the benchmarks of whole commands share: tokenizers, corpora on disk, `assay` in a process of its own."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from _setup import environment
from _words import FIRST_WORD, SPECIALS, write_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from assay.engine.sequences import Sequences
from assay.runs.run import FOOTER_STATS, open_run, part_path

ROW_GROUP_ROWS = 65_536
_RATE = re.compile(r"([\d,]+(?:\.\d+)?)([MG]?) docs/s")
_READY = re.compile(r"first worker ready after ([\d.]+) s")
_SUFFIXES = {"": 1.0, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, kw_only=True)
class Command:
    """What one `assay` command did."""

    stdout: str
    wall_seconds: float
    """Of the whole command, from its start to its exit."""
    peak_gib: float
    """The largest resident memory of any process that it started."""

    @property
    def docs_per_second(self) -> float:
        """As the command says: documents over the time from the first worker being ready to the last part."""
        found = _RATE.search(self.stdout)
        if found is None:
            raise SystemExit(f"no rate in: {self.stdout}")
        return float(found[1].replace(",", "")) * _SUFFIXES[found[2]]

    @property
    def ready_seconds(self) -> float:
        """From the start of the driver to the first worker being ready."""
        found = _READY.search(self.stdout)
        if found is None:
            raise SystemExit(f"no ready time in: {self.stdout}")
        return float(found[1])


def assay(*words: str | Path, **variables: str) -> Command:
    """Run one command in a process of its own; exits with what it said where it fails."""
    command = [sys.executable, "-m", "assay", *map(str, words)]
    began = time.perf_counter()
    peak = 0
    with subprocess.Popen(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None:
            peak = max(peak, _largest_child(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        stdout, stderr = process.communicate()
    if process.returncode:
        raise SystemExit(f"assay {' '.join(map(str, words))}: {stderr.strip()}")
    return Command(stdout=stdout, wall_seconds=seconds, peak_gib=peak / 2**30)


def _largest_child(pid: int) -> int:
    """Bytes of resident memory of the largest process below this one."""
    sizes = [0]
    with contextlib.suppress(psutil.Error):  # one of them ended meanwhile
        sizes += [child.memory_info().rss for child in psutil.Process(pid).children(recursive=True)]
    return max(sizes)


# ------------------------------------------------------------ tokenizers


def byte_bpe(folder: Path, texts: Sequence[str], vocab_size: int, max_length: int) -> None:
    """A byte-level BPE of RoBERTa's design and size, trained on these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    write_tokenizer(folder, tokenizer, max_length)


# ------------------------------------------------------------ corpora


def write_ids(folder: Path, corpus: Sequences, part_documents: int) -> list[Path]:
    """Token parts: Parquet files of a column `input_ids`, so many documents each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, corpus.num_sequences, part_documents):
        offsets = corpus.offsets[start : start + part_documents + 1]
        flat = corpus.flat_ids[offsets[0] : offsets[-1]]
        lists = pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), pa.array(flat))
        paths.append(folder / f"ids-{start // part_documents:04}.parquet")
        pq.write_table(pa.table({"input_ids": lists}), paths[-1], row_group_size=ROW_GROUP_ROWS)
    return paths


def read_ids(paths: Sequence[str | Path]) -> Sequences:
    """The documents of token parts, in order, as arrays of ids on the host."""
    columns = [pq.read_table(path, columns=["input_ids"])["input_ids"] for path in paths]
    lists = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    lengths = np.concatenate([chunk.value_lengths().to_numpy() for chunk in lists.chunks])
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in lists.chunks])
    return Sequences(flat_ids=flat, offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


def read_texts(path: Path) -> list[str]:
    """The texts of a Parquet file's column `text`, of a text file, or of the text files in a folder."""
    if path.suffix in {".parquet", ".pq"}:
        return [text for text in pq.read_table(path, columns=["text"])["text"].to_pylist() if text]
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    return [file.read_text(encoding="utf-8", errors="replace") for file in files]


def cut_texts(
    texts: Sequence[str], num_documents: int, *, mean_words: float, most_words: int, seed: int = 0
) -> Iterator[str]:
    """Distinct documents of real text: runs of words from random places, their lengths log-normal."""
    words = " ".join(texts).split()
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.standard_normal(num_documents) * 0.8 + np.log(mean_words) - 0.32)
    lengths = np.clip(lengths, 6, min(most_words, len(words))).astype(np.int64)
    starts = (generator.random(num_documents) * (len(words) - lengths + 1)).astype(np.int64)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        yield " ".join(words[start : start + length])


def made_up_texts(corpus: Sequences) -> list[str]:
    """The documents in the words of `word_tokenizer`."""
    offsets = corpus.offsets.tolist()
    return [
        " ".join(f"w{max(FIRST_WORD, int(number))}" for number in corpus.flat_ids[start:stop])
        for start, stop in pairwise(offsets)
    ]


def write_texts(folder: Path, texts: Sequence[str], part_documents: int) -> list[Path]:
    """Parquet files of a column `text`, so many documents each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(texts), part_documents):
        paths.append(folder / f"text-{start // part_documents:04}.parquet")
        table = pa.table({"text": pa.array(texts[start : start + part_documents], pa.large_string())})
        pq.write_table(table, paths[-1], row_group_size=8192)
    return paths


# ------------------------------------------------------------ what a run left


def run_files(url: str | Path) -> list[str]:
    """The part files of a run, in the order of its rows."""
    run = open_run(str(url))
    return [f"{run.url}/{part_path(unit)}" for unit in run.manifest.units()]


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker did of a run, as the footers of its parts say."""

    worker: str
    num_rows: int
    started_at: float
    """When it took up its first unit, unix seconds."""
    finished_at: float
    """When it was done with its last."""

    @property
    def docs_per_second(self) -> float:
        """From its first unit to its last, other workers aside."""
        return self.num_rows / (self.finished_at - self.started_at)


def shares_of(url: str | Path) -> list[Share]:
    """What each worker did of a run, by name."""
    found: dict[str, list[dict[str, float]]] = {}
    for path in run_files(url):
        figures = json.loads(pq.read_metadata(path).metadata[FOOTER_STATS])
        found.setdefault(figures["worker"], []).append(figures)
    return [
        Share(
            worker=worker,
            num_rows=sum(int(part["num_rows"]) for part in parts),
            started_at=min(part["started_at"] for part in parts),
            finished_at=max(part["finished_at"] for part in parts),
        )
        for worker, parts in sorted(found.items())
    ]


def first_scores(url: str | Path) -> np.ndarray:
    """The first score column of a run, in the order of its rows, null where a row has an error."""
    tables = [pq.read_table(path) for path in run_files(url)]
    table = pa.concat_tables(tables)
    name = next(field.name for field in table.schema if pa.types.is_floating(field.type))
    first = next((each for each in table.column_names if each.startswith("prob_")), name)
    return table[first].to_numpy()
