"""N GPUs of one host against one of them, end to end: `assay score`, each GPU with as many documents in both.

    python benchmarks/gpu/scaling.py --record
    python benchmarks/gpu/scaling.py --executors static ray --record
    python benchmarks/gpu/scaling.py --devices 8 --sources ids text --text-corpus novels.parquet --record
    python benchmarks/gpu/scaling.py --devices 8 --sources short --text-corpus novels.parquet --tokenizer MINILM

Sources:
  ids    token parts of distinct random documents, RoBERTa-base, mean 228 tokens
  text   runs of words from the corpus given, RoBERTa-base, about the same lengths; tokenized in the workers
  short  the same, MiniLM, mean 68 tokens: from files of texts to files of scores

Executors:
  local   one command, `--devices N`
  static  N commands on one run, `--executor static --rank K --world-size N`, each sees one GPU alone
  ray     one command, `--executor ray`, on a Ray cluster of this machine, started before its time begins

Sides take turns, one GPU first. One GPU scores the first of N equal shares of the files, so that both sides last
about as long and what starts and ends costs both alike. The rate is documents over the time from the first unit that
any worker took up to the end of the last, by the footers of the parts; the value is the median over rounds of the
rate of N over that of one. Printed apart: seconds from the start of the command to each worker's first unit, the rate
of each worker between its first unit and its last, and what workers wait at the end for the last of them (the tail, as
a share of their time, which ought to be below 1%). Before that, both sides score a tenth and the scores are compared.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _runs import (
    Share,
    assay,
    byte_bpe,
    cut_texts,
    first_scores,
    made_up_texts,
    read_texts,
    shares_of,
    write_ids,
    write_texts,
)
from _setup import Model, chosen_device, documents, environment, finish, make_bundle, models, parser
from _start_ray import cluster
from _words import word_tokenizer
from tokenizers import Tokenizer

from assay import machine

EXECUTORS = ("local", "static", "ray")
FILES_A_DEVICE = 10
"""One of them is a tenth, on which the scores are compared."""
UNITS_A_DEVICE = 80
"""A worker waits for about half a unit at the end."""
MOST_TAIL = 0.01
TOLERANCE = 0.02
TINY_DOCUMENTS = 400
SAMPLE_WORDS = 100_000
MOST_WRITERS = 16


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is scored, and what is claimed of it."""

    model: str
    documents: int
    """A device."""
    mean_tokens: float
    most_words: int
    claim: str
    """Of the local executor, by the number of devices."""


SOURCES = {
    "ids": Source(
        model="roberta-base",
        documents=500_000,
        mean_tokens=228,
        most_words=600,
        claim="h100x{}.score_scaling",
    ),
    "text": Source(
        model="roberta-base",
        documents=500_000,
        mean_tokens=228,
        most_words=600,
        claim="h100x{}.score_text_scaling",
    ),
    "short": Source(
        model="minilm",
        documents=2_000_000,
        mean_tokens=68,
        most_words=300,
        claim="h100x{}.minilm_68_tokens_scaling",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One run of so many devices."""

    num_documents: int
    wall_seconds: float
    """Of the command, or of the slowest of several."""
    began_at: float
    """When they were started, unix seconds."""
    shares: list[Share]

    @property
    def seconds(self) -> float:
        """From the first unit taken up to the last one done."""
        return max(share.finished_at for share in self.shares) - min(
            share.started_at for share in self.shares
        )

    @property
    def docs_per_second(self) -> float:
        """Over that time."""
        return self.num_documents / self.seconds

    @property
    def starts(self) -> list[float]:
        """Seconds from the start of the command to the first unit of each worker."""
        return [share.started_at - self.began_at for share in self.shares]

    @property
    def tail(self) -> float:
        """What workers wait at the end for the last of them, as a share of the time of all."""
        last = max(share.finished_at for share in self.shares)
        return sum(last - share.finished_at for share in self.shares) / (self.seconds * len(self.shares))

    def report(self, name: str) -> None:
        """Print its figures, start-up, rates and tail apart."""
        rates = [share.docs_per_second for share in self.shares]
        print(
            f"  {name:18} {self.docs_per_second:10,.0f} docs/s; first unit after {min(self.starts):.1f} to "
            f"{max(self.starts):.1f} s; each {min(rates):,.0f} to {max(rates):,.0f} docs/s, in sum "
            f"{sum(rates):,.0f}; tail {self.tail:.2%}; whole command {self.wall_seconds:.1f} s",
            flush=True,
        )


def main() -> None:
    """Measure, compare, print."""
    flags = parser(__doc__)
    flags.add_argument("--devices", type=int, default=2, help="GPUs, or on a CPU processes of one thread")
    flags.add_argument("--sources", nargs="+", choices=SOURCES, default=["ids"])
    flags.add_argument("--executors", nargs="+", choices=EXECUTORS, default=["local"])
    flags.add_argument("--documents", type=int, help="of a device; by default half a minute of it or more")
    flags.add_argument("--precision", default="bf16")
    flags.add_argument("--unit-rows", type=int, help=f"by default {UNITS_A_DEVICE} units a device")
    flags.add_argument("--rounds", type=int, default=2)
    flags.add_argument(
        "--text-corpus", type=Path, help="Parquet with a column text, a text file, or a folder"
    )
    flags.add_argument(
        "--tokenizer", type=Path, help="directory of a tokenizer.json; ids below the model's size"
    )
    arguments = flags.parse_args()
    device = chosen_device(arguments, num_gpus=arguments.devices)
    if device.type == "cpu":
        arguments.precision = "fp32"
    if arguments.devices < 2:
        raise SystemExit(
            f"--devices {arguments.devices}: there is nothing to compare one with; take 2 or more"
        )
    for name in arguments.sources:
        if name != "ids" and arguments.text_corpus is None and not arguments.tiny:
            raise SystemExit(f"--sources {name} needs real text; give it with --text-corpus")
    for name in arguments.sources:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, SOURCES[name], Path(folder), arguments)


def measure(name: str, source: Source, place: Path, arguments: argparse.Namespace) -> None:
    """Make bundle and corpus of a source, let the sides take turns, print the claims."""
    model = models(tiny=arguments.tiny)[source.model]
    each = arguments.documents or (TINY_DOCUMENTS if arguments.tiny else source.documents)
    each -= each % FILES_A_DEVICE
    bundle = make_bundle(model, place / "bundle", chosen_device(arguments))
    files = write_corpus(name, source, model, bundle, each, place / "corpus", arguments)
    flags: list[str | Path] = ["--bundle", bundle, "--precision", arguments.precision]
    flags += ["--unit-rows", str(arguments.unit_rows or -(-each // UNITS_A_DEVICE))]
    if name == "ids":
        flags += ["--input-ids-column", "input_ids"]
    if arguments.device == "cpu":
        flags += ["--num-threads", "1"]
    runs = iter(range(1_000_000))

    def side(executor: str, num_devices: int, files: Sequence[Path]) -> tuple[Side, Path]:
        run = place / f"run{next(runs)}"
        began_at, began = time.time(), time.perf_counter()
        start = {"local": local, "static": static, "ray": on_ray}[executor]
        seconds = start([*files, "--run", run, *flags], num_devices)
        shares = shares_of(run)
        if len(shares) != num_devices and not arguments.tiny:
            raise SystemExit(
                f"{len(shares)} workers made the parts, of {num_devices} devices; nothing is timed"
            )
        done = Side(
            num_documents=sum(share.num_rows for share in shares),
            wall_seconds=seconds or time.perf_counter() - began,
            began_at=began_at,
            shares=shares,
        )
        return done, run

    tenth = files[::FILES_A_DEVICE]
    expected = first_scores(side("local", 1, tenth)[1])
    for executor in arguments.executors:
        found = first_scores(side(executor, arguments.devices, tenth)[1])
        difference = float(np.abs(found - expected).max()) if len(found) == len(expected) else float("nan")
        print(f"{name}, {executor}: {len(found):,} documents; largest difference of a score {difference:.1e}")
        if not difference <= TOLERANCE:
            raise SystemExit(
                f"{executor} on {arguments.devices} devices: not the scores of one; nothing is timed"
            )
    rounds: list[dict[str, Side]] = []
    for _ in range(arguments.rounds):
        found_sides = {"one": side("local", 1, files[:FILES_A_DEVICE])[0]}
        found_sides["one"].report("one device")
        for executor in arguments.executors:
            found_sides[executor] = side(executor, arguments.devices, files)[0]
            found_sides[executor].report(f"{arguments.devices} devices, {executor}")
        rounds.append(found_sides)
    for executor in arguments.executors:
        finish_claim(source, executor, rounds, each, arguments)


# ---------------------------------------------------------------- the sides


def local(words: Sequence[str | Path], num_devices: int) -> float:
    """Seconds of one command with so many workers."""
    return assay("score", *words, "--devices", str(num_devices)).wall_seconds


def static(words: Sequence[str | Path], num_devices: int) -> float:
    """Seconds of as many commands on one run, each of which sees one device alone."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(number) for number in range(num_devices)]

    def command(rank: int) -> float:
        place = ["--executor", "static", "--rank", str(rank), "--world-size", str(num_devices)]
        return assay(
            "score", *words, *place, "--devices", "1", CUDA_VISIBLE_DEVICES=visible[rank]
        ).wall_seconds

    with ThreadPoolExecutor(num_devices) as pool:
        return max(pool.map(command, range(num_devices)))


def on_ray(words: Sequence[str | Path], num_devices: int) -> float:
    """Seconds of one command whose workers a Ray cluster of this machine runs."""
    import torch

    num_gpus = torch.cuda.device_count()
    num_cpus = max(machine.usable_cores(), num_devices)
    with cluster(num_cpus, num_gpus, environment=environment()) as (address, _):
        place = ["--executor", "ray", "--ray-address", address, "--devices", str(num_devices)]
        return assay("score", *words, *place).wall_seconds


# ---------------------------------------------------------------- the corpus


def write_corpus(
    name: str,
    source: Source,
    model: Model,
    bundle: Path,
    each: int,
    folder: Path,
    arguments: argparse.Namespace,
) -> list[Path]:
    """Files of a source for all devices, those of the first device first; the bundle gets its tokenizer."""
    num_documents, part = each * arguments.devices, each // FILES_A_DEVICE
    if name == "ids" or arguments.text_corpus is None:
        word_tokenizer(bundle, model.config.vocab_size, model.longest)
        corpus = documents(
            num_documents,
            mean_parameter=model.mean_parameter if name == "ids" else source.mean_tokens,
            longest=model.longest,
            vocab_size=model.config.vocab_size,
        )
        if name == "ids":
            return write_ids(folder, corpus, part)
        return write_texts(folder, made_up_texts(corpus), part)
    texts = read_texts(arguments.text_corpus)
    if arguments.tokenizer is None:
        byte_bpe(bundle, texts, model.config.vocab_size, model.longest)
    else:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if (arguments.tokenizer / file).exists():
                (bundle / file).write_bytes((arguments.tokenizer / file).read_bytes())
    words = " ".join(texts).split()
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_truncation()
    sample = words[:SAMPLE_WORDS]
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    tokens_a_word = len(tokenizer.encode(" ".join(sample), add_special_tokens=False).ids) / len(sample)
    mean_words = (source.mean_tokens - special) / tokens_a_word
    print(
        f"{name}: {tokens_a_word:.2f} tokens a word, so documents of {mean_words:.0f} words in the mean",
        flush=True,
    )
    folder.mkdir()
    write = partial(write_part, num_documents=part, mean_words=mean_words, most_words=source.most_words)
    paths = [folder / f"{number:06}" for number in range(FILES_A_DEVICE * arguments.devices)]
    # fresh processes: this one may hold a device
    with ProcessPoolExecutor(
        min(MOST_WRITERS, machine.usable_cores()),
        mp_context=get_context("spawn"),
        initializer=open_corpus,
        initargs=(arguments.text_corpus,),
    ) as pool:
        return list(pool.map(write, paths, range(len(paths))))


def open_corpus(path: Path) -> None:
    """Read the corpus, once in a process that writes parts of it."""
    _corpus.extend(read_texts(path))


_corpus: list[str] = []


def write_part(folder: Path, seed: int, *, num_documents: int, mean_words: float, most_words: int) -> Path:
    """A file of real texts, distinct for each seed."""
    made = cut_texts(_corpus, num_documents, mean_words=mean_words, most_words=most_words, seed=seed)
    return write_texts(folder, list(made), num_documents)[0]


# ---------------------------------------------------------------- the claims


def finish_claim(
    source: Source,
    executor: str,
    rounds: Sequence[dict[str, Side]],
    each: int,
    arguments: argparse.Namespace,
) -> None:
    """The result line of an executor; for short texts that of the rate too."""
    one, several = [found["one"] for found in rounds], [found[executor] for found in rounds]
    ratio = statistics.median(
        b.docs_per_second / a.docs_per_second for a, b in zip(one, several, strict=True)
    )
    rate = statistics.median(side.docs_per_second for side in several)
    tail = statistics.median(side.tail for side in several)
    if tail > MOST_TAIL and not arguments.tiny:
        print(
            f"the tail weighs {tail:.1%}, over {MOST_TAIL:.0%}: give more --documents, or fewer --unit-rows"
        )
    last = several[-1]
    details = {
        "devices": arguments.devices,
        "documents_a_device": each,
        "precision": arguments.precision,
        "docs_per_second": round(rate, 1),
        "docs_per_second_by_device": [round(share.docs_per_second, 1) for share in last.shares],
        "ratio_of_device_rates": float(
            f"{statistics.median(rates_ratio(a, b) for a, b in zip(one, several, strict=True)):.4g}"
        ),
        "first_units_after_seconds": [round(seconds, 1) for seconds in last.starts],
        "tail_share": round(tail, 5),
        "whole_command_seconds": [round(side.wall_seconds, 1) for side in several],
        "one_device_whole_command_seconds": [round(side.wall_seconds, 1) for side in one],
    }
    claim = source.claim if executor == "local" else f"h100x{{}}.fleet_{executor}_scaling"
    if executor != "local" and source is not SOURCES["ids"]:
        claim += f"_{source.claim.partition('.')[2].removesuffix('_scaling')}"
    baseline = statistics.median(side.docs_per_second for side in one)
    finish(
        arguments,
        claim.format(arguments.devices),
        ratio,
        "ratio",
        f"one device: {baseline:,.0f} docs/s",
        ceiling=f"{arguments.devices}",
        details=details,
    )
    if source is SOURCES["short"] and executor == "local":
        finish(
            arguments,
            f"h100x{arguments.devices}.minilm_68_tokens_docs_per_second",
            rate,
            "docs/s",
            f"one device: {baseline:,.0f} docs/s",
            details=details,
        )


def rates_ratio(one: Side, several: Side) -> float:
    """The rates of several devices in sum, each over its own time, over that of one: without starts and tail."""
    return sum(share.docs_per_second for share in several.shares) / one.docs_per_second


if __name__ == "__main__":
    main()
