"""The outputs of an ensemble's members to one output: rules that need no label. Pure.

    mean         mean of probabilities: the rule of deep ensembles (Lakshminarayanan et al. 2017, section 2.4)
    logit-mean   mean of log probabilities, divided by their sum: the geometric mean, which is sharper
    rank-mean    mean over members of each document's rank among all; needs all of them, so no bundle has it
    majority     the label of more than half of the members, or none
    plurality    the label of most members; of equals, the one of the higher mean probability

Members are pooled raw; a calibration comes after, once (Rahaman & Thiery 2021, arXiv 2007.08792).

Axes: N documents, M members, C outputs.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from assay.metrics import FloatArray, IntArray, average_ranks, log_softmax
from assay.tasks import Task

PoolingRule = Literal["mean", "logit-mean"]
"""The rules that give a document its own probabilities, whatever the others are: those of a bundle."""
NO_LABEL = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooling:
    """How the logits of members become those of the ensemble."""

    rule: PoolingRule
    weights: tuple[float, ...]
    """Of the members, in their order; they add up to 1."""

    @property
    def num_members(self) -> int:
        """M."""
        return len(self.weights)

    def of_views(self, num_views: int) -> "Pooling":
        """The same of members that each answer to so many views, all to the first one, then all to the second, ..."""
        shares = tuple(weight / num_views for weight in self.weights)
        return Pooling(rule=self.rule, weights=shares * num_views)

    def pool(self, logits: ArrayLike, task: Task) -> FloatArray:
        """The ensemble's logits [N, C], of which the task's link makes the pooled probabilities.

        `logits` are [N, M * C], those of a member side by side. A row with NaN among them is NaN. A regression's
        values are averaged under either rule.
        """
        logits_N = np.asarray(logits, dtype=np.float64)
        logits_NMC = logits_N.reshape(len(logits_N), self.num_members, -1)
        weights_M1 = np.array(self.weights)[:, None]
        if task.link == "identity":
            return _sum(logits_NMC * weights_M1)
        if task.link == "sigmoid":
            if self.rule == "logit-mean":
                return _sum(logits_NMC * weights_M1)
            holds_NMC, fails_NMC = -np.logaddexp(0, -logits_NMC), -np.logaddexp(0, logits_NMC)
            return _log_mean(holds_NMC, weights_M1) - _log_mean(fails_NMC, weights_M1)
        log_probabilities_NMC = log_softmax(logits_NMC)
        if self.rule == "logit-mean":
            return _sum(log_probabilities_NMC * weights_M1)
        return _log_mean(log_probabilities_NMC, weights_M1)


def equal_weights(num_members: int) -> tuple[float, ...]:
    """The weights of a mean that is not weighted."""
    return (1.0 / num_members,) * num_members


def rank_mean(scores_MN: ArrayLike) -> FloatArray:
    """Of each document the mean over members of its rank among all N, from 0 (lowest) to 1; equals share a rank."""
    scores = np.asarray(scores_MN, dtype=np.float64)
    last = max(scores.shape[1] - 1, 1)
    ranks_MN = np.stack([average_ranks(scores_N) - 1 for scores_N in scores])
    mean_N: FloatArray = ranks_MN.mean(axis=0) / last
    return mean_N


def plurality(probabilities_MNC: ArrayLike) -> IntArray:
    """The label [N] that most members find likeliest; of equals, the one of the higher mean probability."""
    probabilities = np.asarray(probabilities_MNC, dtype=np.float64)
    # a mean is below 1 or all say the same: it decides between equals and nothing else
    standing_NC = _votes(probabilities) + probabilities.mean(axis=0) / 2
    return np.asarray(standing_NC.argmax(axis=1), dtype=np.int64)


def majority(probabilities_MNC: ArrayLike) -> IntArray:
    """The label [N] that more than half of the members find likeliest; `NO_LABEL` where none is."""
    probabilities = np.asarray(probabilities_MNC, dtype=np.float64)
    votes_NC = _votes(probabilities)
    is_most_N = 2 * votes_NC.max(axis=1) > len(probabilities)
    return np.asarray(np.where(is_most_N, votes_NC.argmax(axis=1), NO_LABEL), dtype=np.int64)


def _votes(probabilities_MNC: FloatArray) -> FloatArray:
    """How many members find each label likeliest, [N, C]; a member's equals go to the first."""
    num_labels = probabilities_MNC.shape[2]
    votes_NC: FloatArray = np.eye(num_labels)[probabilities_MNC.argmax(axis=2)].sum(axis=0)
    return votes_NC


def _sum(values_NMC: FloatArray) -> FloatArray:
    total_NC: FloatArray = values_NMC.sum(axis=1)
    return total_NC


def _log_mean(logs_NMC: FloatArray, weights_M1: FloatArray) -> FloatArray:
    """The logarithm of the weighted mean of what has these logarithms; nothing underflows on the way."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a weight of 0 leaves its member out; NaN stays NaN
        mean_NC: FloatArray = np.logaddexp.reduce(logs_NMC + np.log(weights_M1), axis=1)
    return mean_NC
