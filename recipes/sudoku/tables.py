"""What members of an ensemble buy on Sudokus, from the results in this folder: a table, and the chart `members.svg`.

python recipes/sudoku/tables.py
"""

import json
from pathlib import Path
from typing import Any

from assay.charts import STYLE, Line, line_chart

FOLDER = Path(__file__).parent
CASES = {
    "last_x15": "the last snapshot, 15 symmetric forms",
    "three_x5_symmetry": "three snapshots, 5 symmetric forms each",
    "three_x5_shift": "three snapshots, 5 shifts of the digits each",
    "noise_x15": "the last snapshot, 15 noise seeds (deviation 1)",
    "steps_64": "the last snapshot, once, 64 steps",
    "steps_32": "the last snapshot, once, 32 steps",
}
RULES = ("checked", "vote", "q-selected")


def main() -> None:
    """Print the table and draw the chart."""
    found = {name: json.loads((FOLDER / "results" / f"{name}.json").read_bytes()) for name in CASES}
    print("| members | one of them | checked | vote | q-selected | steps a puzzle |")
    print("|---|---|---|---|---|---|")
    for name, words in CASES.items():
        print("| " + " | ".join([words, *_row(found[name])]) + " |")
    lines = [
        Line(
            name=CASES[name],
            x=[point["k"] for point in result["pass_at_k"]],
            y=[point["value"] for point in result["pass_at_k"]],
        )
        for name, result in found.items()
        if len(result["pass_at_k"]) > 1
    ]
    chart = line_chart(
        "Test puzzles that any of so many members solves",
        lines,
        x_label="members",
        y_label="share of 11,000 puzzles",
        y_range=(0.0, 1.0),
    )
    head, _, body = chart.partition(">")
    (FOLDER / "members.svg").write_text(f"{head}><style>{STYLE}</style>{body}\n", encoding="utf-8")


def _row(result: dict[str, Any]) -> list[str]:
    members = result["members"]
    one = sum(each["correct"] for each in members) / sum(each["total"] for each in members)
    rules = [result["rules"][rule] for rule in RULES]
    steps = result["config"]["num_steps"] or 16
    shares = [
        f"{rule['accuracy']:.2%} ({rule['low']:.2%} to {rule['high']:.2%})" if len(members) > 1 else "-"
        for rule in rules
    ]
    return [f"{one:.2%}", *shares, f"{steps * len(members)}"]


if __name__ == "__main__":
    main()
