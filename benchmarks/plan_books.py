"""`assay prepare books` on 50,000 books: planned in seconds, host memory as on 500.

The books are made up: common English words, 60 to 180 sentences each (about 10 kB), five books an author, no two
sentences alike. Planning is the listing of the folder and the plan of the chunks run, in a process of its own, from its
first import to its end. Memory is the whole of `assay prepare books` from its start to its report, driver and workers
together, looked at 20 times a second: the largest sum of their proportional shares of anonymous and shared memory
(`whole`), the largest share of the driver and of a worker, and for information the sum with the pages of mapped files,
which the kernel may drop (`with_files`). The claim is the ratio of `whole`, many books to few, the memory that the
host has to have; those of the driver and of the largest worker stand in the details.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from _record import finish, parser

WORDS = (  # noqa: SIM905  as prose it can be read
    "the of and a to in he was that it his her with as had she for at on by not be but him they from which all "
    "this were one so there been or when out would no their an my what could into then them more now some who up "
    "very little time man day night house hand old face eye door room life head way good long great young thought "
    "came went said looked turned heard knew saw made found left stood took told asked never only before after "
    "again down over still here where through might must should upon any well much own other such first last"
).split()
BOOKS_AN_AUTHOR = 5
SENTENCES = (60, 180)
PLAN = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from assay.prepare.chunks.plan import plan_chunks
from assay.prepare.chunks.settings import ChunkRules
from assay.prepare.listing import list_books
source, out = Path(sys.argv[1]), Path(sys.argv[2])
listing = list_books(str(source), None, out)
manifest = plan_chunks(ChunkRules(), listing.path)
print(time.perf_counter() - started, time.process_time(), manifest.planned_rows, len(manifest.units()))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """Memory of a command, in bytes."""

    whole: int
    with_files: int
    driver: int
    worker: int
    seconds: float


def write_books(folder: Path, num_books: int) -> int:
    """So many books below a folder, each in that of its author; returns their bytes."""
    total = 0
    for number in range(num_books):
        author = number // BOOKS_AN_AUTHOR
        rng = random.Random(f"{number}")
        place = folder / f"{_name(author)} Writer"
        if number % BOOKS_AN_AUTHOR == 0:
            place.mkdir(parents=True)
        lines = []
        for _ in range(rng.randint(*SENTENCES)):
            words = rng.choices(WORDS, k=rng.randint(8, 22))
            lines.append(f"{words[0].capitalize()} {' '.join(words[1:])}.")
        text = "\n".join([f"Book {number}", "", *lines, ""])
        total += (place / f"Story {number}.txt").write_text(text)
    return total


def _name(number: int) -> str:
    """A name of its own for each number, of letters alone: digits tell no authors apart."""
    letters = ""
    for _ in range(5):
        number, letter = divmod(number, 26)
        letters += chr(ord("a") + letter)
    return letters.capitalize()


def peak(command: list[str]) -> Peak:
    """The memory of a command and of all processes that it starts, while it runs."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        driver = subprocess.Popen(command, stdout=said, stderr=said)
        whole = with_files = in_driver = in_worker = 0
        while driver.poll() is None:
            found = [_memory(each) for each in _family(driver.pid)]
            whole = max(whole, sum(each[0] for each in found))
            with_files = max(with_files, sum(each[1] for each in found))
            in_driver = max(in_driver, *(each[0] for each in found[:1]), 0)
            in_worker = max(in_worker, *(each[0] for each in found[1:]), 0)
            time.sleep(0.05)
        if driver.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}: {said.read()[-2000:]}")
    seconds = time.perf_counter() - started
    return Peak(whole=whole, with_files=with_files, driver=in_driver, worker=in_worker, seconds=seconds)


def _family(pid: int) -> list[int]:
    try:
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _memory(pid: int) -> tuple[int, int]:
    """Memory of its own, and with mapped files; 0 for a process that is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    own = _kilobytes(rollup, "Pss_Anon:") + _kilobytes(rollup, "Pss_Shmem:")
    return own, _kilobytes(rollup, "Pss:")


def _kilobytes(text: str, name: str) -> int:
    found = [line.split()[1] for line in text.splitlines() if line.startswith(name)]
    return int(found[0]) * 1024 if found else 0


def main() -> None:
    """Make the books, plan, prepare few and many, print both claims."""
    flags = parser(__doc__, smoke="50 and 200 books")
    flags.add_argument("--planned", type=int, default=50_000, help="books that are planned")
    flags.add_argument("--small", type=int, default=500)
    flags.add_argument("--large", type=int, default=50_000)
    flags.add_argument("--devices", type=int, default=2, help="worker processes")
    flags.add_argument("--scratch", help="folder for the books and what is made of them")
    arguments = flags.parse_args()
    planned, small, large = arguments.planned, arguments.small, arguments.large
    if arguments.tiny:
        planned, small, large = 200, 50, 200
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        place = Path(scratch)
        sizes = {}
        for count in sorted({planned, small, large}):
            sizes[count] = write_books(place / f"books-{count}", count)
            print(f"{count:>8,} books made, {sizes[count] / 1e6:,.1f} MB", flush=True)
        command = [sys.executable, "-c", PLAN, str(place / f"books-{planned}"), str(place / "books.arrow")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, cpu_seconds, rows, units = done.stdout.split()
        print(
            f"{int(rows):>8,} books planned as {units} units in {float(seconds):.2f} s, "
            f"{float(cpu_seconds):.2f} s of them on the processor",
            flush=True,
        )
        peaks = {}
        for count in (small, large):
            books, out = place / f"books-{count}", place / f"out-{count}"
            words = ["prepare", "books", str(books), "--out", str(out), "--devices", str(arguments.devices)]
            peaks[count] = peak([sys.executable, "-m", "assay", *words])
            report = json.loads((out / "report.json").read_text())
            steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
            print(f"{count:>8,} books: {_shown(peaks[count])} ({steps})", flush=True)
    packages = ("assay", "pyarrow", "numpy")
    finish(
        "books.plan_seconds",
        float(seconds),
        "s",
        "none",
        details={
            "books": int(rows),
            "units": int(units),
            "bytes": sizes[planned],
            "cpu_seconds": round(float(cpu_seconds), 2),
        },
        packages=packages,
        record=arguments.record,
        trial=arguments.tiny,
    )
    few, many = peaks[small], peaks[large]
    finish(
        "memory.prepare_50000_books_over_500",
        many.whole / few.whole,
        "ratio",
        f"{small} books: {few.whole / 2**20:.0f} MiB",
        details={
            "books": [small, large],
            "whole_mib": [round(each.whole / 2**20, 1) for each in (few, many)],
            "with_files_mib": [round(each.with_files / 2**20, 1) for each in (few, many)],
            "driver_mib": [round(each.driver / 2**20, 1) for each in (few, many)],
            "largest_worker_mib": [round(each.worker / 2**20, 1) for each in (few, many)],
            "driver_ratio": round(many.driver / few.driver, 3),
            "largest_worker_ratio": round(many.worker / few.worker, 3),
            "seconds": [round(each.seconds, 1) for each in (few, many)],
            "workers": arguments.devices,
        },
        packages=packages,
        record=arguments.record,
        trial=arguments.tiny,
    )


def _shown(found: Peak) -> str:
    whole, driver, worker = (each / 2**20 for each in (found.whole, found.driver, found.worker))
    return (
        f"{whole:,.0f} MiB together, {driver:,.0f} MiB the driver, {worker:,.0f} MiB the largest worker, "
        f"{found.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
