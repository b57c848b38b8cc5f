"""What `assay train` can be told. Imports nothing heavy, so that the command line starts fast."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from assay.engine.settings import CpuThreads
from assay.errors import UsageError
from assay.labelled.settings import LabelledSources
from assay.runs.settings import RayAddress
from assay.settings import AUTO_OR_COUNT, COUNT, WIDTH, within
from assay.siamese.settings import SiameseTraining
from assay.tasks import MetricName, Task, TaskName

BestBy = Literal["accuracy", "macro_f1", "nll", "auc", "mae", "spearman", "int_macro_f1"]
STEP_OF = ("batch_size", "gradient_accumulation", "devices")
"""What the rows of a step depend on; a resumed training may change them as long as their product stays."""
Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LabelledSources, CpuThreads, SiameseTraining, RayAddress):
    """Fine-tuning of one classifier."""

    base: str
    """Folder of the model to start from: config, safetensors, tokenizer.json; with or without a head."""
    out: str
    """Folder that becomes the bundle."""
    data: tuple[str, ...]
    """Sources of labelled rows: paths, globs or URLs."""
    validation_data: tuple[str, ...] = ()
    """Sources of the rows that choose the checkpoint; none: a share of `data` is set aside."""
    task: TaskName = "single_label"
    """One label a row, any number of labels a row (a list column), or a number a row."""
    limit_rows: int | None = field(default=None, metadata=COUNT)
    """For a trial: only this many rows of `data`, and of `validation_data`, drawn by the seed."""
    validation_share: float = field(default=0.1, metadata=within(above=0, below=1))
    """Share of the rows set aside where there is no `validation_data`, above 0 and below 1."""
    near_duplicates: bool = True
    """Keep near-duplicate texts (MinHash) on one side of the split."""
    epochs: int = field(default=3, metadata=within(at_least=1, at_most=1_000_000))
    """Passes over the training rows."""
    batch_size: int = field(default=16, metadata=COUNT)
    """Documents of a device in a step."""
    gradient_accumulation: int = field(default=1, metadata=COUNT)
    """Batches of a device in a step."""
    max_batch_tokens: int | None = field(default=None, metadata=COUNT)
    """Most tokens of one forward and backward pass; larger batches take several, the step is the same."""
    learning_rate: float = field(default=5e-5, metadata=within(above=0, at_most=100))
    """Largest learning rate, reached after the warm-up."""
    schedule: Schedule = "linear"
    """How the learning rate falls after the warm-up: to 0 in a line or a half cosine, or not at all."""
    warmup_share: float = field(default=0.1, metadata=within(at_least=0, at_most=1))
    """Share of the steps during which the learning rate rises."""
    warmup_steps: int | None = field(default=None, metadata=within(at_least=0))
    """Steps during which it rises, instead of a share; by default the share holds."""
    layer_decay: float = field(default=1.0, metadata=within(above=0, at_most=1))
    """Each lower layer's learning rate is this share of the next higher one's; 1: all the same."""
    weight_decay: float = field(default=0.01, metadata=within(at_least=0, at_most=1_000))
    """AdamW's decay of weight matrices; biases and norms have none."""
    max_gradient_norm: float = field(default=1.0, metadata=within(above=0))
    """Gradients with a larger norm are scaled down to it."""
    label_smoothing: float = field(default=0.0, metadata=within(at_least=0, below=1))
    """Share of the target spread evenly over all labels; single-label only."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each label weighs the inverse of its share of the training rows."""
    max_length: int = field(default=256, metadata=COUNT)
    """Tokens a document, special tokens included; longer ones are cut."""
    dropout: float | None = field(default=None, metadata=within(at_least=0, below=1))
    """Share of activations dropped in training; by default what the base's config says."""
    num_frozen_layers: int = field(default=0, metadata=within(at_least=0))
    """Lowest layers left as they are; above 0 the embeddings are left too."""
    freeze_encoder: bool = False
    """Train the head alone."""
    lora_rank: int | None = field(default=None, metadata=WIDTH)
    """Rank of LoRA updates of the attention's and feed-forward's matrices; by default train the matrices."""
    lora_alpha: int = field(default=16, metadata=within(at_least=1, at_most=1_000_000))
    """LoRA updates are scaled by alpha / rank."""
    gradient_checkpointing: bool = False
    """Compute each layer twice and keep less in memory."""
    best_by: BestBy | None = None
    """Validation metric that chooses the checkpoint; by default accuracy, macro_f1 or spearman by task."""
    evaluate_every: int | None = field(default=None, metadata=COUNT)
    """Steps between validations; by default after each epoch."""
    patience: int | None = field(default=None, metadata=COUNT)
    """Stop after this many validations in a row without a better one; by default never."""
    int_score_min: int | None = None
    """Regression: least whole score; with `int_score_max`, scores are also given rounded and clipped."""
    int_score_max: int | None = None
    """Regression: greatest whole score."""
    devices: str = field(default="1", metadata=AUTO_OR_COUNT)
    """How many GPUs, each with `batch_size` documents a step (without any: CPU processes); `auto`: all GPUs."""
    executor: Literal["local", "ray"] = "local"
    """Processes here; ray: on a Ray cluster, whose machines all see the rows, the base and --out."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """ddp: each device holds the model; fsdp: each holds a part of it, for models that outgrow one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward pass; weights and updates are fp32. auto: bf16 on a GPU that has it, else fp32."""
    checkpoint_minutes: float = field(default=5.0, metadata=within(above=0))
    """Minutes between checkpoints; one is written after each validation too, if the one before is on the disk."""
    resume: bool = False
    """Continue from the last checkpoint of an interrupted training."""
    log_to: Literal["none", "tensorboard", "wandb"] = "none"
    """Where figures go in addition to the progress line, the report and metrics.jsonl."""
    report_texts: bool = True
    """The report holds the beginning of the worst-judged validation texts, which may be private. On by default."""
    seed: int = field(default=0, metadata=within(at_least=0, below=1 << 63))
    """Decides the split, the head's first weights, the order of the rows and the dropout."""
    dry_run: bool = False
    """Say what would be trained, on what and in how many steps; train and write nothing."""
    overwrite: bool = False
    """Whether a folder at `out`, or an interrupted training of it, may be replaced."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if self.best_by is not None and self.best_by not in self.predicts.best_by:
            known = ", ".join(self.predicts.best_by)
            raise UsageError(
                f"best_by={self.best_by}; a {self.task} classifier has {known}; name one of these"
            )
        if self.label_smoothing and self.predicts is not Task.SINGLE_LABEL:
            raise UsageError(
                f"label_smoothing={self.label_smoothing}; only single-label training has it; leave it out"
            )
        if self.class_weights != "none" and self.predicts is Task.REGRESSION:
            raise UsageError("class_weights=balanced; a regression has no classes; leave it out")
        self._check_int_scores()
        if self.freeze_encoder and self.lora_rank is not None:
            raise UsageError(
                "freeze_encoder trains the head alone and lora_rank the encoder; give one of them"
            )
        self._check_siamese()

    def _check_siamese(self) -> None:
        if not self.is_siamese:
            return
        if self.predicts is not Task.SINGLE_LABEL:
            raise UsageError(f"task={self.task}; a Siamese model has one label a pair; leave task out")
        if self.parallel == "fsdp":
            raise UsageError(
                "parallel=fsdp; the pairs of a Siamese step are compared over all ranks; leave it out"
            )
        self._check_pairs()

    def _check_int_scores(self) -> None:
        low, high = self.int_score_min, self.int_score_max
        if (low is None) != (high is None):
            raise UsageError("int_score_min and int_score_max go together; give both or neither")
        if self.best_by == "int_macro_f1" and low is None:
            raise UsageError("best_by=int_macro_f1 needs int_score_min and int_score_max; give both")
        if low is None or high is None:
            return
        if self.predicts is not Task.REGRESSION:
            raise UsageError(f"int_score_min={low}; only a regression has whole scores; leave it out")
        if low >= high:
            raise UsageError(f"int_score_min={low} and int_score_max={high}; the first must be the smaller")

    def _check_pairs(self) -> None:
        """Raise `UsageError` where columns of both texts are missing."""
        for name in ("book_columns", "author_columns"):
            columns = getattr(self, name)
            if len(columns) not in {0, 2}:
                raise UsageError(
                    f"{name}={' '.join(columns)}; a pair has two texts; name two columns, or leave it out"
                )
        needed = {
            "book_columns": {
                "contrastive=supcon": self.contrastive == "supcon",
                "rows_per_book": self.rows_per_book > 1,
            },
            "author_columns": {
                "not_negatives=same_author": self.not_negatives == "same_author",
                "author_weight": self.author_weight > 0,
                "books_per_author": self.books_per_author > 1,
            },
        }
        for name, reasons in needed.items():
            for reason, holds in reasons.items():
                if holds and not getattr(self, name):
                    raise UsageError(f"{reason} needs {name}; name the columns, or leave {reason} out")

    @property
    def is_siamese(self) -> bool:
        """Whether each text of a pair is encoded by itself."""
        return self.architecture == "siamese"

    @property
    def predicts(self) -> Task:
        """The task as a value."""
        return Task(self.task)

    @property
    def int_score(self) -> tuple[int, int] | None:
        """Regression: least and greatest whole score; None where there are none."""
        if self.int_score_min is None or self.int_score_max is None:
            return None
        return self.int_score_min, self.int_score_max

    @property
    def chosen_by(self) -> MetricName:
        """The validation metric that chooses the checkpoint."""
        return self.best_by or self.predicts.best_by[0]


def step_of(settings: TrainSettings, num_ranks: int) -> dict[str, int]:
    """What the rows of a step depend on, by name."""
    return dict(zip(STEP_OF, (settings.batch_size, settings.gradient_accumulation, num_ranks), strict=True))


def rows_of_step(step: Mapping[str, int]) -> int:
    """Rows of a step, all ranks together, of what `step_of` gave: all of it that decides what is learned."""
    return math.prod(step[name] for name in STEP_OF)
