"""The parity gate: a sample of the corpus on the engine and on the fp32 reference, side by side.

The reference is transformers' own forward pass in fp32, one document at a time, without padding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from assay.engine.engine import Engine
from assay.engine.padded import PaddedEngine
from assay.engine.ranges import Watch
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.model import pretrained
from assay.model.checkpoint import read_checkpoint
from assay.model.heads import EmbeddingHead
from assay.outcome.maps import apply_link
from assay.tasks import Task

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far an engine may be from the reference."""

    probability: float
    """Largest difference of a probability."""
    logit: float
    """Largest difference of a logit, as a share of the largest logit of the sample where that is above 1."""
    agreement: float = 0.0
    """Least share of documents that keep their label."""


TOLERANCES = {
    "fp32": Tolerance(probability=1e-4, logit=1e-3, agreement=0.95),
    # From a fine-tuned MiniLM-L6 of five labels on 2,000 news texts of 400 tokens (H100). Largest
    # difference of a probability, its 99th percentile, of a logit as a share, label agreement:
    # bf16 0.020, 0.005, 0.011, 1.0; fp16 0.0025, 0.0013, 0.0015, 1.0; fp8 0.10, 0.034, 0.093, 0.999.
    # Allowed is about twice the largest, and in a sample of 32 one label that turns, in fp8 three.
    "bf16": Tolerance(probability=0.04, logit=0.04, agreement=0.95),
    "fp16": Tolerance(probability=0.01, logit=0.01, agreement=0.95),
    "fp8": Tolerance(probability=0.2, logit=0.2, agreement=0.9),
}
"""Default tolerance by precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """What `compare` found."""

    num_documents: int
    """Documents compared."""
    max_abs_difference: float
    """Largest difference of a logit; NaN where either side is not finite."""
    max_abs_probability_difference: float
    """Largest difference of a probability; that of a logit for regression."""
    label_agreement: float
    """Share of documents with the same label (multi-label: the same set of labels at 0.5)."""
    rank_correlation: float | None
    """Spearman's, of a regression; None for other tasks, one document, or constant predictions."""
    tolerance: Tolerance
    """What was allowed."""
    passed: bool
    """Whether the differences and the agreement were within the tolerance."""
    largest_activation: float | None = None
    """Of the reference, where it was watched: what the numbers of the engine reach too."""


VECTOR_TOLERANCES = {"fp32": 1e-3, "bf16": 0.15, "fp16": 0.03, "fp8": 0.5}
"""Default by precision: the largest distance of a vector to the reference's, as a share of its length. The cosine of
vectors that far apart is above 1 - distance ** 2 / 2: 0.9999995, 0.98875, 0.99955 and 0.875."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorParityReport:
    """What `compare_vectors` found."""

    num_documents: int
    """Documents compared."""
    least_cosine: float
    """Of a vector and the reference's; NaN where either is not finite."""
    max_distance: float
    """Of a vector to the reference's, as a share of its length; NaN where either is not finite."""
    tolerance: float
    """The largest distance that was allowed."""
    passed: bool
    """Whether the distances were within the tolerance."""
    largest_activation: float | None = None
    """Of the reference, where it was watched: what the numbers of the engine reach too."""


def load_reference(
    path: str | Path, *, head: EmbeddingHead | None = None, watch: Watch | None = None
) -> Callable[[torch.device], PaddedEngine]:
    """Load transformers' fp32 model of a bundle; what it returns makes an engine of it on a device.

    With `head` the engine gives the head's vectors of an encoder. `watch` sees how large its numbers become. Loading
    works on no device, so that it may go on beside another engine's forward passes.
    """
    checkpoint = read_checkpoint(path)
    load = pretrained.load_classifier if head is None else pretrained.load_encoder
    model = load(checkpoint.path, dtype=torch.float32)

    def make(device: torch.device) -> PaddedEngine:
        engine = PaddedEngine(
            model, device=device, reason="parity reference", max_length=checkpoint.max_length, head=head
        )
        if watch is not None:  # from here on: the engine has tried itself out on padding
            watch.add(model)
        return engine

    return make


def engine_outputs(engine: Engine, sequences: Sequences) -> Floats:
    """What an engine gives for these sequences, as in a run."""
    return run_sequences(engine, sequences)[0]


def reference_outputs(reference: Engine, sequences: Sequences) -> Floats:
    """What the reference gives for these sequences, each alone."""
    # a budget of one token: each document alone
    return run_sequences(reference, sequences, max_batch_tokens=1, deduplicate=False)[0]


def judge(found: Floats, expected: Floats, *, task: Task, tolerance: Tolerance) -> ParityReport:
    """[pure] Return the report on two sets of logits, float32 [N, C]."""
    num_documents = len(expected)
    if num_documents == 0:
        return ParityReport(
            num_documents=0,
            max_abs_difference=0.0,
            max_abs_probability_difference=0.0,
            label_agreement=1.0,
            rank_correlation=None,
            tolerance=tolerance,
            passed=True,
        )
    logit_difference = _largest(found, expected)
    left, right = probabilities(found, task), probabilities(expected, task)
    probability_difference = _largest(left, right)
    # written so that NaN fails
    allowed = tolerance.logit * max(1.0, float(np.abs(expected).max()))
    agreement = float(_agreeing(left, right, task).mean())
    passed = bool(logit_difference <= allowed) and agreement >= tolerance.agreement
    if task.is_classifier:
        passed = passed and bool(probability_difference <= tolerance.probability)
    return ParityReport(
        num_documents=num_documents,
        max_abs_difference=logit_difference,
        max_abs_probability_difference=probability_difference,
        label_agreement=agreement,
        rank_correlation=_spearman(found[:, 0], expected[:, 0]) if task is Task.REGRESSION else None,
        tolerance=tolerance,
        passed=passed,
    )


def document_differences(
    found: Floats, expected: Floats, *, task: Task
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """[pure] Return how far each document's logits [N, C] are off, [N], and whether its label is another, [N].

    The largest difference of a probability; of a regression of a value, as a share of the expected one where that is
    above 1. NaN for a document that `found` has no finite logits for, infinity where only `expected` has none.
    """
    left, right = probabilities(found, task), probabilities(expected, task)
    with np.errstate(invalid="ignore"):
        apart = np.abs(left - right)
        if task is Task.REGRESSION:
            apart = apart / np.maximum(1.0, np.abs(right))
        differences_N = apart.max(axis=1)
    is_finite_N = np.isfinite(found).all(axis=1)
    differences_N = np.where(np.isnan(differences_N), np.inf, differences_N)
    differences_N = np.where(is_finite_N, differences_N, np.nan)
    return differences_N, ~_agreeing(left, right, task)


def vector_distances(found: Floats, expected: Floats) -> npt.NDArray[np.float64]:
    """[pure] Return the distance of each vector [N, D] to the expected one, as a share of that one's length, [N].

    NaN where a number is not finite.
    """
    left, right = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(right, axis=1), 1e-12)
    with np.errstate(invalid="ignore"):
        distances_N: npt.NDArray[np.float64] = np.linalg.norm(left - right, axis=1) / lengths
    return distances_N


def vector_differences(
    found: Floats, expected: Floats
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """[pure] Return what `document_differences` does, of vectors [N, D] by their distance; they have no labels."""
    distances_N = vector_distances(found, expected)
    distances_N = np.where(np.isnan(distances_N), np.inf, distances_N)
    distances_N = np.where(np.isfinite(found).all(axis=1), distances_N, np.nan)
    return distances_N, np.zeros(len(found), dtype=np.bool_)


def judge_vectors(found: Floats, expected: Floats, *, tolerance: float) -> VectorParityReport:
    """[pure] Return the report on two sets of vectors, float32 [N, D]."""
    if len(expected) == 0:
        return VectorParityReport(
            num_documents=0, least_cosine=1.0, max_distance=0.0, tolerance=tolerance, passed=True
        )
    left, right = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(right, axis=1), 1e-12)
    products = np.maximum(np.linalg.norm(left, axis=1), 1e-12) * lengths
    # NaN wherever a number is not finite, which neither minimum nor maximum hides
    distance = float(vector_distances(found, expected).max())
    with np.errstate(invalid="ignore"):
        cosine = float(((left * right).sum(axis=1) / products).min())
    return VectorParityReport(
        num_documents=len(expected),
        least_cosine=cosine,
        max_distance=distance,
        tolerance=tolerance,
        passed=bool(distance <= tolerance),
    )


def probabilities(logits: Floats, task: Task) -> npt.NDArray[np.float64]:
    """[pure] Return softmax (single label) or sigmoid (multi label) of logits; a regression's as they are."""
    with np.errstate(invalid="ignore"):
        return apply_link(logits, task)


def _largest(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> float:
    """Largest absolute difference; NaN where one is not finite, since inf - inf hides it."""
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return float("nan")
    return float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max())


def _agreeing(
    left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], task: Task
) -> npt.NDArray[np.bool_]:
    """Which documents have the same label, or set of labels, [N]; all of a regression."""
    if task is Task.REGRESSION:
        return np.ones(len(left), dtype=np.bool_)
    if task is Task.MULTI_LABEL:
        return np.asarray(((left >= 0.5) == (right >= 0.5)).all(axis=1))
    return np.asarray(left.argmax(axis=1) == right.argmax(axis=1))


def _spearman(left: Floats, right: Floats) -> float | None:
    """Rank correlation (Spearman 1904), ties by their mean rank."""
    a, b = _ranks(left), _ranks(right)
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread > 0 else None


def _ranks(values: Floats) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (ends - (counts - 1) / 2.0)[inverse]
    return ranks
