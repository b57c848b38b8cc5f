"""Siamese training on one GPU against the same in plain transformers; `--devices 2`: on two GPUs over one.

    python benchmarks/gpu/train_siamese.py --record
    python benchmarks/gpu/train_siamese.py --devices 2 --record

RoBERTa-base with random weights, 32 pairs a device and step, each text a sequence of its own: lengths log-normal,
median 404 tokens, a twentieth above 833, cut at 512, as chunks of novels have them. Words are made up; the texts of a
pair belong together where both are of one of two topics. The vector is a mean, projected to 256 numbers; the loss is
the cross entropy of the head and 0.2 times InfoNCE among the texts of the step. Style and evidence are left out.

Both sides start from the same weights and take the same pairs in the same order, AdamW at 2e-5, clipped. Plain
transformers is `AutoModel` with SDPA attention under bf16 autocast, fused AdamW, nothing that waits for the device,
all texts of a step in one batch, padded to its longest (a multiple of 8), on the device before the clock starts; or
sorted by length and encoded in 2 or 4 such batches, whichever is fastest here.

First the losses are compared, without dropout, in fp32 and in bf16. Then rounds alternate, dropout as the config has
it; loading and the first steps are not timed. The value is the median over pairs of rounds of the steps a second of
ours over theirs. With `--devices`, losses are compared and rounds timed as in `train_scaling.py`: 32 pairs on each,
the texts of all devices held against each other.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from _setup import ceilings, chosen_device, finish, free_memory, parser
from _trainer import (
    FIRST_ALLOWED,
    Feature,
    Recipe,
    Stopwatch,
    Timed,
    Training,
    check_first_losses,
    check_losses,
    made_up_rows,
    our_order,
    our_settings,
    train_ours,
    without_dropout,
    write_random_model,
)
from _words import PAD, quiet
from torch import nn
from train_scaling import Scaled, scaling
from train_throughput import ALLOWED_FP32, cases, rates, rounded, unlike
from transformers import AutoConfig, AutoModel

from assay.labelled.rows import LabelledRows
from assay.siamese.style import StyleScale
from assay.train.base import load_model
from assay.train.optimizer import BETAS, EPS
from assay.train.settings import TrainSettings
from assay.train.siamese import PairParts, add_pair_parts, pair_parts

LABELS = ("0", "1")
SIAMESE: dict[str, Any] = {"architecture": "siamese", "style": "none", "evidence": "none"}
CUTS = (1, 2, 4)
"""Padded batches of a step that are tried."""
MEDIAN, P95, SHORTEST, LONGEST = 404, 833, 16, 512
"""Tokens of a text."""
CONTRASTIVE_CLAIM = "h100x{}.train_contrastive_scaling"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Made-up pairs, as both sides take them."""

    rows: LabelledRows
    first: tuple[Feature, ...]
    second: tuple[Feature, ...]
    """Texts of the rows as ids, special ones included."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, and how much of it is timed."""

    config: Any
    recipe: Recipe
    timed: Timed
    compared_steps: int

    def pairs(self, num_steps: int) -> Pairs:
        """Pairs for so many steps of one device."""
        count = num_steps * self.recipe.batch_size
        sigma = math.log(P95 / MEDIAN) / statistics.NormalDist().inv_cdf(0.95)
        # row by row, so that fewer pairs are the first of more
        drawn = np.random.default_rng(1).standard_normal((count, 2)).T.ravel() * sigma + math.log(MEDIAN)
        made = made_up_rows(
            np.clip(np.exp(drawn), SHORTEST, LONGEST).astype(int),
            vocab_size=self.config.vocab_size,
            num_labels=2,
            pairs=False,
            seed=2,
        )
        texts, topics = made.rows.texts, made.rows.labels
        return Pairs(
            rows=LabelledRows(
                texts=texts[:count],
                text_pairs=texts[count:],
                labels=tuple(
                    LABELS[one == other] for one, other in zip(topics[:count], topics[count:], strict=True)
                ),
            ),
            first=made.features[:count],
            second=made.features[count:],
        )


def main() -> None:
    """Measure one device against plain transformers, or several against one."""
    flags = parser(__doc__)
    flags.add_argument("--devices", type=int, default=1, help="above 1: over one of them")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--steps", type=int, help="timed steps of a round, a multiple of 25")
    flags.add_argument("--allowed-loss-difference", type=float, default=0.05, help="in bf16")
    arguments = flags.parse_args()
    device = chosen_device(arguments, num_gpus=arguments.devices)
    like = cases(device, tiny=arguments.tiny)["roberta-base-pairs"]
    steps = arguments.steps or (like.steps if arguments.tiny else 100)
    case = Case(
        config=like.config,
        recipe=like.recipe,
        timed=Timed(first=like.warmup, last=like.warmup + steps).check(device.type),
        compared_steps=6 if arguments.tiny else 50,
    )
    with tempfile.TemporaryDirectory() as folder:
        base = write_random_model(case.config, Path(folder) / "base", max_length=LONGEST)
        measure = against_plain if arguments.devices == 1 else over_one
        measure(case, base, Path(folder), device, arguments)


def over_one(
    case: Case, base: Path, place: Path, device: torch.device, arguments: argparse.Namespace
) -> None:
    """Compare several devices with one, and print the claim."""
    scaled = Scaled(
        base=base,
        recipe=case.recipe,
        num_labels=len(LABELS),
        rows=lambda num_steps: case.pairs(num_steps).rows,
        changes=SIAMESE,
        first_allowed=FIRST_ALLOWED["bf16" if case.recipe.bf16 else "fp32"],
    )
    found = scaling(scaled, place, device, case.timed, arguments)
    finish(
        arguments,
        CONTRASTIVE_CLAIM.format(arguments.devices),
        found.ratio,
        "ratio",
        found.baseline,
        ceiling=f"{arguments.devices}",
        details=found.details,
    )


def against_plain(
    case: Case, base: Path, place: Path, device: torch.device, arguments: argparse.Namespace
) -> None:
    """Compare with plain transformers, and print the claim."""
    found = ceilings(device, ["fp32" if device.type == "cpu" else "bf16"])
    ceiling = next(iter(found.values()))
    agreement = compare(case, base, place, arguments)
    pairs = case.pairs(case.timed.last)
    ours, plain = sides_of(case.recipe, base, place, pairs, case.timed)
    tried = {count: seconds_of(plain(num_cuts=count), device) for count in CUTS}
    cuts = min(CUTS, key=lambda count: tried[count])
    print(f"  plain transformers is fastest with {cuts} padded batches a step: {tried}", flush=True)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(arguments.rounds + 1):
        for side, kept in seconds.items():
            taken = seconds_of(ours() if side == "ours" else plain(num_cuts=cuts), device)
            if turn:  # in the first one every kernel is met
                kept.append(taken)
    steps = case.timed.last - case.timed.first
    order = our_order(pairs.rows.num_rows, case.recipe)
    rows = order[case.timed.first * case.recipe.batch_size : case.timed.last * case.recipe.batch_size]
    lengths = np.array([len(side[row]["input_ids"]) for side in (pairs.first, pairs.second) for row in rows])
    figures = {
        side: {
            "steps_per_second": steps / statistics.median(kept),
            **rates(kept, lengths, len(rows), case.config, ceiling),
        }
        for side, kept in seconds.items()
    }
    for side, each in figures.items():
        print(
            f"  {side:6} {each['steps_per_second']:8.2f} steps/s {each['tokens_per_second'] / 1e6:8.3f} Mtok/s "
            f"{each['tflops']:8.1f} TFLOP/s, MFU {each['mfu']:.1%}",
            flush=True,
        )
    finish(
        arguments,
        "h100.train_siamese_vs_plain_transformers",
        statistics.median(
            theirs / ours for ours, theirs in zip(seconds["ours"], seconds["plain"], strict=True)
        ),
        "ratio",
        f"AutoModel, SDPA, bf16 autocast, fused AdamW, {cuts} padded batch{'es' * (cuts > 1)} a step"
        f"{', texts sorted by length' * (cuts > 1)}: {figures['plain']['steps_per_second']:.2f} steps/s",
        ceiling=f"{ceiling:.3g} TFLOP/s, bf16, product of large squares" if device.type == "cuda" else None,
        details={
            "pairs_of_a_step": case.recipe.batch_size,
            "mean_tokens_of_a_text": round(float(lengths.mean()), 1),
            "steps": steps,
            "baseline_seconds_by_batches_of_a_step": {
                str(count): round(each, 4) for count, each in tried.items()
            },
            **agreement,
            "ours": rounded(figures["ours"]),
            "baseline": rounded(figures["plain"]),
        },
    )


def seconds_of(done: Training, device: torch.device) -> float:
    """Of the timed steps; what the training held on the device is given back."""
    assert done.seconds is not None, "this training was timed"
    free_memory(device)
    return done.seconds


def compare(case: Case, base: Path, place: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """How far the losses of both sides lie apart without dropout, in fp32 and in bf16; exits where it is too far.

    The baseline is cut as much as it may be, so that the order of its texts is looked at too.
    """
    pairs = case.pairs(case.compared_steps)
    recipe = without_dropout(case.recipe)
    found = {}
    allowed = {"fp32": ALLOWED_FP32, "bf16": arguments.allowed_loss_difference}
    for name in ("fp32", "bf16") if recipe.bf16 else ("fp32",):
        chosen = recipe if name == "bf16" else replace(recipe, precision="fp32")
        ours, plain = sides_of(chosen, base, place, pairs, None)
        one, other = ours(), plain(num_cuts=CUTS[-1])
        agreed = check_losses(f"ours and plain transformers, {name}", one, other, allowed=allowed[name])
        agreed["largest_difference_of_first_losses"] = check_first_losses(
            f"ours and plain transformers, {name}", one, other, allowed=FIRST_ALLOWED[name]
        )
        found |= {f"{key}_{name}": value for key, value in agreed.items()}
    return found


def sides_of(
    recipe: Recipe, base: Path, place: Path, pairs: Pairs, timed: Timed | None
) -> tuple[Callable[[], Training], Callable[..., Training]]:
    """Functions that train ours and plain transformers from the base."""
    out = place / "ours"
    order = our_order(pairs.rows.num_rows, recipe)
    held_out = unlike(pairs.rows.take(range(min(8, pairs.rows.num_rows))))

    def ours() -> Training:
        return train_ours(
            base, pairs.rows, held_out, recipe, out, timed=timed, near_duplicates=False, **SIAMESE
        )

    def plain(*, num_cuts: int) -> Training:
        settings = our_settings(base, out, recipe, **SIAMESE)
        model = PlainSiamese(base, recipe, settings)
        return train_plain(model, steps_of(pairs, order, recipe, num_cuts), recipe, timed)

    return ours, plain


# ------------------------------------------------------------ plain transformers


@dataclass(frozen=True, kw_only=True)
class Step:
    """The texts of a step's R pairs, all on the device: the first of each, and then the second."""

    batches: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Ids and mask, each padded to its longest."""
    places: torch.Tensor
    """Where each text is among those of the batches, [2R]."""
    labels: torch.Tensor
    """[R]"""


def steps_of(pairs: Pairs, order: Sequence[int], recipe: Recipe, num_cuts: int) -> list[Step]:
    """The steps of an epoch; with more than one cut a step's texts are sorted by length."""
    found = []
    for start in range(0, len(order), recipe.batch_size):
        rows = order[start : start + recipe.batch_size]
        texts = [side[row]["input_ids"] for side in (pairs.first, pairs.second) for row in rows]
        by_length = range(len(texts))
        if num_cuts > 1:
            by_length = sorted(by_length, key=lambda text: -len(texts[text]))
        cuts = np.array_split(np.array(by_length), num_cuts)
        found.append(
            Step(
                batches=tuple(padded([texts[text] for text in cut], recipe.device) for cut in cuts),
                places=torch.from_numpy(np.argsort(by_length)).to(recipe.device),
                labels=torch.tensor([int(pairs.rows.labels[row]) for row in rows], device=recipe.device),
            )
        )
    return found


def padded(texts: Sequence[Sequence[int]], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of texts, padded to a multiple of 8 of the longest."""
    longest = -(-max(map(len, texts)) // 8) * 8
    ids = torch.full((len(texts), longest), PAD)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    return ids.to(device), (ids != PAD).long().to(device)


class PlainSiamese(nn.Module):
    """The model as a user of transformers writes it, with the weights that ours begins with."""

    def __init__(self, base: Path, recipe: Recipe, settings: TrainSettings) -> None:
        super().__init__()
        config = AutoConfig.from_pretrained(base)
        if recipe.dropout is not None:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = recipe.dropout
        with quiet():
            self.encoder = AutoModel.from_pretrained(
                base, config=config, dtype=torch.float32, attn_implementation="sdpa", add_pooling_layer=False
            )
        begun = first_parts(settings)
        self.projection, self.inner, self.out = begun.projection, begun.head.inner, begun.head.out
        self.log_temperature = begun.head.log_temperature
        self.dropout = nn.Dropout(settings.head_dropout)
        self.autocasts = recipe.bf16

    def vectors(self, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        """Return those of the first and of the second texts, each of length 1."""
        # one context for all batches, so that weights are cast once
        with torch.autocast(step.labels.device.type, torch.bfloat16, enabled=self.autocasts):
            states = [
                self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                for ids, mask in step.batches
            ]
        found = []
        for hidden, (_, mask) in zip(states, step.batches, strict=True):
            weights = mask[:, :, None].float()
            mean = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
            found.append(F.normalize(self.projection(mean), dim=1))
        first, second = torch.cat(found)[step.places].chunk(2)
        return first, second

    def logits(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return those of pairs in this order."""
        u, v = (each * each.shape[1] ** 0.5 for each in (u, v))
        seen = torch.cat([u, v, (u - v).abs(), u * v], dim=1)
        logits: torch.Tensor = self.out(self.dropout(F.gelu(self.inner(seen))))
        return logits

    def loss(self, step: Step, contrastive_weight: float) -> torch.Tensor:
        """Return the cross entropy of the pairs, and InfoNCE of those that belong together, both ways."""
        first, second = self.vectors(step)
        logits = (self.logits(first, second) + self.logits(second, first)) / 2
        cosines = first @ second.T / self.log_temperature.exp()
        own = torch.arange(len(first), device=first.device)
        both = sum(F.cross_entropy(each, own, reduction="none") for each in (cosines, cosines.T))
        contrastive = (both * step.labels).sum() / (2 * step.labels.sum()).clamp(min=1)
        return F.cross_entropy(logits, step.labels) + contrastive_weight * contrastive


def first_parts(settings: TrainSettings) -> PairParts:
    """The projection and head that ours begins with."""
    torch.manual_seed(settings.seed)
    model = load_model(settings, LABELS)
    add_pair_parts(model, settings, LABELS, StyleScale.fit((), settings.style, settings.language))
    parts = pair_parts(model)
    assert parts is not None, "they have just been added"
    return parts


def train_plain(model: PlainSiamese, steps: Sequence[Step], recipe: Recipe, timed: Timed | None) -> Training:
    """One pass over the steps; losses are kept where nothing is timed."""
    model = model.to(recipe.device).train()
    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=BETAS, eps=EPS, fused=True)
    weight = TrainSettings.contrastive_weight
    watch = Stopwatch(timed, wait=recipe.device != "cpu")
    losses = []
    for number, step in enumerate(steps, start=1):
        loss = model.loss(step, weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.max_gradient_norm)
        optimizer.step()
        if timed is None:
            losses.append(loss.detach())
        watch.step(number)
    return Training(seconds=watch.seconds, losses=tuple(torch.stack(losses).cpu().tolist()) if losses else ())


if __name__ == "__main__":
    main()
