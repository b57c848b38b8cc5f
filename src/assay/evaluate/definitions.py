"""What each metric is called and what it is: the words under a number. Pure."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A metric in words."""

    title: str
    """Name for people."""
    text: str
    """What is computed, with the source of the formula."""
    better: Literal["higher", "lower", "neither"] = "higher"
    """Which of two values is the better one."""


DEFINITIONS: dict[str, Definition] = {
    "accuracy": Definition(title="accuracy", text="Share of rows whose predicted label is the true one."),
    "balanced_accuracy": Definition(
        title="balanced accuracy", text="Mean recall over the labels that occur (Brodersen et al. 2010)."
    ),
    "macro_f1": Definition(
        title="macro-F1",
        text="Mean F1 over the labels that occur or are predicted, each counting the same.",
    ),
    "weighted_f1": Definition(
        title="weighted F1", text="Mean F1 over the labels, each weighing its share of the rows."
    ),
    "micro_f1": Definition(title="micro-F1", text="F1 of all decisions (row and label) together."),
    "subset_accuracy": Definition(
        title="subset accuracy", text="Share of rows whose labels are all predicted and no other."
    ),
    "precision": Definition(
        title="precision", text="Of the second label: share of the rows predicted so that are."
    ),
    "recall": Definition(
        title="recall", text="Of the second label: share of its rows that are predicted so."
    ),
    "f1": Definition(title="F1", text="Of the second label: 2 TP / (2 TP + FP + FN)."),
    "auc": Definition(
        title="AUC",
        text=(
            "Area under the ROC curve, ties counting half (Hanley & McNeil 1982). Of the second of two labels;"
            " of more labels the mean of one against the rest (Provost & Domingos 2000), those without rows"
            " of both kinds left out."
        ),
    ),
    "average_precision": Definition(
        title="average precision",
        text=(
            "Area under the precision-recall steps, not interpolated (Davis & Goadrich 2006). Of the second of"
            " two labels; of more the mean of one against the rest."
        ),
    ),
    "micro_auc": Definition(title="micro AUC", text="AUC of all decisions (row and label) together."),
    "micro_average_precision": Definition(
        title="micro average precision", text="Average precision of all decisions (row and label) together."
    ),
    "nll": Definition(
        title="NLL",
        text="Mean negative log-likelihood of the truth, in nats a row (multi-label: a decision).",
        better="lower",
    ),
    "brier": Definition(
        title="Brier",
        text=(
            "Mean squared error of the probabilities, summed over the labels of a row, 0 to 2 (Brier 1950);"
            " multi-label: of a decision, 0 to 1."
        ),
        better="lower",
    ),
    "ece": Definition(
        title="ECE, equal width",
        text=(
            "Expected calibration error of the most probable label in 15 bins of equal width (Guo et al. 2017,"
            " eq. 3); multi-label: of all decisions. Above the truth on few rows."
        ),
        better="lower",
    ),
    "ece_equal_mass": Definition(
        title="ECE, equal mass",
        text="The same in 15 bins of about as many rows each (Nguyen & O'Connor 2015).",
        better="lower",
    ),
    "mae": Definition(title="MAE", text="Mean absolute error, in the unit of the targets.", better="lower"),
    "rmse": Definition(
        title="RMSE", text="Root of the mean squared error, in the unit of the targets.", better="lower"
    ),
    "spearman": Definition(
        title="Spearman", text="Rank correlation of prediction and target, ties at their average rank."
    ),
    "int_macro_f1": Definition(
        title="macro-F1 of whole scores",
        text="Macro-F1 after rounding predictions and targets and clipping both to the bundle's range.",
    ),
    "coverage": Definition(
        title="coverage",
        text="Share of rows whose conformal interval holds the target (Vovk et al. 2005; Lei et al. 2018).",
        better="neither",
    ),
    "mean_width": Definition(
        title="mean interval width", text="Mean width of the conformal intervals.", better="lower"
    ),
}
"""Every metric of a report by name."""
