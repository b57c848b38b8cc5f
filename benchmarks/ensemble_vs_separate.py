"""Three fine-tuned MiniLM classifiers as one bundle, against three scoring runs and a join of their columns.

    python benchmarks/ensemble_vs_separate.py --record

Both sides read the same Parquet file of news texts, with one worker of one thread; the separate side is what one does
without an ensemble: three `assay score` runs and the mean of their columns. In turn, both sides in each round; the
value is the median ratio of wall times. The head of each member is random: its numbers do not matter for time.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from _record import finish, parser
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from assay.train.corpus import base_model_folder, load_corpus

CLAIM = "cpu.ensemble_minilm_3_vs_separate"
TOLERANCE = 1e-5
LABELS = ("business", "politics", "sport", "tech", "world")


def make_members(folder: Path, count: int) -> list[Path]:
    """MiniLM encoders with heads of their own, as transformers folders."""
    base = base_model_folder()
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(LABELS))
        model.config.id2label = dict(enumerate(LABELS))
        model.config.label2id = {label: k for k, label in enumerate(LABELS)}
        out = folder / f"member{seed}"
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(base).save_pretrained(out)
        found.append(out)
    return found


def make_source(path: Path, num_rows: int) -> Path:
    """BBC News articles as often as it takes, each row a text of its own."""
    texts = [row.text for row in load_corpus().rows]
    rows = [f"{k} {texts[k % len(texts)]}" for k in range(num_rows)]
    pq.write_table(pa.table({"id": range(num_rows), "text": rows}), path)
    return path


def run(*words: str) -> float:
    """Seconds of a command, from a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "assay", *words], check=True, capture_output=True, env=environment)
    return time.perf_counter() - began


def score(source: Path, bundle: Path, out: Path, max_length: int) -> float:
    """Seconds of one scoring run."""
    shutil.rmtree(out, ignore_errors=True)
    flags = ("--devices", "1", "--parity-documents", "0", "--max-length", str(max_length))
    return run("score", str(source), "--bundle", str(bundle), "--run", str(out), *flags)


def probabilities(folder: Path) -> np.ndarray:
    """The probability columns of a run, in the order of its rows."""
    table = pa.concat_tables([pq.read_table(file) for file in (folder / "parts").glob("*.parquet")])
    table = table.sort_by("id")
    return np.stack([table[f"prob_{label}"].to_numpy() for label in LABELS], axis=1)


def main() -> None:
    """Measure, compare the numbers, print a line of JSON."""
    flags = parser(__doc__, smoke="64 rows, one round")
    flags.add_argument("--rows", type=int, default=2_000)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--max-length", type=int, default=128)
    arguments = flags.parse_args()
    num_rows, rounds = (64, 1) if arguments.tiny else (arguments.rows, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        members = make_members(place, 3)
        source = make_source(place / "source.parquet", num_rows)
        run("ensemble", "build", str(place / "ensemble"), "--members", ",".join(map(str, members)))
        together, apart = [], []
        for _ in range(rounds):
            together.append(score(source, place / "ensemble", place / "run", arguments.max_length))
            began = time.perf_counter()
            for k, member in enumerate(members):
                score(source, member, place / f"run{k}", arguments.max_length)
            mean = np.mean([probabilities(place / f"run{k}") for k in range(len(members))], axis=0)
            apart.append(time.perf_counter() - began)
        difference = float(np.abs(mean - probabilities(place / "run")).max())
    if difference > TOLERANCE:
        raise SystemExit(f"probabilities differ by {difference:g}, which is more than {TOLERANCE:g}")
    ratios = [one / other for one, other in zip(apart, together, strict=True)]
    finish(
        CLAIM,
        statistics.median(ratios),
        "times the speed",
        f"three scoring runs and the mean of their columns: {statistics.median(apart):.1f} s",
        packages=("assay", "torch", "transformers", "tokenizers"),
        details={
            "rows": num_rows,
            "max_length": arguments.max_length,
            "seconds_together": [round(each, 2) for each in together],
            "seconds_apart": [round(each, 2) for each in apart],
            "ratios": [round(each, 3) for each in ratios],
            "max_abs_probability_difference": difference,
            "load_average": round(os.getloadavg()[0], 1),
        },
        record=arguments.record,
        trial=arguments.tiny,
    )


if __name__ == "__main__":
    main()
