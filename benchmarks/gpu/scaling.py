"""Two GPUs against one, end to end: `assay score --devices 2` and `--devices 1` on the same token parts.

    python benchmarks/gpu/scaling.py --record

RoBERTa-base shape, distinct documents of random ids, mean 228 tokens. Runs take turns; the value is the
median over pairs of the documents a second that the command itself reports, from the first worker being
ready to the end. The time of the whole command, starts included, is printed beside it. The scores of both
runs are compared first.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from _runs import Command, assay, first_scores, workers_of, write_ids
from _setup import chosen_device, documents, finish, make_bundle, models, parser
from _words import word_tokenizer

PART_DOCUMENTS = 100_000
DOCUMENTS = 800_000
TINY_DOCUMENTS = 600
TOLERANCE = 0.02


def main() -> None:
    """Measure, compare, print."""
    flags = parser(__doc__)
    flags.add_argument("--documents", type=int)
    flags.add_argument("--precision", default="bf16")
    flags.add_argument("--unit-rows", type=int, help="rows of a unit; default the planner's own")
    flags.add_argument("--rounds", type=int, default=2)
    arguments = flags.parse_args()
    device = chosen_device(arguments, num_gpus=2)
    if device.type == "cpu":
        arguments.precision = "fp32"
    model = models(tiny=arguments.tiny)["roberta-base"]
    num_documents = arguments.documents or (TINY_DOCUMENTS if arguments.tiny else DOCUMENTS)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = make_bundle(model, place / "bundle", device)
        word_tokenizer(bundle, model.config.vocab_size, model.longest)
        corpus = documents(
            num_documents,
            mean_parameter=model.mean_parameter,
            longest=model.longest,
            vocab_size=model.config.vocab_size,
        )
        sources = write_ids(place / "corpus", corpus, PART_DOCUMENTS)
        pairs = []
        for turn in range(arguments.rounds + 1):
            runs = {count: place / f"run{turn}-{count}" for count in (1, 2)}
            found = {count: score(bundle, sources, run, count, arguments) for count, run in runs.items()}
            if turn == 0:  # fills the caches, and shows that both are right
                one, two = (first_scores(run) for run in runs.values())
                difference = float(np.abs(one - two).max())
                print(f"{num_documents:,} documents; largest difference of a score {difference:.1e}")
                if not (len(one) == len(two) == num_documents and difference <= TOLERANCE):
                    raise SystemExit("two devices do not give the scores of one; nothing is timed")
                continue
            for count, command in found.items():
                print(
                    f"  {count} devices: {command.docs_per_second:,.0f} docs/s after "
                    f"{command.ready_seconds:.1f} s; whole command {command.wall_seconds:.1f} s",
                    flush=True,
                )
            pairs.append((found[1], found[2]))
    finish(
        arguments,
        "h100x2.score_scaling",
        statistics.median(two.docs_per_second / one.docs_per_second for one, two in pairs),
        "ratio",
        f"one device: {statistics.median(one.docs_per_second for one, _ in pairs):,.0f} docs/s",
        details={
            "documents": num_documents,
            "precision": arguments.precision,
            "docs_per_second": statistics.median(two.docs_per_second for _, two in pairs),
            "whole_command_ratio": float(
                f"{statistics.median(one.wall_seconds / two.wall_seconds for one, two in pairs):.4g}"
            ),
        },
    )


def score(
    bundle: Path, sources: list[Path], run: Path, num_devices: int, arguments: argparse.Namespace
) -> Command:
    """`assay score` on so many devices; exits unless each of them made parts."""
    words: list[str | Path] = ["score", *sources, "--bundle", bundle, "--run", run]
    words += ["--input-ids-column", "input_ids", "--precision", arguments.precision]
    words += ["--devices", str(num_devices)]
    if arguments.unit_rows is not None:
        words += ["--unit-rows", str(arguments.unit_rows)]
    done = assay(*words)
    workers = workers_of(run)
    if len(workers) != num_devices and not arguments.tiny:
        raise SystemExit(f"{sorted(workers)} made the parts, of {num_devices} devices; nothing is timed")
    return done


if __name__ == "__main__":
    main()
