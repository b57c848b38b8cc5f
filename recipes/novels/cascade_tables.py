"""The tables and claims of two_stages.py, from the lines of JSON that its jobs left.

    python recipes/novels/cascade_tables.py two_stages

prints both for a folder `--out` of that script, finished or not.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chunk_pairs import interval
from timed_jobs import Lines, read_lines

RECALL = 0.95
SIAMESE_ROW, CROSS_ROW, FIRST, BOTH_ROW, CASCADE = (
    "Siamese network",
    "cross-encoder",
    "first stage: network, words and style",
    "both on every pair",
    "cascade, cheapest that keeps .99",
)
AT_RECALL = f"cascade, recall {RECALL:g}"
QUESTION = "same book, mixed"
"""What the claims are about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A ratio, and what it was compared with."""

    name: str
    value: float
    baseline: str
    details: Mapping[str, object]


def mean_by_split(lines: Sequence[dict[str, Any]], value: str = "auc") -> list[float]:
    """One number a split, the mean of its seeds: seeds of a split are no further evidence of other authors."""
    by_split = defaultdict(list)
    for line in lines:
        by_split[line["split"]].append(line[value])
    return [statistics.mean(by_split[split]) for split in sorted(by_split)]


def of_seeds(lines: Sequence[dict[str, Any]]) -> str:
    """Mean over splits of each seed that has all the splits that the first has."""
    by_seed = defaultdict(dict)
    for line in lines:
        by_seed[line["seed"]][line["split"]] = line["auc"]
    whole = max(len(each) for each in by_seed.values())
    return " ".join(
        f"{statistics.mean(each.values()):.3f}" for _, each in sorted(by_seed.items()) if len(each) == whole
    )


def grouped(lines: Lines, kind: str, *names: str) -> dict[tuple[Any, ...], Lines]:
    """Lines of a kind by their values of these names."""
    found: dict[tuple[Any, ...], Lines] = defaultdict(list)
    for line in lines:
        if line["kind"] == kind:
            found[tuple(line[name] for name in names)].append(line)
    return dict(sorted(found.items()))


def print_tables(lines: Lines) -> None:
    """Rows and cascades, means over splits; in brackets the means of each seed."""
    for (question, k, row), each in grouped(lines, "row", "question", "k", "row").items():
        mean, half = interval(mean_by_split(each))
        print(f"{question:17} k={k:<2} {row:36} {mean:.3f} +- {half:.3f}  ({of_seeds(each)})")
    for (question, row), each in grouped(lines, "cascade", "question", "row").items():
        mean, half = interval(mean_by_split(each))
        on = statistics.mean(line["share_to_second"] for line in each)
        print(f"{question:17} {row:39} {mean:.3f} +- {half:.3f}  ({of_seeds(each)})  to the second {on:.2f}")
    sys.stdout.flush()


def print_costs(lines: Lines) -> None:
    """Seconds of each way, and over the cross-encoder's."""
    for (task, _), each in grouped(lines, "cost", "task", "is_large").items():
        pairs, texts = (statistics.mean(line[name] for line in each) for name in ("pairs", "texts"))
        print(
            f"{task}: {pairs:,.0f} pairs of {texts:,.0f} chunks, {len(each)} cascades, over the cross-encoder"
        )
        for name in each[0]["seconds"]:
            ratios = [line["over_cross_encoder"][name] for line in each]
            seconds = statistics.mean(line["seconds"][name] for line in each)
            print(f"  {name:39} {seconds:8.3f} s  {statistics.mean(ratios):.3f}")
        if "auc" in each[0]:
            on, found = (statistics.mean(line[name] for line in each) for name in ("share_to_second", "auc"))
            print(f"  {CASCADE}: AUC {found:.3f}, to the second {on:.2f}")


def claims_of(lines: Lines) -> list[Claim]:
    """The cascade's AUC and its cost over the careful way's: none where no job has ended, or no cascade was timed."""
    rows = {
        row: each
        for (question, row), each in grouped(lines, "cascade", "question", "row").items()
        if question == QUESTION
    }
    costs = grouped(lines, "cost", "task", "is_large")
    found = [_auc_claim(rows)] if rows else []
    return [*found, _cost_claim(costs)] if ("same_book", True) in costs else found


def _auc_claim(rows: Mapping[str, Lines]) -> Claim:
    """Over the better of the cross-encoder alone and both stages on every pair: one of them may be at chance."""
    means = {row: interval(mean_by_split(each))[0] for row, each in rows.items()}
    best = max((CROSS_ROW, BOTH_ROW), key=lambda row: means[row])
    careful = {(line["split"], line["seed"]): line["auc"] for line in rows[best]}
    ratios = [
        {**line, "ratio": line["auc"] / careful[line["split"], line["seed"]]}
        for line in rows[CASCADE]
        if (line["split"], line["seed"]) in careful
    ]
    mean, half = interval(mean_by_split(ratios, "ratio"))
    return Claim(
        name="books.cascade_auc_over_cross_encoder",
        value=mean,
        baseline=(
            f"the better of the cross-encoder alone ({means[CROSS_ROW]:.3f}) and both stages on every pair "
            f"({means[BOTH_ROW]:.3f}); the first stage alone has {means[FIRST]:.3f}"
        ),
        details={
            "half_width": round(half, 4),
            "splits": len({line["split"] for line in ratios}),
            "seeds": len({line["seed"] for line in ratios}),
            "rows": {row: round(value, 4) for row, value in means.items()},
            "share_to_second": round(statistics.mean(line["share_to_second"] for line in rows[CASCADE]), 4),
            "cascades_that_ask_no_second_stage": sum(not line["share_to_second"] for line in rows[CASCADE]),
        },
    )


def _cost_claim(costs: Mapping[tuple[Any, ...], Lines]) -> Claim:
    """Seconds over those of the cross-encoder on the same pairs, many of them over few texts."""
    large, few = costs["same_book", True], costs["same_book", False]

    def mean(lines: Lines, row: str, value: str = "over_cross_encoder") -> float:
        return statistics.mean(line[value][row] for line in lines)

    def size(lines: Lines) -> str:
        pairs, texts = (statistics.mean(line[name] for line in lines) for name in ("pairs", "texts"))
        return f"{pairs:,.0f} pairs of {texts:,.0f} chunks"

    return Claim(
        name="books.cascade_cost_over_cross_encoder",
        value=mean(large, CASCADE),
        baseline=(
            f"cross-encoder alone on the same {size(large)}: {mean(large, CROSS_ROW, 'seconds'):.3f} s "
            f"(first stage alone {mean(large, FIRST):.3f}; the cascade on {size(few)} {mean(few, CASCADE):.2f})"
        ),
        details={
            "cascades_timed": len(large),
            "auc": round(statistics.mean(line["auc"] for line in large), 4),
            "seconds": {
                size(lines): {row: round(mean(lines, row, "seconds"), 4) for row in lines[0]["seconds"]}
                for lines in (large, few)
            },
        },
    )


def main() -> None:
    """Tables, costs and claims of a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder --out of two_stages.py")
    options = parser.parse_args()
    lines = read_lines(options.folder / "lines.jsonl")
    if not lines:
        sys.exit(
            f"no job has ended in {options.folder}: it has no lines.jsonl; name a folder --out of two_stages.py"
        )
    print_tables(lines)
    print_costs(lines)
    for claim in claims_of(lines):
        print(f"{claim.name}: {claim.value:.4g}, over {claim.baseline}")


if __name__ == "__main__":
    main()
