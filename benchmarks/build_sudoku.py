"""Sudokus of one solution, made: puzzles a second of one core, against qqwing (Debian: `apt install qqwing`).

Both make puzzles from which no given can be taken away; that is checked on what qqwing printed, too. Ours are solved
once more, to count guesses; qqwing is asked for puzzles alone, of any difficulty. Time is CPU time, of this process and
of qqwing's, since other programs may keep the cores busy; rounds alternate, and the value is the median of ours. Our
solver is compiled before. The load average of the machine is recorded, since caches are shared with whatever else runs.
Where qqwing is missing, the line says so.
"""

import os
import resource
import shutil
import statistics
import subprocess
import time

import numpy as np
from _record import finish, parser

from assay.sudoku.canonical import canonical_forms
from assay.sudoku.grids import NUM_CELLS, num_givens, tokens_of
from assay.sudoku.search import Made, make, solve


def our_rate(seed: int, count: int) -> tuple[float, Made]:
    """Puzzles a second of CPU time, and the puzzles."""
    begin = time.process_time()
    made = make(seed, 0, count)
    return count / (time.process_time() - begin), made


def their_rate(qqwing: str, count: int) -> tuple[float, list[str]]:
    """The same of qqwing."""
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [qqwing, "--generate", str(count), "--one-line"], capture_output=True, text=True, check=True
    )
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
    return count / seconds, [line for line in done.stdout.split() if len(line) == NUM_CELLS]


def is_minimal(puzzle: np.ndarray) -> bool:
    """Whether a puzzle has one solution, and several without any one of its givens."""
    givens = np.flatnonzero(puzzle > 1)
    reduced = np.repeat(puzzle[None], len(givens), axis=0)
    reduced[np.arange(len(givens)), givens] = 1
    return bool(solve(puzzle[None]).num_solutions[0] == 1 and (solve(reduced).num_solutions == 2).all())


def canonical_rate(made: Made) -> float:
    """Canonical forms a second of CPU time."""
    begin = time.process_time()
    canonical_forms(made.labels)
    return len(made.labels) / (time.process_time() - begin)


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__, smoke="a hundredth of the puzzles")
    flags.add_argument("--puzzles", type=int, default=4000, help="puzzles a round; qqwing makes a twentieth")
    flags.add_argument("--rounds", type=int, default=5)
    arguments = flags.parse_args()
    count = max(20, arguments.puzzles // (100 if arguments.tiny else 1))
    qqwing = shutil.which("qqwing")
    canonical_forms(solve(make(0, 0, 1).inputs).solutions)

    ours: list[float] = []
    theirs: list[float] = []
    made: list[Made] = []
    lines: list[str] = []
    for seed in range(arguments.rounds):
        rate, some = our_rate(seed, count)
        ours.append(rate)
        made.append(some)
        if qqwing is not None:
            rate, printed = their_rate(qqwing, max(1, count // 20))
            theirs.append(rate)
            lines += printed
    guesses = np.concatenate([some.guesses for some in made])
    details: dict[str, object] = {
        "puzzles": len(guesses),
        "rates": [round(rate) for rate in ours],
        "givens": round(float(np.mean([num_givens(some.inputs).mean() for some in made])), 2),
        "guesses_median_p90_p99": [int(value) for value in np.quantile(guesses, [0.5, 0.9, 0.99])],
        "share_without_guesses": round(float((guesses == 0).mean()), 3),
        "share_of_10_guesses_or_more": round(float((guesses >= 10).mean()), 3),
        "share_of_30_guesses_or_more": round(float((guesses >= 30).mean()), 4),
        "canonical_forms_a_second": round(canonical_rate(made[0])),
        "load_average": round(os.getloadavg()[0], 1),
    }
    baseline = "qqwing is not installed"
    if theirs:
        puzzles = tokens_of(lines)
        baseline = f"qqwing, any difficulty: {statistics.median(theirs):.0f}"
        details |= {
            "qqwing_rates": [round(rate) for rate in theirs],
            "qqwing_puzzles": len(puzzles),
            "qqwing_givens": round(float(num_givens(puzzles).mean()), 2),
            "qqwing_minimal": sum(map(is_minimal, puzzles)),
        }
    finish(
        "cpu.sudoku_puzzles_per_second_core",
        statistics.median(ours),
        "puzzles/s of CPU time",
        baseline,
        packages=("numba", "numpy"),
        details=details,
        record=arguments.record,
        trial=arguments.tiny,
    )


if __name__ == "__main__":
    main()
