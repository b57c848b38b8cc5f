"""What each metric is: the words under a number. Pure."""

DEFINITIONS = {
    "accuracy": "Share of rows whose predicted label is the true one.",
    "balanced_accuracy": "Mean recall over the labels that occur (Brodersen et al. 2010).",
    "macro_f1": "Mean F1 over the labels that occur or are predicted, each counting the same.",
    "weighted_f1": "Mean F1 over the labels, each weighing its share of the rows.",
    "micro_f1": "F1 of all decisions (row and label) together.",
    "subset_accuracy": "Share of rows whose labels are all predicted and no other.",
    "precision": "Of the second label: share of the rows predicted so that are.",
    "recall": "Of the second label: share of its rows that are predicted so.",
    "f1": "Of the second label: 2 TP / (2 TP + FP + FN).",
    "auc": (
        "Area under the ROC curve, ties counting half (Hanley & McNeil 1982). Of the second of two labels; "
        "of more labels the mean of one against the rest (Provost & Domingos 2000), those without rows of "
        "both kinds left out."
    ),
    "average_precision": (
        "Area under the precision-recall steps, not interpolated (Davis & Goadrich 2006). Of the second of "
        "two labels; of more the mean of one against the rest."
    ),
    "micro_auc": "AUC of all decisions (row and label) together.",
    "micro_average_precision": "Average precision of all decisions (row and label) together.",
    "nll": "Mean negative log-likelihood of the truth, in nats a row (multi-label: a decision).",
    "brier": (
        "Mean squared error of the probabilities, summed over the labels of a row, 0 to 2 (Brier 1950); "
        "multi-label: of a decision, 0 to 1."
    ),
    "c_at_1": (
        "Accuracy in which pairs left unanswered count as right as often as all pairs are answered rightly "
        "(Peñas & Rodrigo 2011). Decided at 0.5, whatever the bundle's thresholds; unanswered is a "
        "probability of exactly 0.5, or as near to it as was asked for."
    ),
    "f05_u": (
        "1.25 TP / (1.25 TP + 0.25 (FN + U) + FP) of the second label, U the pairs left unanswered "
        "(Bevendorff et al. 2019); decided and unanswered as for c@1."
    ),
    "brier_complement": (
        "1 less the mean squared error of the second label's probability, 0 to 1, as PAN gives it: 1 less "
        "half the Brier score above."
    ),
    "ece": (
        "Expected calibration error of the most probable label in 15 bins of equal width (Guo et al. 2017, "
        "eq. 3); multi-label: of all decisions. Above the truth on few rows."
    ),
    "ece_equal_mass": "The same in 15 bins of about as many rows each (Nguyen & O'Connor 2015).",
    "mae": "Mean absolute error, in the unit of the targets.",
    "rmse": "Root of the mean squared error, in the unit of the targets.",
    "spearman": "Rank correlation of prediction and target, ties at their average rank.",
    "int_macro_f1": "Macro-F1 after rounding predictions and targets and clipping both to the bundle's range.",
    "coverage": "Share of rows whose conformal interval holds the target (Vovk et al. 2005; Lei et al. 2018).",
    "mean_width": "Mean width of the conformal intervals.",
}
"""What is computed, with the source of the formula, for every metric of a report."""
