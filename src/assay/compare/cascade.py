"""Two documents by a cascade: the first model compares the whole of both, the second reads pairs of their passages.

The thresholds are those of pairs of single texts. The second model's probability is that of the mean of its log-odds
over the pairs that it reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from assay.compare.settings import CompareSettings
from assay.errors import BundleError, InputError
from assay.metrics import sigmoid
from assay.score.bundles import AS_TUNED, engine_of, open_scorer
from assay.score.cascade.bundle import Cascade, read_cascade
from assay.score.cascade.decide import STAGES, answer, combined, log_odds_of
from assay.score.classifier import Classifier
from assay.siamese.documents import Document
from assay.siamese.files import Siamese
from assay.tasks import probability_column


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """What a cascade says of two documents."""

    probability: float
    """That they have the cascade's second label."""
    stages: Mapping[str, object]
    """What each model said, by the names of a scored pair's columns."""
    notes: tuple[str, ...]


def open_cascade(path: str) -> Cascade:
    """The cascade in a file or folder; raises BundleError where its first model is not Siamese."""
    cascade = read_cascade(path)
    if not isinstance(cascade.first, Siamese):
        raise BundleError(
            f"{cascade.path}: its first model, {cascade.first.path}, is a classifier; documents are compared by a"
            " cascade whose first model is Siamese; tune one, or give a Siamese model"
        )
    return cascade


def ask_cascade(
    cascade: Cascade, settings: CompareSettings, documents: Sequence[Document], first: float
) -> Staged:
    """What a cascade says of two documents to which its first model gives the probability `first`."""
    notes: list[str] = []
    answers = answer(
        cascade.thresholds,
        np.array([first]),
        lambda _: np.array([_second(cascade, settings, documents, notes)]),
        lambda one_M, two_M, _: combined(cascade.combination, one_M, two_M),
    )
    final, goes_on = float(answers.final_M[0]), bool(answers.goes_on_M[0])
    stages: dict[str, object] = {
        "stage": STAGES[int(goes_on)],
        "bi_probability": first,
        "bi_confidence": max(first, 1 - first),
    }
    if goes_on:
        second = float(answers.second_M[0])
        stages |= {"cross_probability": second, "cross_confidence": max(second, 1 - second)}
    return Staged(probability=final, stages={**stages, "final_probability": final}, notes=tuple(notes))


def _second(
    cascade: Cascade, settings: CompareSettings, documents: Sequence[Document], notes: list[str]
) -> float:
    """The second model's probability of the cascade's second label."""
    one, two = (document.passages for document in documents)
    num_pairs = len(one) * len(two)
    drawn = np.arange(num_pairs)
    if num_pairs > settings.num_cross_pairs:
        drawn = np.random.default_rng(0).choice(num_pairs, settings.num_cross_pairs, replace=False)
        notes.append(f"the second model read {len(drawn)} of {num_pairs:,} pairs of passages")
    make_engine = partial(engine_of, device=settings.device, num_threads=settings.num_threads)
    classifier = Classifier(
        cascade.second,
        open_scorer(cascade.second, AS_TUNED, make_engine, device=settings.device),
        device=settings.device,
    )
    table = classifier.predict(
        [one[number].text for number in drawn // len(two)], [two[number].text for number in drawn % len(two)]
    )
    found = table.column(probability_column(cascade.labels[1])).to_numpy(zero_copy_only=False)
    found = found[np.isfinite(found)].astype(np.float64)
    if not found.size:
        raise InputError(
            f"none of {len(drawn)} pairs of passages has a probability by {cascade.second.path}; see whether assay"
            " doctor --bundle finds something wrong with it"
        )
    num_cut = sum(table.column("truncated").to_pylist())
    if num_cut:
        notes.append(
            f"the second model did not see the end of {num_cut} of {len(drawn)} pairs of passages; a smaller"
            " --chunk-tokens lets both in"
        )
    return float(sigmoid(np.array(log_odds_of(found).mean())))
