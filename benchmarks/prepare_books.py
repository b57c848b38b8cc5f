"""Books to pairs on two cores: `assay prepare books` against the usual way with spaCy, both from start to files.

Books: the `.txt` files of `--english` and of `--polish`. Ours is the whole command with its defaults, from the start of
its first process to its report; the usual way is `_reference_pairs.py`, a process a core as well. Runs alternate. The
value is the ratio of the medians of CPU time, of all processes together, since a machine that is busy with other things
changes it little; the ratio of the times on the clock stands beside it.

Both read the books, cut them into sentences and these into windows of 14 every 10, drop short ones, take at most 800 of
a book, drop equal ones by hash, split the books, draw 20 positives and 40 negatives a book, and write Parquet.
Only ours: removes what a publisher puts around a text, finds out languages and checks chunks for them (the other is
told them, and looks at English alone), normalises typography, finds editions, shared passages and near-duplicates,
never splits an author, keeps positives apart (the other's may overlap), draws negatives of one length and time too,
measures leaks, keeps what it made in a way that survives a kill, writes a report.
Only the other: drops sentences of 20 characters or fewer.
Ours keeps an unpacked language model in the user's cache: the first round finds the cache empty, the later ones do not.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _record import FOLDER, finish, parser, versions


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of one run, its processes together."""

    cpu_seconds: float
    wall_seconds: float


def cost_of(command: list[str], cache: Path) -> Cost:
    """Run a command with a cache of its own; raises SystemExit with what it said where it fails."""
    # As for a user, whose Python keeps compiled modules.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["XDG_CACHE_HOME"] = str(cache)
    with tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}: {said.read()[-2000:]}")
    return Cost(cpu_seconds=usage.ru_utime + usage.ru_stime, wall_seconds=seconds)


def median(costs: list[Cost]) -> Cost:
    """The medians of both times."""
    return Cost(
        cpu_seconds=statistics.median(cost.cpu_seconds for cost in costs),
        wall_seconds=statistics.median(cost.wall_seconds for cost in costs),
    )


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__, smoke="two books of a language")
    flags.add_argument("--english", type=Path, required=True, help="folder of .txt files")
    flags.add_argument("--polish", type=Path, required=True, help="folder of .txt files")
    flags.add_argument("--cores", type=int, default=2, help="processes of each side")
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_args()
    folders = {"en": arguments.english, "pl": arguments.polish}

    costs: dict[str, list[Cost]] = {"ours": [], "spaCy": []}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "all").mkdir()
        size_bytes = num_books = 0
        for language, folder in folders.items():
            paths = sorted(folder.glob("*.txt"))
            if not paths:
                raise SystemExit(f"{folder} has no .txt file; give a folder of books")
            (place / language).mkdir()
            for path in paths[:: max(1, len(paths) // 2)] if arguments.tiny else paths:
                shutil.copy(path, place / language)
                shutil.copy(path, place / "all")
                size_bytes += path.stat().st_size
                num_books += 1
        cores = str(arguments.cores)
        told = [f"{place / language}:{language}" for language in folders]
        by_book = ["--split-by", "book"] if arguments.tiny else []
        for number in range(1 if arguments.tiny else arguments.rounds):
            ours, theirs = place / f"ours-{number}", place / f"theirs-{number}"
            words = ["prepare", "books", str(place / "all"), "--out", str(ours), "--devices", cores]
            commands = {
                "ours": [sys.executable, "-m", "assay", *words, *by_book],
                "spaCy": [sys.executable, str(FOLDER / "_reference_pairs.py"), str(theirs), cores, *told],
            }
            for name, command in commands.items():
                costs[name].append(cost_of(command, place / "cache"))
                cost = costs[name][-1]
                print(
                    f"round {number + 1}  {name:6s} {cost.cpu_seconds:7.1f} s of CPU time, "
                    f"{cost.wall_seconds:7.1f} s on the clock",
                    flush=True,
                )
            report = json.loads((ours / "report.json").read_text())
    ours_cost, baseline = median(costs["ours"]), median(costs["spaCy"])
    splits = report["splits"].values()
    print(
        f"{num_books} books, {size_bytes / 1e6:.1f} MB, {sum(each['pairs'] for each in splits):,} pairs of ours"
    )
    spacy = versions("spacy")["spacy"]
    finish(
        "cpu.prepare_books_vs_reference_path",
        baseline.cpu_seconds / ours_cost.cpu_seconds,
        "ratio",
        f"spaCy {spacy} sentencizer, windows, SHA-1, pairs, {cores} processes: "
        f"{baseline.cpu_seconds:.1f} s of CPU time",
        packages=("assay", "spacy", "numpy", "pyarrow"),
        details={
            "cpu_seconds": round(ours_cost.cpu_seconds, 1),
            "wall_ratio": round(baseline.wall_seconds / ours_cost.wall_seconds, 2),
            "wall_seconds": round(ours_cost.wall_seconds, 1),
            "baseline_wall_seconds": round(baseline.wall_seconds, 1),
            "ratios_by_round": [
                round(theirs.cpu_seconds / ours.cpu_seconds, 2)
                for ours, theirs in zip(costs["ours"], costs["spaCy"], strict=True)
            ],
            "books": num_books,
            "megabytes": round(size_bytes / 1e6, 1),
            "cores": arguments.cores,
        },
        record=arguments.record,
        trial=arguments.tiny,
    )


if __name__ == "__main__":
    main()
