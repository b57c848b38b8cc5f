"""From the start of a process to the first scored document, RoBERTa-base, one GPU: caches empty, then filled.

    python benchmarks/gpu/cold_start.py --record

A fresh Python process imports Assay, loads the engine and scores one document of 200 tokens. Cold means that
every cache of compiled kernels (Triton's, torch's, CUDA's, ours) is an empty folder; warm, that it is the one
that a cold start has left. Files of the libraries are in the page cache in either case: a process that is
not counted reads them first, and its time is printed. The same is measured for `assay score` on a file of one row, from
its start to its published part: it starts a driver and a worker and passes the parity gate, which a warm start finds
noted, its row being that of the cold one. Figures are medians of rounds. One more process does what
loading does a thing after the other, which shows where the time goes.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from _runs import Command, assay, write_ids
from _setup import chosen_device, environment, finish, make_bundle, models, parser
from _words import word_tokenizer

from assay.engine.sequences import Sequences

PHASES = ("interpreter", "import", "load", "first document")
CHILD = """
import time
marks = [time.time()]
import sys
import numpy as np
from assay.engine.load import load_engine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
marks.append(time.time())
engine = load_engine(sys.argv[1], device=sys.argv[2], precision=sys.argv[3])
marks.append(time.time())
ids = np.arange(5, 205, dtype=np.uint16)
logits, _ = run_sequences(engine, Sequences(flat_ids=ids, offsets=np.array([0, 200])))
assert np.isfinite(logits).all()
marks.append(time.time())
print(*marks)
"""
PARTS = ("libraries", "device", "tensors", "kernels", "engine")
APART = """
import time
marks = [time.time()]
def mark(): marks.append(time.time())
import sys
import torch
from assay.engine.load import load_engine
from assay.model import pretrained
from assay.model.checkpoint import read_checkpoint
mark()
if sys.argv[2] != "cpu":
    torch.zeros(1, device=sys.argv[2])
    torch.cuda.synchronize()
mark()
pretrained.load_tensors(read_checkpoint(sys.argv[1]))
mark()
if sys.argv[2] != "cpu":
    import assay.engine.kernels.triton_kernels
mark()
load_engine(sys.argv[1], device=sys.argv[2], precision=sys.argv[3])
mark()
print(*marks)
"""
"""What loading does, a thing after the other, in a warm process of its own: where the time of a start goes. The
engine's own part reads the tensors once more, from the page cache."""
CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH", "XDG_CACHE_HOME")


def main() -> None:
    """Measure cold and warm starts, print the phases and the claims."""
    flags = parser(__doc__)
    flags.add_argument("--precision", default="bf16")
    flags.add_argument("--cold-rounds", type=int, default=2)
    flags.add_argument("--warm-rounds", type=int, default=3)
    arguments = flags.parse_args()
    device = chosen_device(arguments)
    precision = "fp32" if device.type == "cpu" else arguments.precision
    model = models(tiny=arguments.tiny)["roberta-base"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = make_bundle(model, place / "bundle", device)
        word_tokenizer(bundle, model.config.vocab_size, model.longest)
        document = Sequences(flat_ids=np.arange(5, 205, dtype=np.uint16), offsets=np.array([0, 200]))
        source = write_ids(place / "corpus", document, 1)[0]
        first = start(bundle, str(device), precision, caches(place / "first"))
        print(f"not counted, files of the libraries read from disk: {sum(first):.1f} s", flush=True)
        found: dict[str, list[list[float]]] = {"cold": [], "warm": []}
        commands: dict[str, list[tuple[Command, float]]] = {"cold": [], "warm": []}
        for turn in range(arguments.cold_rounds):
            found["cold"].append(start(bundle, str(device), precision, caches(place / f"cold{turn}")))
            fresh = caches(place / f"cold-command{turn}")
            commands["cold"].append(score(bundle, source, place / f"cold-run{turn}", precision, fresh))
        filled = caches(place / "cold0")
        for turn in range(arguments.warm_rounds):
            found["warm"].append(start(bundle, str(device), precision, filled))
            filled_too = caches(place / "cold-command0")
            commands["warm"].append(score(bundle, source, place / f"warm-run{turn}", precision, filled_too))
        parts = start(bundle, str(device), precision, filled, child=APART)[1:]
    apart = dict(zip(PARTS, [round(each, 2) for each in parts], strict=True))
    print(
        "loading apart: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in apart.items()), flush=True
    )
    for kind, rounds in found.items():
        phases = [statistics.median(column) for column in zip(*rounds, strict=True)]
        total = statistics.median(map(sum, rounds))
        wall = statistics.median(command.wall_seconds for command, _ in commands[kind])
        ready = statistics.median(command.ready_seconds for command, _ in commands[kind])
        parts_after = [seconds for _, seconds in commands[kind]]
        shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in zip(PHASES, phases, strict=True))
        print(
            f"{kind}: {total:.2f} s ({shown}); assay score on one row {wall:.1f} s, worker ready {ready:.1f} s"
        )
        finish(
            arguments,
            f"h100.command_seconds_to_first_part_{kind}",
            statistics.median(parts_after),
            "s",
            "none",
            details={
                "precision": precision,
                "whole_command_seconds": round(wall, 2),
                "worker_ready_seconds": ready,
                "rounds": [round(seconds, 2) for seconds in parts_after],
            },
        )
        finish(
            arguments,
            f"h100.{kind}_start_seconds_roberta_base",
            total,
            "s",
            "none",
            details={
                "precision": precision,
                "seconds": dict(zip(PHASES, [round(phase, 3) for phase in phases], strict=True)),
                "rounds": [round(sum(one), 3) for one in rounds],
                **({"loading_apart_seconds": apart} if kind == "warm" else {}),
                "assay_score_one_row_seconds": round(wall, 2),
                "assay_score_ready_seconds": ready,
            },
        )


def caches(folder: Path) -> dict[str, str]:
    """The variables that put every cache of compiled code below one folder, made where it is not there."""
    folders = {name: folder / name.lower() for name in CACHES}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    return {name: str(path) for name, path in folders.items()}


def start(
    bundle: Path, device: str, precision: str, variables: dict[str, str], *, child: str = CHILD
) -> list[float]:
    """Seconds of each phase of a fresh process, up to its first scored document."""
    command = [sys.executable, "-c", child, str(bundle), device, precision]
    began = time.time()
    done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    marks = [began, *json.loads(f"[{','.join(done.stdout.splitlines()[-1].split())}]")]
    return [stop - start for start, stop in pairwise(marks)]


def score(
    bundle: Path, source: Path, run: Path, precision: str, variables: dict[str, str]
) -> tuple[Command, float]:
    """`assay score` on a file of one row, and the seconds from its start to its part being there."""
    words: list[str | Path] = ["score", source, "--bundle", bundle, "--run", run, "--precision", precision]
    began = time.time()
    command = assay(*words, "--input-ids-column", "input_ids", "--devices", "1", **variables)
    (part,) = (run / "parts").iterdir()
    return command, part.stat().st_ctime - began  # a part is published by a change of its links


if __name__ == "__main__":
    main()
