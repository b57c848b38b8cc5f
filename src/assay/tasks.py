"""What a classifier can be made for: one value a task, and all that depends on it alone. Pure.

A `Task` is its name, so it is written to JSON and compared with what a file says as one. What has to tell tasks
apart asks the value (`task.link`, `task.score_columns(labels)`) where the answer is a fact about the task, and
branches on it where the steps differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

TaskName = Literal["single_label", "multi_label", "regression"]
"""A task as settings name it."""
Link = Literal["softmax", "sigmoid", "identity"]
Method = Literal["temperature", "vector", "logistic", "isotonic", "conformal"]
"""A kind of calibration; `outcome.maps` says what each does."""
MetricName = Literal[
    "accuracy",
    "macro_f1",
    "micro_f1",
    "nll",
    "ece",
    "auc",
    "mae",
    "rmse",
    "spearman",
    "int_macro_f1",
    "coverage",
]
ColumnType = Literal["string", "strings", "float32", "int32"]
"""Type of a score column; `strings` is a list of them."""

TWO_LABELS = 2
PREDICTION, PROBABILITY, LABELS, INT_SCORE = "prediction", "probability", "labels", "int_score"
STAGE_COLUMNS = (
    "stage",
    "bi_probability",
    "bi_confidence",
    "cross_probability",
    "cross_confidence",
    "final_probability",
    "same_book",
)
"""What a cascade adds to the columns of a classifier of two labels, in order."""
INTERVAL = ("prediction_low", "prediction_high")
"""Columns of a regression's interval."""


class Task(StrEnum):
    """What the head of a classifier predicts."""

    SINGLE_LABEL = "single_label"
    """One of the labels."""
    MULTI_LABEL = "multi_label"
    """Any number of the labels."""
    REGRESSION = "regression"
    """A number."""

    @property
    def is_classifier(self) -> bool:
        """Whether outputs are probabilities of labels."""
        return self is not Task.REGRESSION

    @property
    def link(self) -> Link:
        """What makes outputs of logits before any calibration."""
        return _FACTS[self].link

    @property
    def problem_type(self) -> str:
        """The name of the task in the `config.json` of transformers."""
        return _FACTS[self].problem_type

    @property
    def best_by(self) -> tuple[MetricName, ...]:
        """Validation metrics that can choose a checkpoint; the first one does where none is named."""
        return _FACTS[self].best_by

    @property
    def shown_metrics(self) -> tuple[MetricName, ...]:
        """Metrics that a report opens with."""
        return _FACTS[self].shown_metrics

    @property
    def group_metrics(self) -> tuple[MetricName, ...]:
        """Metrics that are shown of each group of rows."""
        return _FACTS[self].group_metrics

    def takes_outputs(self, num_outputs: int) -> bool:
        """Whether a head of the task can have so many outputs."""
        least, most = _FACTS[self].num_outputs
        return least <= num_outputs and (most is None or num_outputs <= most)

    def takes_threshold(self, num_outputs: int) -> bool:
        """Whether probabilities become decisions by a threshold, where one was chosen."""
        return self is Task.MULTI_LABEL or (self is Task.SINGLE_LABEL and num_outputs == TWO_LABELS)

    def calibration_methods(self, num_outputs: int) -> tuple[Method, ...]:
        """The kinds of calibration that a head can have, the plainest first."""
        if self is Task.SINGLE_LABEL and num_outputs == TWO_LABELS:
            return ("temperature", "logistic", "vector", "isotonic")
        return _FACTS[self].methods

    def num_curves(self, method: Method, num_outputs: int) -> int:
        """Number of maps, each with parameters of its own, in a calibration: one a label but for two labels."""
        is_one = self is Task.SINGLE_LABEL and num_outputs == TWO_LABELS and method != "vector"
        return 1 if is_one else num_outputs

    def score_columns(
        self, labels: Sequence[str], *, has_interval: bool = False, has_int_score: bool = False
    ) -> dict[str, ColumnType]:
        """The columns that a score has, in order: in parts, in tables of `predict`, in rows of a client."""
        per_label: dict[str, ColumnType] = dict.fromkeys(map(probability_column, labels), "float32")
        if self is Task.SINGLE_LABEL:
            return {PREDICTION: "string", PROBABILITY: "float32", **per_label}
        if self is Task.MULTI_LABEL:
            return {LABELS: "strings", **per_label}
        found: dict[str, ColumnType] = {PREDICTION: "float32"}
        if has_interval:
            found |= dict.fromkeys(INTERVAL, "float32")
        if has_int_score:
            found[INT_SCORE] = "int32"
        return found


def probability_column(label: str) -> str:
    """The column of a label's probability."""
    return f"prob_{label}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """What is true of a task."""

    link: Link
    problem_type: str
    num_outputs: tuple[int, int | None]
    methods: tuple[Method, ...]
    best_by: tuple[MetricName, ...]
    shown_metrics: tuple[MetricName, ...]
    group_metrics: tuple[MetricName, ...]


_FACTS = {
    Task.SINGLE_LABEL: _Facts(
        link="softmax",
        problem_type="single_label_classification",
        num_outputs=(2, None),
        methods=("temperature", "vector", "isotonic"),
        best_by=("accuracy", "macro_f1", "nll", "auc"),
        shown_metrics=("accuracy", "macro_f1", "auc", "nll", "ece"),
        group_metrics=("accuracy", "macro_f1", "nll"),
    ),
    Task.MULTI_LABEL: _Facts(
        link="sigmoid",
        problem_type="multi_label_classification",
        num_outputs=(1, None),
        methods=("temperature", "logistic", "isotonic"),
        best_by=("macro_f1", "nll", "auc"),
        shown_metrics=("macro_f1", "micro_f1", "auc", "nll", "ece"),
        group_metrics=("macro_f1", "micro_f1", "nll"),
    ),
    Task.REGRESSION: _Facts(
        link="identity",
        problem_type="regression",
        num_outputs=(1, 1),
        methods=("conformal",),
        best_by=("spearman", "mae", "int_macro_f1"),
        shown_metrics=("mae", "rmse", "spearman", "int_macro_f1", "coverage"),
        group_metrics=("mae", "spearman"),
    ),
}
