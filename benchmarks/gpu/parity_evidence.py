"""What the sample in fp32 of each unit costs a run: `assay score` with it and without, in turn, on one GPU.

    python benchmarks/gpu/parity_evidence.py --record

Token parts of distinct documents of random ids, mean 228 tokens, RoBERTa-base with random weights in the precision that
`auto` takes. `assay score` is run as a user runs it, with the default --parity-share and with 0; both take the gate.
The cost is the share of time that the default takes more, by the rates that the commands say (documents over the time
from the worker being ready to the last part), the median over pairs that lie side by side; the order within a pair
changes from one to the next. The model in fp32 is loaded within that time. The workers' own stopwatch, the time for
which samples held the device as a share of the same time, stands beside it: it is exact where pairs are noisy.
"""

import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _runs import Command, assay, first_scores, run_files, write_ids
from _setup import chosen_device, documents, finish, make_bundle, models, parser
from _words import word_tokenizer

from assay.embed.differences import Differences, sum_of
from assay.embed.engine_work import DIFFERENCES
from assay.runs.run import FOOTER_STATS

CLAIM = "h100.parity_evidence_cost_share"
DOCUMENTS = {"roberta-base": 100_000, "minilm": 600_000}
WARM_UP_SHARE = 5
"""The first pair takes a fifth of the documents."""
PART_DOCUMENTS = 100_000
TINY_DOCUMENTS = 400
TINY_SHARE = 0.2
TOLERANCE = 0.005
"""Largest difference of a score between the two: batches may differ, and with them rounding."""


def main() -> None:
    """Let both take turns, and print the claim."""
    flags = parser(__doc__)
    flags.add_argument("--model", choices=DOCUMENTS, default="roberta-base")
    flags.add_argument("--documents", type=int)
    flags.add_argument("--precision", default="auto")
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_args()
    device = chosen_device(arguments)
    model = models(tiny=arguments.tiny)[arguments.model]
    num_documents = arguments.documents or (TINY_DOCUMENTS if arguments.tiny else DOCUMENTS[model.name])
    # a CPU's own precision is fp32, of which nothing is compared
    precision = "bf16" if arguments.tiny and device.type == "cpu" else arguments.precision
    shares = {
        "with": ["--parity-share", str(TINY_SHARE)] if arguments.tiny else [],
        "without": ["--parity-share", "0"],
    }
    pairs: list[dict[str, Command]] = []
    stopwatches: list[float] = []
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
        compared: dict[str, Differences | None] = {}
        for turn in range(arguments.rounds + 1):
            pair = {}
            for name in sorted(shares, reverse=bool(turn % 2)):
                run = place / f"{name}-{turn}"
                words = ["--input-ids-column", "input_ids", "--precision", precision, "--devices", "1"]
                if turn == 0:
                    words += ["--limit-rows", str(max(1, num_documents // WARM_UP_SHARE))]
                pair[name] = assay("score", *sources, "--bundle", bundle, "--run", run, *words, *shares[name])
                compared[name] = sampled(run)
            if turn == 0:  # it fills the caches of kernels, proofs and pages, and shows that both are right
                check(place, compared)
                continue
            found = compared["with"]
            assert found is not None, "checked in the first turn"
            stopwatch = found.milliseconds / 1000 / (num_documents / pair["with"].docs_per_second)
            pairs.append(pair)
            rates = ", ".join(f"{name} {pair[name].docs_per_second:,.0f}" for name in shares)
            print(f"  docs/s: {rates}; cost {cost_of(pair):+.2%}; by stopwatch {stopwatch:.2%}", flush=True)
            stopwatches.append(stopwatch)
    costs = [cost_of(pair) for pair in pairs]
    without = statistics.median(pair["without"].docs_per_second for pair in pairs)
    finish(
        arguments,
        CLAIM,
        statistics.median(costs),
        "share",
        f"the same run with --parity-share 0, {without:,.0f} docs/s",
        details={
            "model": model.name,
            "documents": num_documents,
            "precision": precision,
            "documents_compared": found.num_documents,
            "largest_difference": found.largest,
            "costs": [round(cost, 5) for cost in costs],
            "by_stopwatch": round(statistics.median(stopwatches), 5),
            "docs_per_second": statistics.median(pair["with"].docs_per_second for pair in pairs),
            "whole_command_seconds": [
                round(statistics.median(pair[name].wall_seconds for pair in pairs), 2) for name in shares
            ],
        },
    )


def cost_of(pair: dict[str, Command]) -> float:
    """The share of time that the sample takes."""
    return 1 - pair["with"].docs_per_second / pair["without"].docs_per_second


def sampled(run: Path) -> Differences | None:
    """What a run's parts say of their samples; None where they took none."""
    footers = (json.loads(pq.read_metadata(path).metadata[FOOTER_STATS]) for path in run_files(run))
    return sum_of(stats.get(DIFFERENCES) for stats in footers)


def check(place: Path, compared: dict[str, Differences | None]) -> None:
    """Exit unless only one of the two compared documents, and both gave the same scores."""
    found = compared["with"]
    if found is None or not found.num_documents or compared["without"] is not None:
        raise SystemExit(f"compared: {compared}; the two runs are not what they should be")
    with_, without = (first_scores(place / f"{name}-0") for name in ("with", "without"))
    if float(np.abs(with_ - without).max()) > TOLERANCE:
        raise SystemExit("the scores of the two runs differ; nothing is timed")


if __name__ == "__main__":
    main()
