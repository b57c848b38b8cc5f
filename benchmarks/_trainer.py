"""Both sides of a training that is compared: ours, `transformers.Trainer`, and the plain loop of a DDP tutorial.

All three start from one folder, with its head, and take the same rows in the same order. `Trainer` is given its
best: bf16 where ours has it, the fused optimizer, rows padded to the longest of a batch, no logging, no check of
each loss for NaN (which would wait for the device at each step), and as many loader processes as are fastest. The
plain loop is what many a repository has: fp32, rows padded to the longest allowed, AdamW, nothing else.

A timed stretch lies between the ends of two steps, so that loading, recording and the first shapes stay outside
of it on all sides; the device has done its work at both readings of the clock.

Axes: N rows.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from _words import BEGIN, END, FIRST_WORD, PAD, quiet, word_tokenizer
from torch.utils.data import SequentialSampler
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from assay.labelled.rows import LabelledRows
from assay.tasks import Task, TaskName
from assay.train.batches import ShuffledSampler
from assay.train.settings import TrainSettings
from assay.train.train import TrainProgress, fit

Feature = dict[str, Any]
"""A row as a collator takes it: `input_ids`, `labels`, and `token_type_ids` where the model has them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What both sides of a comparison have in common."""

    batch_size: int
    """Rows of a device in a step."""
    learning_rate: float
    epochs: int = 1
    schedule: Literal["linear", "cosine", "constant"] = "constant"
    warmup_share: float = 0.0
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    max_length: int = 512
    dropout: float | None = None
    """None: what the base's config says, and our default in a Siamese head."""
    seed: int = 0
    device: str = "cuda"
    """cuda or cpu."""
    precision: Literal["auto", "fp32"] = "auto"
    """auto: bf16 on a GPU, on both sides."""
    task: TaskName = "single_label"
    best_by: str | None = None
    """The validation metric that chooses the checkpoint."""
    evaluate_every: int | None = None
    """Steps between validations; None: after each epoch."""

    @property
    def bf16(self) -> bool:
        """Whether the forward pass is in bf16."""
        return self.device != "cpu" and self.precision == "auto"

    def num_steps(self, num_rows: int) -> int:
        """Steps of the whole training."""
        return self.epochs * -(-num_rows // self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Which steps are timed: those after `first`, up to and with `last`, counted from 1.

    On a GPU ours tells of 25 steps at a time, with the device's time at the end of the last: both are multiples of 25.
    """

    first: int
    last: int

    def check(self, device: str) -> "Timed":
        """Itself; exits where ours does not tell when the two steps ended on this device."""
        if device != "cpu" and (self.first % 25 or self.last % 25):
            raise SystemExit(
                f"steps {self.first} to {self.last} are timed; on a GPU both are multiples of 25"
            )
        return self

    def of_ours(self, told: Sequence[TrainProgress]) -> float:
        """Seconds by the clock that our training tells with each step."""
        ends = {progress.step: progress.seconds for progress in told if progress.validation is None}
        return ends[self.last] - ends[self.first]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training did."""

    seconds: float | None = None
    """Of the timed steps."""
    losses: tuple[float, ...] = ()
    """Of each step, where they were asked for."""
    validations: tuple[tuple[int, float, Mapping[str, float]], ...] = ()
    """Step, seconds since the call, and metrics of each validation."""
    best: Mapping[str, float] | None = None
    """Metrics of the checkpoint that was kept."""


class Stopwatch:
    """Reads the clock at the ends of two steps, when the device is done."""

    def __init__(self, timed: Timed | None, *, wait: bool) -> None:
        self._timed = timed
        self._wait = wait
        self._began = 0.0
        self.seconds: float | None = None

    def step(self, number: int) -> None:
        """Say that this step, from 1, has been handed to the device."""
        if self._timed is None or number not in {self._timed.first, self._timed.last}:
            return
        if self._wait:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if number == self._timed.first:
            self._began = now
        else:
            self.seconds = now - self._began


# ------------------------------------------------------------ ours


def our_settings(base: Path, out: Path, recipe: Recipe, **changes: Any) -> TrainSettings:  # noqa: ANN401
    """The recipe as ours takes it; `changes` are further fields."""
    fields: dict[str, Any] = {
        "data": ("in memory",),
        "devices": "1",
        "task": recipe.task,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "schedule": recipe.schedule,
        "warmup_share": recipe.warmup_share,
        "weight_decay": recipe.weight_decay,
        "max_gradient_norm": recipe.max_gradient_norm,
        "max_length": recipe.max_length,
        "precision": recipe.precision,
        "dropout": recipe.dropout,
        "evaluate_every": recipe.evaluate_every,
        "best_by": recipe.best_by,
        "seed": recipe.seed,
        "overwrite": True,
        **({} if recipe.dropout is None else {"head_dropout": recipe.dropout}),
        **changes,
    }
    return TrainSettings(base=str(base), out=str(out), **fields)


class _ReachedError(Exception):
    """The accuracy that was waited for."""


def train_ours(
    base: Path,
    rows: LabelledRows,
    validation: LabelledRows,
    recipe: Recipe,
    out: Path,
    *,
    timed: Timed | None = None,
    until: float | None = None,
    **changes: Any,  # noqa: ANN401 - fields of TrainSettings
) -> Training:
    """Ours on one device, through `fit`, as a user's script calls it; ends with a validation accuracy of `until`."""
    began = time.perf_counter()
    told: list[TrainProgress] = []
    validations: list[tuple[int, float, Mapping[str, float]]] = []

    def on_progress(progress: TrainProgress) -> None:
        if progress.validation is not None:
            validations.append((progress.step, time.perf_counter() - began, progress.validation))
            if until is not None and progress.validation["accuracy"] >= until:
                raise _ReachedError
        else:
            told.append(progress)

    settings = our_settings(base, out, recipe, **changes)
    best = None
    with contextlib.suppress(_ReachedError):
        best = fit(settings, rows, validation, on_progress=on_progress).validation
    return Training(
        seconds=None if timed is None else timed.of_ours(told),
        losses=tuple(progress.loss for progress in told),
        validations=tuple(validations),
        best=best,
    )


def our_order(num_rows: int, recipe: Recipe) -> list[int]:
    """The rows in the order in which ours trains on them, all epochs end to end."""
    sampler = ShuffledSampler(num_rows=num_rows, rows_per_step=recipe.batch_size, seed=recipe.seed)
    pieces = [piece for epoch in range(recipe.epochs) for piece in sampler.epoch_steps(epoch)]
    return [int(row) for row in np.concatenate(pieces)]


# ------------------------------------------------------------ transformers.Trainer


class _Trainer(Trainer):
    """Trainer that takes the rows as they lie where `ordered` says so, and can keep each step's loss."""

    ordered = False
    losses: list[torch.Tensor] | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:  # noqa: ANN401 - as in Trainer
        if self.ordered:
            return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)
        return super()._get_train_sampler(train_dataset)

    def training_step(self, *words: Any, **named: Any) -> torch.Tensor:  # noqa: ANN401 - as in Trainer
        loss: torch.Tensor = super().training_step(*words, **named)
        if self.losses is not None:
            self.losses.append(loss.detach().clone())
        return loss


class _Watch(TrainerCallback):
    """Tells a stopwatch of each step, and keeps when each validation ended."""

    def __init__(self, watch: Stopwatch, began: float, until: float | None) -> None:
        self._watch = watch
        self._began = began
        self._until = until
        self.validations: list[tuple[int, float, Mapping[str, float]]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:  # noqa: ANN401, ARG002
        self._watch.step(state.global_step)

    def on_evaluate(
        self,
        args: Any,  # noqa: ANN401, ARG002
        state: Any,  # noqa: ANN401
        control: Any,  # noqa: ANN401
        metrics: Mapping[str, float] | None = None,
        **named: Any,  # noqa: ANN401, ARG002
    ) -> None:
        found = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items()}
        self.validations.append((state.global_step, time.perf_counter() - self._began, found))
        if self._until is not None and found["accuracy"] >= self._until:
            control.should_training_stop = True


def train_with_trainer(  # noqa: PLR0913 - each is a thing of its own
    model: Any,  # noqa: ANN401 - a transformers model
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    features: Sequence[Feature],
    recipe: Recipe,
    folder: Path,
    *,
    timed: Timed | None = None,
    keep_losses: bool = False,
    ordered: bool = False,
    num_workers: int = 0,
    sampling: str | None = None,
    validation: Sequence[Feature] | None = None,
    metrics_of: Callable[[Any], Mapping[str, float]] | None = None,
    keep_best: bool = True,
    began: float | None = None,
    until: float | None = None,
) -> Training:
    """`transformers.Trainer` on these rows; the model ends with the weights that it would save.

    `ordered` takes the rows as they lie, epochs included, so `recipe.epochs` is then 1 pass over them. With
    `validation` rows it validates as the recipe says, and unless `keep_best` is off the best checkpoint comes back
    into the model.
    `began` is the reading of the clock from which validations are timed; training ends with a validation accuracy of
    `until`.
    """
    began = time.perf_counter() if began is None else began
    num_steps = -(-len(features) // recipe.batch_size) if ordered else recipe.num_steps(len(features))
    on_gpu = recipe.device != "cpu"
    strategy = "no" if validation is None else "epoch" if recipe.evaluate_every is None else "steps"
    keeps = keep_best and validation is not None
    lower = recipe.best_by in {"nll", "mae"}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=num_steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=128,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=_scheduler(recipe),
        warmup_steps=round(recipe.warmup_share * num_steps),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_gradient_norm,
        optim="adamw_torch_fused",
        bf16=recipe.bf16,
        use_cpu=not on_gpu,
        seed=recipe.seed,
        dataloader_num_workers=num_workers,
        dataloader_persistent_workers=num_workers > 0,
        dataloader_pin_memory=on_gpu,
        eval_strategy=strategy,
        eval_steps=recipe.evaluate_every,
        save_strategy=strategy if keep_best else "no",
        save_steps=recipe.evaluate_every or 500,
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=keeps,
        metric_for_best_model=f"eval_{recipe.best_by}" if keeps else None,
        greater_is_better=not lower if keeps else None,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        **({"train_sampling_strategy": sampling} if sampling else {}),
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001  else Trainer spreads each batch over all, and makes it larger
    watch = Stopwatch(timed, wait=on_gpu)
    callback = _Watch(watch, began, until)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=list(features),
        eval_dataset=None if validation is None else list(validation),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=metrics_of,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.ordered = ordered
    trainer.losses = [] if keep_losses else None
    with quiet():
        trainer.train()
    best = trainer.state.best_model_checkpoint
    chosen = [found for step, _, found in callback.validations if best and best.endswith(f"-{step}")]
    return Training(
        seconds=watch.seconds,
        losses=tuple(torch.stack(trainer.losses).float().cpu().tolist()) if trainer.losses else (),
        validations=tuple(callback.validations),
        best=chosen[0] if chosen else None,
    )


def predict_with_trainer(
    model: Any,  # noqa: ANN401 - a transformers model
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    features: Sequence[Feature],
    recipe: Recipe,
) -> np.ndarray:
    """Logits [N, C] of the rows, in order, in the precision of the training."""
    device = torch.device(recipe.device)
    model = model.to(device).eval()
    collate = DataCollatorWithPadding(tokenizer)
    found = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
        for first in range(0, len(features), 128):
            few = [{**row, "labels": 0} for row in features[first : first + 128]]
            batch = {name: each.to(device) for name, each in collate(few).items() if name != "labels"}
            found.append(model(**batch).logits.float().cpu().numpy())
    return np.concatenate(found)


def _scheduler(recipe: Recipe) -> str:
    with_warmup = recipe.schedule == "constant" and recipe.warmup_share > 0
    return "constant_with_warmup" if with_warmup else recipe.schedule


# ------------------------------------------------------------ the plain loop


def train_plainly(
    model: Any,  # noqa: ANN401 - a transformers model
    features: Sequence[Feature],
    recipe: Recipe,
    *,
    pad_token_id: int,
    timed: Timed | None = None,
    keep_losses: bool = False,
) -> Training:
    """The loop of a DDP tutorial on one device, rows as they lie: fp32, padded to `max_length`, AdamW, no more.

    Rows are token ids already, which is kinder to it than tokenizing them one by one as tutorials do. No
    schedule, no clipping, no mixed precision.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device(recipe.device)
    model = model.to(device).train()
    set_seed(recipe.seed)
    padded = []
    for row in features:
        ids = torch.full((recipe.max_length,), pad_token_id)
        ids[: len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask = (torch.arange(recipe.max_length) < len(row["input_ids"])).long()
        padded.append({"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(row["labels"])})
    loader = torch.utils.data.DataLoader(padded, batch_size=recipe.batch_size, shuffle=False)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    watch = Stopwatch(timed, wait=recipe.device != "cpu")
    losses: list[torch.Tensor] = []
    for number, batch in enumerate(loader, start=1):
        loss = model(**{name: each.to(device) for name, each in batch.items()}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if keep_losses:
            losses.append(loss.detach())
        watch.step(number)
    return Training(seconds=watch.seconds, losses=tuple(torch.stack(losses).cpu().tolist()) if losses else ())


# ------------------------------------------------------------ models and rows


def load_classifier(base: Path, recipe: Recipe, names: Sequence[str]) -> Any:  # noqa: ANN401
    """The base in fp32 with a head for these labels: the base's own where it fits, else one of the seed's."""
    config = AutoConfig.from_pretrained(base)
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    config.problem_type = Task(recipe.task).problem_type
    if recipe.dropout is not None:
        for name, value in config.to_dict().items():
            if "dropout" in name and isinstance(value, float | int):
                setattr(config, name, recipe.dropout)
    with quiet():
        set_seed(recipe.seed)
        return AutoModelForSequenceClassification.from_pretrained(
            base, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        )


def load_tokenizer(base: Path) -> Any:  # noqa: ANN401
    """The base's tokenizer as transformers has it."""
    with quiet():
        return AutoTokenizer.from_pretrained(base)


def to_features(
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    rows: LabelledRows,
    targets: Sequence[int | float],
    max_length: int,
) -> list[Feature]:
    """The rows as a user of Trainer tokenizes them: in one call, cut, not padded."""
    pairs = None if rows.text_pairs is None else list(rows.text_pairs)
    found = tokenizer(list(rows.texts), pairs, truncation=True, max_length=max_length)
    names = [name for name in found if name != "attention_mask"]
    return [
        {**{name: found[name][row] for name in names}, "labels": target} for row, target in enumerate(targets)
    ]


def write_random_model(config: Any, folder: Path, *, max_length: int, seed: int = 0) -> Path:  # noqa: ANN401
    """A folder with random weights of this configuration, head included, and `word_tokenizer`."""
    config = type(config)(**{**config.to_dict(), "pad_token_id": PAD})
    torch.manual_seed(seed)
    with quiet():
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    word_tokenizer(folder, config.vocab_size, max_length)
    return folder


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """Rows of made-up words, as both sides take them."""

    rows: LabelledRows
    features: tuple[Feature, ...]
    """The same rows as ids, special ones included."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, [N]."""
        return np.array([len(row["input_ids"]) for row in self.features])

    def in_order(self, order: Sequence[int]) -> list[Feature]:
        """The features in this order."""
        return [self.features[row] for row in order]


def made_up_rows(lengths: np.ndarray, *, vocab_size: int, num_labels: int, pairs: bool, seed: int) -> MadeUp:
    """Rows of these lengths in tokens, special ones included, with labels that can be learnt.

    A quarter of a row's words come from fifty that its label has to itself; the rest from all.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_labels, len(lengths))
    texts, seconds, features = [], [], []
    for length, label in zip(lengths.tolist(), labels.tolist(), strict=True):
        words = generator.integers(FIRST_WORD, vocab_size, max(2, length - (4 if pairs else 2)))
        own = generator.random(len(words)) < 0.25
        words[own] = FIRST_WORD + 50 * label + generator.integers(0, 50, int(own.sum()))
        half = len(words) // 2
        first, second = (words[:half].tolist(), words[half:].tolist()) if pairs else (words.tolist(), [])
        texts.append(" ".join(f"w{word}" for word in first))
        seconds.append(" ".join(f"w{word}" for word in second))
        ids = [BEGIN, *first, END, *([END, *second, END] if pairs else [])]
        features.append({"input_ids": ids, "labels": label})
    return MadeUp(
        rows=LabelledRows(
            texts=tuple(texts),
            labels=tuple(str(label) for label in labels.tolist()),
            text_pairs=tuple(seconds) if pairs else None,
        ),
        features=tuple(features),
    )


# ------------------------------------------------------------ agreement


def loss_difference(ours: Sequence[float], theirs: Sequence[float], *, window: int = 10) -> float:
    """Largest difference of two loss curves, each smoothed by a mean over `window` steps."""
    if len(ours) != len(theirs) or not ours:
        raise SystemExit(f"{len(ours)} losses of ours, {len(theirs)} of theirs; both train the same steps")
    box = np.ones(min(window, len(ours))) / min(window, len(ours))
    one, other = (np.convolve(np.array(each), box, mode="valid") for each in (ours, theirs))
    return float(np.abs(one - other).max())


def check_losses(name: str, ours: Training, theirs: Training, *, allowed: float) -> dict[str, float]:
    """Print how far two loss curves lie apart; exits where that is more than `allowed`."""
    difference = loss_difference(ours.losses, theirs.losses)
    few = min(10, len(ours.losses))
    began, ended = (float(np.mean(part)) for part in (theirs.losses[:few], theirs.losses[-few:]))
    print(
        f"  {name}: loss {began:.3f} -> {ended:.3f} in {len(ours.losses)} steps without dropout; largest "
        f"difference of the smoothed curves {difference:.4f} (allowed {allowed})",
        flush=True,
    )
    if not difference <= allowed:
        raise SystemExit(f"{name} is not the same training; nothing is timed")
    return {
        "loss_at_start": round(began, 4),
        "loss_at_end": round(ended, 4),
        "largest_loss_difference": float(f"{difference:.3g}"),
    }


FIRST_STEPS = 5
FIRST_ALLOWED = {"fp32": 1e-3, "bf16": 0.02}
"""Largest difference of one of the first losses, which weights have hardly moved apart, by precision."""


def check_first_losses(name: str, ours: Training, theirs: Training, *, allowed: float) -> float:
    """Print how far the first losses lie apart, before rounding has grown; exits where that is more than `allowed`."""
    first = max(
        abs(one - other) for one, other in zip(ours.losses[:FIRST_STEPS], theirs.losses, strict=False)
    )
    print(f"  {name}: largest difference of the first {FIRST_STEPS} losses {first:.1e}", flush=True)
    if not first <= allowed:
        raise SystemExit(
            f"{name}: the first losses differ by {first:.1e}, more than {allowed}; nothing is timed"
        )
    return float(f"{first:.3g}")


def without_dropout(recipe: Recipe) -> Recipe:
    """The recipe for a run whose losses are compared."""
    return replace(recipe, dropout=0.0)
