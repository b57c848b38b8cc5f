"""Training on a CPU: ours against `transformers.Trainer`, MiniLM on a corpus of mixed lengths.

    python recipes/prepare.py r8
    python benchmarks/train_vs_trainer.py --record

Corpus: Reuters R8, training rows as they come, cut at 256 tokens: a tenth are shorter than 30 tokens, a tenth longer
than 256. MiniLM-L6 in fp32, batch 16, AdamW, a constant learning rate, all cores on both sides.

Both start from one folder with its head, take the same rows in the same order and as many steps. Trainer pads to the
longest of a batch, has the fused optimizer, logs nothing, and loads in its own process (more processes would take
cores from the training). The details say what Trainer reaches where it may batch rows of like length instead
(`group_by_length`), which is another order and changes what it learns from.

First the losses are compared, from the same weights and without dropout. Then rounds alternate, dropout as the config
has it; the first steps are not timed. The value is the median over pairs of the samples a second.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
from _record import finish, parser
from _trainer import (
    Recipe,
    Timed,
    Training,
    check_losses,
    load_classifier,
    load_tokenizer,
    our_order,
    to_features,
    train_ours,
    train_with_trainer,
    without_dropout,
)
from _words import quiet
from recipes import RECIPES, base_folder, read_split, tiny_base

from assay.labelled.labels import label_names, to_targets

PACKAGES = ("assay", "torch", "transformers")


def main() -> None:
    """Compare, measure, print."""
    flags = parser(__doc__, smoke="a tiny model and few steps")
    flags.add_argument("--task", default="r8", help="a classification task of the recipes")
    flags.add_argument(
        "--data", type=Path, default=RECIPES / "data", help="folder that recipes/prepare.py filled"
    )
    flags.add_argument("--base", type=Path, help="folder of MiniLM; default the installed package's")
    flags.add_argument("--batch-size", type=int, default=16)
    flags.add_argument("--max-length", type=int, default=256)
    flags.add_argument("--steps", type=int, default=24, help="timed steps of a round")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--allowed-loss-difference", type=float, default=1e-3)
    arguments = flags.parse_args()
    if arguments.tiny and arguments.record:
        raise SystemExit("--tiny is a smoke test, nothing to record; leave --record out")
    if not (arguments.data / arguments.task / "train.parquet").exists():
        raise SystemExit(
            f"{arguments.data}: no {arguments.task}/train.parquet; python recipes/prepare.py {arguments.task}"
        )
    arguments.limit = None
    warmup, steps = (1, 2) if arguments.tiny else (4, arguments.steps)
    recipe = Recipe(
        batch_size=arguments.batch_size,
        learning_rate=1e-4,
        max_length=arguments.max_length,
        device="cpu",
    )
    rows, _ = read_split(arguments, arguments.task, "train", "single_label")
    validation, _ = read_split(arguments, arguments.task, "validation", "single_label")
    names = label_names(rows.labels, "single_label")
    # one row of each label, so that both sides have all outputs, and the rest evenly: a file may be sorted
    count = (warmup + steps) * recipe.batch_size
    firsts = [rows.labels.index(name) for name in names]
    rest = [row for row in range(rows.num_rows) if row not in firsts]
    few = max(0, count - len(firsts))
    rows = rows.take(sorted([*firsts, *(rest[k * len(rest) // few] for k in range(few))]))
    validation = validation.take(range(min(32, validation.num_rows)))

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        given = tiny_base(place / "tiny", arguments) if arguments.tiny else base_folder(arguments)
        tokenizer = load_tokenizer(given)
        base = place / "base"
        with quiet():
            load_classifier(given, recipe, names).save_pretrained(base)
            tokenizer.save_pretrained(base)
        targets = to_targets(rows.labels, "single_label", names).tolist()
        plain = to_features(tokenizer, rows, targets, recipe.max_length)
        features = [plain[row] for row in our_order(rows.num_rows, recipe)]

        def ours(chosen: Recipe, timed: Timed | None) -> Training:
            return train_ours(
                base, rows, validation, chosen, place / "ours", timed=timed, near_duplicates=False
            )

        def trainer(chosen: Recipe, timed: Timed | None, *, grouped: bool = False) -> Training:
            return train_with_trainer(
                load_classifier(base, chosen, names),
                tokenizer,
                features,
                chosen,
                place / "trainer",
                timed=timed,
                keep_losses=timed is None,
                ordered=not grouped,
                sampling="group_by_length" if grouped else None,
            )

        quiet_recipe = without_dropout(recipe)
        agreement = check_losses(
            "ours and Trainer",
            ours(quiet_recipe, None),
            trainer(quiet_recipe, None),
            allowed=arguments.allowed_loss_difference,
        )
        timed = Timed(first=warmup, last=warmup + steps)
        seconds: dict[str, list[float]] = {"ours": [], "Trainer": [], "grouped": []}
        for turn in range(1 if arguments.tiny else arguments.rounds):
            for side, done in (
                ("ours", ours(recipe, timed)),
                ("Trainer", trainer(recipe, timed)),
                ("grouped", trainer(recipe, timed, grouped=True)),
            ):
                assert done.seconds is not None
                seconds[side].append(done.seconds)
                print(
                    f"  round {turn}: {side:8} {steps * recipe.batch_size / done.seconds:7.2f} samples/s",
                    flush=True,
                )
    lengths = np.array([len(row["input_ids"]) for row in features])
    batches = lengths[warmup * recipe.batch_size :].reshape(steps, recipe.batch_size)
    rates = {side: steps * recipe.batch_size / statistics.median(kept) for side, kept in seconds.items()}
    ratio = statistics.median(
        theirs / one for one, theirs in zip(seconds["ours"], seconds["Trainer"], strict=True)
    )
    finish(
        "cpu.train_vs_trainer",
        ratio,
        "ratio",
        f"transformers.Trainer, fp32, padded to the longest of a batch, fused AdamW: {rates['Trainer']:.2f} samples/s",
        packages=PACKAGES,
        details={
            "task": arguments.task,
            "batch_size": recipe.batch_size,
            "mean_tokens": round(float(lengths.mean()), 1),
            "tokens_at_tenths": np.quantile(lengths, [0.1, 0.5, 0.9]).round().astype(int).tolist(),
            "padding_of_trainer": round(
                1 - float(batches.sum()) / float(batches.max(axis=1).sum() * recipe.batch_size), 4
            ),
            "steps": steps,
            "samples_per_second": float(f"{rates['ours']:.4g}"),
            "grouped_by_length_samples_per_second": float(f"{rates['grouped']:.4g}"),
            "seconds": [round(each, 3) for each in seconds["ours"]],
            "trainer_seconds": [round(each, 3) for each in seconds["Trainer"]],
            **agreement,
        },
        record=arguments.record,
        trial=arguments.tiny,
    )


if __name__ == "__main__":
    main()
