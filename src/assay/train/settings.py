"""What `assay train` can be told. Imports nothing heavy, so that the command line starts fast."""

import math
from dataclasses import dataclass
from typing import Literal

from assay.errors import UsageError
from assay.tasks import MetricName, Task, TaskName

BestBy = Literal["accuracy", "macro_f1", "nll", "auc", "mae", "spearman", "int_macro_f1"]
Schedule = Literal["linear", "cosine", "constant"]


def check_count(name: str, value: int | None) -> None:
    """Raise `UsageError` for a count below 1; `None` is none."""
    if value is not None and value < 1:
        raise UsageError(f"{name}={value}; it counts from 1; raise it or leave it out")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """Fine-tuning of one classifier."""

    base: str
    """Folder of the model to start from: config, safetensors, tokenizer.json; with or without a head."""
    out: str
    """Folder that becomes the bundle."""
    data: tuple[str, ...]
    """Sources of labelled rows: paths, globs or URLs."""
    validation_data: tuple[str, ...] = ()
    """Sources of the rows that choose the checkpoint; none: a share of `data` is set aside."""
    format: str | None = None
    """Format of all sources, where the file name does not tell."""
    task: TaskName = "single_label"
    """One label a row, any number of labels a row (a list column), or a number a row."""
    text_column: str = "text"
    """Column of the text."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label: strings or integers, lists of them for multi-label, numbers for regression."""
    group_column: str | None = None
    """Column (author, book, url) whose rows stay on one side of the split."""
    id_column: str | None = None
    """Column of ids; rows of one id stay on one side too, and calibration refuses ids that were trained on."""
    validation_share: float = 0.1
    """Share of the rows set aside where there is no `validation_data`, above 0 and below 1."""
    near_duplicates: bool = True
    """Keep near-duplicate texts (MinHash) on one side of the split."""
    epochs: int = 3
    """Passes over the training rows."""
    batch_size: int = 16
    """Documents of a device in a step."""
    gradient_accumulation: int = 1
    """Batches of a device in a step."""
    max_batch_tokens: int | None = None
    """Most tokens of one forward and backward pass; larger batches take several, the step is the same."""
    learning_rate: float = 5e-5
    """Largest learning rate, reached after the warm-up."""
    schedule: Schedule = "linear"
    """How the learning rate falls after the warm-up: to 0 in a line or a half cosine, or not at all."""
    warmup_share: float = 0.1
    """Share of the steps during which the learning rate rises."""
    layer_decay: float = 1.0
    """Each lower layer's learning rate is this share of the next higher one's; 1: all the same."""
    weight_decay: float = 0.01
    """AdamW's decay of weight matrices; biases and norms have none."""
    max_gradient_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all labels; single-label only."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each label weighs the inverse of its share of the training rows."""
    max_length: int = 256
    """Tokens a document, special tokens included; longer ones are cut."""
    dropout: float | None = None
    """Share of activations dropped in training; left out: what the base's config says."""
    num_frozen_layers: int = 0
    """Lowest layers left as they are; above 0 the embeddings are left too."""
    freeze_encoder: bool = False
    """Train the head alone."""
    lora_rank: int | None = None
    """Rank of LoRA updates of the attention's and feed-forward's matrices; left out: train the matrices."""
    lora_alpha: int = 16
    """LoRA updates are scaled by alpha / rank."""
    gradient_checkpointing: bool = False
    """Compute each layer twice and keep less in memory."""
    best_by: BestBy | None = None
    """Validation metric that chooses the checkpoint; left out: accuracy, macro_f1 or spearman by task."""
    evaluate_every: int | None = None
    """Steps between validations; left out: after each epoch."""
    patience: int | None = None
    """Stop after so many validations in a row without a better one; left out: never."""
    int_score_min: int | None = None
    """Regression: least whole score; with `int_score_max`, scores are also given rounded and clipped."""
    int_score_max: int | None = None
    """Regression: greatest whole score."""
    devices: str = "1"
    """How many GPUs, each with `batch_size` documents a step (without any: CPU processes); `auto`: all GPUs."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """ddp: each device holds the model; fsdp: each holds a part of it, for models that outgrow one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward pass; weights and updates are fp32. auto: bf16 on a GPU that has it, else fp32."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; one is written after each validation too, if the one before is on the disk."""
    resume: bool = False
    """Go on from the last checkpoint of an interrupted training."""
    log_to: Literal["none", "tensorboard", "wandb"] = "none"
    """Where figures go besides the progress line, the report and metrics.jsonl."""
    report_texts: bool = True
    """The report holds the beginning of the worst-judged validation texts, which may be private. On by default."""
    seed: int = 0
    """Decides the split, the head's first weights, the order of the rows and the dropout."""
    num_threads: int | None = None
    """CPU threads a process; left out: all that it may use, shared among the processes."""
    overwrite: bool = False
    """Whether a folder at `out`, or an interrupted training of it, may be replaced."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value out of range."""
        self._check_counts()
        self._check_shares()
        self._check_task()

    def _check_counts(self) -> None:
        for name in ("epochs", "batch_size", "gradient_accumulation", "max_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}; it counts from 1; raise it")
        for name in (
            "max_batch_tokens",
            "lora_rank",
            "lora_alpha",
            "evaluate_every",
            "patience",
            "num_threads",
        ):
            check_count(name, getattr(self, name))
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed={self.seed}; it lies from 0 to 2**63 - 1; set for example seed=1")
        if self.num_frozen_layers < 0:
            raise UsageError(f"num_frozen_layers={self.num_frozen_layers}; it counts layers; set 0 or more")

    def _check_shares(self) -> None:
        for name in ("learning_rate", "max_gradient_norm", "checkpoint_minutes"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"{name}={value}; it must be a number above 0; set for example {name}=1e-4")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"validation_share={self.validation_share}; it lies between 0 and 1; set 0.1")
        if not 0 <= self.warmup_share <= 1:
            raise UsageError(f"warmup_share={self.warmup_share}; it lies from 0 to 1; set 0.1")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay={self.layer_decay}; it lies above 0 and up to 1; set 0.9")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay={self.weight_decay}; it must be 0 or more; set 0.01")
        for name in ("dropout", "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name}={value}; it is a share from 0 to below 1; set 0.1")

    def _check_task(self) -> None:
        if self.best_by is not None and self.best_by not in Task(self.task).best_by:
            known = ", ".join(Task(self.task).best_by)
            raise UsageError(
                f"best_by={self.best_by}; a {self.task} classifier has {known}; name one of these"
            )
        if self.label_smoothing and self.task != "single_label":
            raise UsageError(
                f"label_smoothing={self.label_smoothing}; only single-label training has it; leave it out"
            )
        if self.class_weights != "none" and self.task == "regression":
            raise UsageError("class_weights=balanced; a regression has no classes; leave it out")
        self._check_int_scores()
        if self.freeze_encoder and self.lora_rank is not None:
            raise UsageError(
                "freeze_encoder trains the head alone and lora_rank the encoder; give one of them"
            )

    def _check_int_scores(self) -> None:
        low, high = self.int_score_min, self.int_score_max
        if (low is None) != (high is None):
            raise UsageError("int_score_min and int_score_max go together; give both or neither")
        if self.best_by == "int_macro_f1" and low is None:
            raise UsageError("best_by=int_macro_f1 needs int_score_min and int_score_max; give both")
        if low is None or high is None:
            return
        if self.task != "regression":
            raise UsageError(f"int_score_min={low}; only a regression has whole scores; leave it out")
        if low >= high:
            raise UsageError(f"int_score_min={low} and int_score_max={high}; the first must be the smaller")

    @property
    def chosen_by(self) -> MetricName:
        """The validation metric that chooses the checkpoint."""
        return self.best_by or Task(self.task).best_by[0]
