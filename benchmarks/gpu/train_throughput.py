"""Training on one GPU: ours against `transformers.Trainer` in bf16, and against the plain loop of a DDP tutorial.

    python benchmarks/gpu/train_throughput.py --record
    python benchmarks/gpu/train_throughput.py distilbert-b32 --rounds 5 --record

Random weights of the real shapes; rows are random ids whose labels can be learnt. DistilBERT: four labels, lengths
log-normal, mean 53 tokens, 10 to 128 (AG News has about these). RoBERTa-base: pairs of passages of 10 to 14
sentences, two labels, a whole pair log-normal around 440 tokens, cut at 512, so mean about 400.

All sides start from one folder and take the same rows in the same order, the same batch, AdamW at 2e-5, a constant
learning rate and as many steps. Trainer: bf16, rows padded to the longest of a batch, fused AdamW, no logging, and
0 or 4 loader processes, whichever is faster here. Plain loop: fp32, padded to 128, no clipping, no mixed precision.

First the losses are compared, from the same weights and without dropout, in fp32 and in bf16. Then rounds
alternate, dropout as the config has it, each training from the folder each time; loading, recording and the first steps
are not timed. Figures are medians; ratios medians of pairs. MFU is the plain arithmetic of forward and backward
pass (three times that of the forward pass, real tokens alone) over what a product of large squares
reaches in bf16 beside it.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _setup import ceilings, chosen_device, finish, free_memory, parser
from _trainer import (
    MadeUp,
    Recipe,
    Timed,
    Training,
    check_losses,
    load_classifier,
    load_tokenizer,
    made_up_rows,
    our_order,
    train_ours,
    train_plainly,
    train_with_trainer,
    without_dropout,
    write_random_model,
)
from transformers import DistilBertConfig, RobertaConfig

from assay.engine.measure import flops, model_shape
from assay.labelled.rows import LabelledRows

PLAIN, TRAINER = "plain loop", "Trainer"
ALLOWED_FP32 = 0.02
"""Largest difference of two smoothed loss curves in fp32."""
PEAK_TFLOPS = 989.4
"""bf16 of an H100 SXM without sparsity, as its data sheet has it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, its rows, and what is claimed of it."""

    config: Any
    recipe: Recipe
    num_labels: int
    pairs: bool
    median: float
    """Of the log-normal lengths before they are clipped."""
    sigma: float
    shortest: int
    longest: int
    warmup: int
    """Steps before the timed ones: each shape is met and recorded."""
    steps: int
    """Timed steps."""
    claims: dict[str, tuple[str, str]]
    """By claim: the baseline, and whether it is a ratio or a rate."""


def cases(device: torch.device, *, tiny: bool) -> dict[str, Case]:
    """What is measured, by name; `tiny` shrinks the sizes, not the architecture."""
    distilbert: dict[str, Any] = {
        "config": DistilBertConfig(
            num_labels=4, **({"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64} if tiny else {})
        ),
        "num_labels": 4,
        "pairs": False,
        "median": 50,
        "sigma": 0.35,
        "shortest": 10,
        "longest": 128,
    }
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    roberta = RobertaConfig(
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2,
        pad_token_id=1,
        layer_norm_eps=1e-5,
        **(small if tiny else {}),
    )

    def recipe(batch_size: int, longest: int) -> Recipe:
        return Recipe(batch_size=batch_size, learning_rate=2e-5, max_length=longest, device=device.type)

    return {
        "distilbert-b32": Case(
            **distilbert,
            recipe=recipe(8 if tiny else 32, 128),
            warmup=2 if tiny else 75,
            steps=4 if tiny else 300,
            claims={
                "h100.train_distilbert_b32_vs_ddp_recipe": (PLAIN, "ratio"),
                "h100.train_distilbert_b32_vs_trainer": (TRAINER, "ratio"),
            },
        ),
        "distilbert-b256": Case(
            **distilbert,
            recipe=recipe(16 if tiny else 256, 128),
            warmup=2 if tiny else 50,
            steps=3 if tiny else 100,
            claims={"h100.train_distilbert_b256_samples_per_second": (TRAINER, "rate")},
        ),
        "roberta-base-pairs": Case(
            config=roberta,
            recipe=recipe(4 if tiny else 32, 512),
            num_labels=2,
            pairs=True,
            median=420,
            sigma=0.3,
            shortest=64,
            longest=512,
            warmup=2 if tiny else 50,
            steps=3 if tiny else 75,
            claims={"h100.train_roberta_base_pairs_vs_trainer": (TRAINER, "ratio")},
        ),
    }


def main() -> None:
    """Measure the cases that were named, one after the other."""
    flags = parser(__doc__)
    flags.add_argument("cases", nargs="*", metavar="CASE", help="default all")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--steps", type=int, help="timed steps of a round, a multiple of 25")
    flags.add_argument("--compared-steps", type=int, help="steps of the runs whose losses are compared")
    flags.add_argument("--allowed-loss-difference", type=float, default=0.05)
    arguments = flags.parse_intermixed_args()
    device = chosen_device(arguments)
    known = cases(device, tiny=arguments.tiny)
    if unknown := [name for name in arguments.cases if name not in known]:
        raise SystemExit(f"no case {unknown[0]!r}; choose from {', '.join(known)}")
    found = ceilings(device, ["fp32" if device.type == "cpu" else "bf16"])
    for name in arguments.cases or known:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, known[name], Path(folder), device, next(iter(found.values())), arguments)
        free_memory(device)


def measure(
    name: str,
    case: Case,
    place: Path,
    device: torch.device,
    ceiling: float,
    arguments: argparse.Namespace,
) -> None:
    """Compare the losses of one case, time it, and print its claims."""
    base = write_random_model(case.config, place / "base", max_length=case.longest)
    steps = arguments.steps or case.steps
    timed = Timed(first=case.warmup, last=case.warmup + steps).check(device.type)
    data = rows_of(case, timed.last)
    order = our_order(data.rows.num_rows, case.recipe)
    lengths = data.lengths[order]
    print(
        f"\n{name}: batch {case.recipe.batch_size}, {data.rows.num_rows:,} rows, mean {lengths.mean():.0f} tokens, "
        f"{case.warmup} steps and then {steps} timed",
        flush=True,
    )
    agreement = compare(case, base, place, arguments)

    sides = sides_of(case, base, place, data, order, timed)
    names = {baseline for baseline, _ in case.claims.values()}
    workers = 0
    if TRAINER in names and device.type == "cuda":
        tried = {count: sides[TRAINER](num_workers=count) for count in (0, 4)}
        workers = min(tried, key=lambda count: tried[count].seconds or np.inf)
        print(f"  Trainer is fastest with {workers} loader processes")
    seconds: dict[str, list[float]] = {side: [] for side in ("ours", *sorted(names))}
    for turn in range(arguments.rounds + 1):
        for side, kept in seconds.items():
            done = sides[side](num_workers=workers) if side == TRAINER else sides[side]()
            assert done.seconds is not None
            if turn:  # in the first one every shape and kernel is met
                kept.append(done.seconds)
            free_memory(device)
    begins = timed.first * case.recipe.batch_size
    ends = timed.last * case.recipe.batch_size
    figures = {
        side: rates(kept, lengths[begins:ends], ends - begins, case.config, ceiling)
        for side, kept in seconds.items()
    }
    for side, each in figures.items():
        print(
            f"  {side:12} {each['samples_per_second']:10,.0f} samples/s {each['tokens_per_second'] / 1e6:8.3f} Mtok/s "
            f"{each['tflops']:8.1f} TFLOP/s, MFU {each['mfu']:.1%}",
            flush=True,
        )
    for claim, (side, kind) in case.claims.items():
        rate = figures["ours"]["samples_per_second"]
        ratio = statistics.median(
            theirs / ours for ours, theirs in zip(seconds["ours"], seconds[side], strict=True)
        )
        print(f"  ours over {side}: {ratio:.3f} (median of {arguments.rounds} pairs)")
        what = (
            f"transformers.Trainer, bf16, padded to the longest of a batch, fused AdamW, {workers} loader processes"
            if side == TRAINER
            else "plain loop, fp32, padded to 128, AdamW"
        )
        finish(
            arguments,
            claim,
            ratio if kind == "ratio" else rate,
            "ratio" if kind == "ratio" else "samples/s",
            f"{what}: {figures[side]['samples_per_second']:,.0f} samples/s",
            ceiling=f"{ceiling:.3g} TFLOP/s, bf16, product of large squares"
            if device.type == "cuda"
            else None,
            details={
                "batch_size": case.recipe.batch_size,
                "mean_tokens": round(float(lengths[begins:ends].mean()), 1),
                "steps": steps,
                "ratio": float(f"{ratio:.4g}"),
                **agreement[side],
                "ours": rounded(figures["ours"]),
                "baseline": rounded(figures[side]),
            },
        )


def rates(
    seconds: Sequence[float],
    lengths: np.ndarray,
    num_samples: int,
    config: Any,  # noqa: ANN401
    ceiling: float,
) -> dict[str, Any]:
    """Rates and MFU of rounds that trained on so many samples, as sequences of these lengths; medians."""
    taken = statistics.median(seconds)
    tflops = 3 * flops(lengths, model_shape(config)) / 1e12 / taken
    return {
        "samples_per_second": num_samples / taken,
        "tokens_per_second": float(lengths.sum()) / taken,
        "tflops": tflops,
        "mfu": tflops / ceiling,
        "mfu_of_data_sheet": tflops / PEAK_TFLOPS,
        "seconds": [round(each, 4) for each in seconds],
    }


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures to four digits."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()
    }


def rows_of(case: Case, num_steps: int) -> MadeUp:
    """Rows for so many whole steps."""
    generator = np.random.default_rng(1)
    count = num_steps * case.recipe.batch_size
    lengths = np.exp(generator.standard_normal(count) * case.sigma + np.log(case.median))
    return made_up_rows(
        np.clip(lengths, case.shortest, case.longest).astype(int),
        vocab_size=case.config.vocab_size,
        num_labels=case.num_labels,
        pairs=case.pairs,
        seed=2,
    )


def sides_of(
    case: Case,
    base: Path,
    place: Path,
    data: MadeUp,
    order: list[int],
    timed: Timed | None,
    *,
    recipe: Recipe | None = None,
) -> dict[str, Callable[..., Training]]:
    """A function for each side that trains it from the base."""
    recipe = recipe or case.recipe
    names = [str(number) for number in range(case.num_labels)]
    features = data.in_order(order)
    few = rows_of(case, 1).rows  # validation ends each training; outside of the timed steps
    held_out = few.take(range(case.num_labels * 2))
    tokenizer = load_tokenizer(base)
    keep = timed is None

    def ours() -> Training:
        return train_ours(
            base, data.rows, unlike(held_out), recipe, place / "ours", timed=timed, near_duplicates=False
        )

    def trainer(*, num_workers: int = 0) -> Training:
        model = load_classifier(base, recipe, names)
        return train_with_trainer(
            model,
            tokenizer,
            features,
            recipe,
            place / "trainer",
            timed=timed,
            keep_losses=keep,
            ordered=True,
            num_workers=num_workers,
        )

    def plain() -> Training:
        model = load_classifier(base, recipe, names)
        return train_plainly(
            model,
            features,
            recipe,
            pad_token_id=tokenizer.pad_token_id,
            timed=timed,
            keep_losses=keep,
        )

    return {"ours": ours, TRAINER: trainer, PLAIN: plain}


def unlike(rows: LabelledRows) -> LabelledRows:
    """The rows with a word more each: what validates must not have been trained on."""
    return LabelledRows(
        texts=tuple(f"{text} w7 w7 w7" for text in rows.texts),
        labels=rows.labels,
        text_pairs=rows.text_pairs,
    )


def compare(
    case: Case, base: Path, place: Path, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """How far the loss curves of ours lie from those of each baseline; exits where it is too far.

    From the same weights, without dropout: in fp32, where they must
    be the same training, and for Trainer also in bf16, where rounding alone drives steep curves apart (Trainer's own
    in bf16 and fp32 too). The plain loop does not clip, so ours does not either beside it.
    """
    num_steps = arguments.compared_steps or (8 if arguments.tiny else 100)
    data = rows_of(case, num_steps)
    recipe = without_dropout(case.recipe)
    exact = replace(recipe, precision="fp32")
    unclipped = replace(exact, max_gradient_norm=1e9)
    order = our_order(data.rows.num_rows, recipe)
    found = {}
    for side in sorted({side for side, _ in case.claims.values()}):
        chosen = unclipped if side == PLAIN else exact
        sides = sides_of(case, base, place, data, order, None, recipe=chosen)
        name = f"ours and {side}, fp32"
        found[side] = check_losses(name, sides["ours"](), sides[side](), allowed=ALLOWED_FP32)
        if side == TRAINER and recipe.bf16:
            sides = sides_of(case, base, place, data, order, None, recipe=recipe)
            name, allowed = f"ours and {side}, bf16", arguments.allowed_loss_difference
            found[side] |= {
                f"{key}_bf16": value
                for key, value in check_losses(name, sides["ours"](), sides[side](), allowed=allowed).items()
            }
    return found


if __name__ == "__main__":
    main()
