"""What words and style say of pairs, fitted when a Siamese network's weights are chosen.

The evidence is learned from the training pairs, as the network was. How much each counts is learned from the
validation pairs: the network remembers its training pairs, and would be trusted too far on those.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.labelled.labels import to_targets
from assay.labelled.rows import LabelledRows
from assay.metrics import softmax, validation_metrics
from assay.siamese.evidence import Combination, PairEvidence
from assay.siamese.evidence_files import WeighedEvidence
from assay.siamese.reading import distinct_texts
from assay.siamese.scoring import joined_logits, margins
from assay.tasks import Task
from assay.train.datasets import Prepared
from assay.train.settings import TrainSettings


def why_without_evidence(settings: TrainSettings, prepared: Prepared) -> str | None:
    """Why a training that asks for evidence has none, a sentence for the user; None where it has, or does not ask."""
    if not settings.is_siamese or settings.evidence == "none":
        return None
    if len(prepared.names) != 2:
        return f"{len(prepared.names)} labels; evidence of words and style is for two, and is left out"
    for name, rows in (("training", prepared.train), ("validation", prepared.validation)):
        if len(set(rows.labels)) < 2:
            return f"all {name} pairs have one label; evidence of words and style needs both, and is left out"
    return None


def weigh_evidence(
    settings: TrainSettings, prepared: Prepared, logits_NC: NDArray[np.float32]
) -> tuple[WeighedEvidence, Mapping[str, float]] | None:
    """The evidence of the training pairs, weighed against a network's logits of the validation pairs.

    With it the validation metrics of both together; two weights and a bias were fitted on these very rows.
    """
    asks = settings.is_siamese and settings.evidence == "words"
    if not asks or why_without_evidence(settings, prepared) is not None:
        return None
    train, validation, positive = prepared.train, prepared.validation, prepared.names[1]
    texts, first, second = _sides(train)
    evidence = PairEvidence.fit(
        texts,
        first,
        second,
        np.array([label == positive for label in train.labels]),
        books=_books(train, settings.book_columns),
        language=settings.language,
    )
    texts, first, second = _sides(validation)
    log_odds = evidence.log_odds(evidence.encode(texts), first, second)
    is_positive = np.array([label == positive for label in validation.labels])
    weighed = WeighedEvidence(
        evidence=evidence, combination=Combination.fit(margins(logits_NC), log_odds, is_positive)
    )
    joined = softmax(joined_logits(weighed, logits_NC, log_odds))
    targets = to_targets(validation.labels, Task.SINGLE_LABEL, prepared.names)
    return weighed, validation_metrics(Task.SINGLE_LABEL, joined, targets, None)


def _sides(rows: LabelledRows) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    assert rows.text_pairs is not None, "a Siamese model is trained on pairs"
    return distinct_texts(zip(rows.texts, rows.text_pairs, strict=True))


def _books(rows: LabelledRows, columns: Sequence[str]) -> list[str] | None:
    """The book of each distinct text, in the order of `_sides`; a text whose book is not known is its own."""
    if not columns:
        return None
    assert rows.text_pairs is not None, "a Siamese model is trained on pairs"
    books: dict[str, str] = {}
    first, second = (rows.keys[column] for column in columns)
    for one, other, book, other_book in zip(rows.texts, rows.text_pairs, first, second, strict=True):
        for text, found in ((one, book), (other, other_book)):
            books.setdefault(text, f"{len(books)} unknown" if found is None else f"book {found}")
    return list(books.values())
