"""Two files to what a Siamese model says of them: the main path of `assay compare`."""

from collections.abc import Callable, Mapping
from typing import cast, get_args

import numpy as np

from assay.bundle.folders import cascade_file
from assay.compare.cascade import ask_cascade, open_cascade
from assay.compare.comparison import ComparedText, Comparison, PassagePair, PassagePlace
from assay.compare.reading import are_same_file, name_of, read_text
from assay.compare.settings import CompareSettings
from assay.compare.style_calibration import (
    StyleCalibration,
    StyleMap,
    find_style_calibration,
    read_style_calibration,
)
from assay.errors import BundleError, UsageError
from assay.labelled.labels import brief
from assay.outcome.maps import apply_calibration, map_scores
from assay.siamese.documents import (
    Document,
    DocumentCutter,
    EncodedDocuments,
    Numbers,
    compare_documents,
    compare_passages,
    encode_documents,
)
from assay.siamese.files import Siamese
from assay.siamese.pairs import SiameseModel, load_siamese
from assay.siamese.scoring import Floats
from assay.siamese.settings import Aggregate, DocumentRules
from assay.tasks import TWO_LABELS
from assay.telemetry import format_number_of

_LEAST_SHARE = 0.8
"""Of a text in its chunks, below which that is said."""
_BEGINNING = 70
"""Characters of a passage that are shown."""
_FIRST, _SECOND = np.array([0]), np.array([1])


def compare(settings: CompareSettings, *, say: Callable[[str], None] | None = None) -> Comparison:
    """Whether two texts belong together, by all chunks of both, each encoded once.

    What the user should hear of the bundle goes to `say`. Raises InputError for texts, BundleError for models
    that cannot be compared or compare.
    """
    texts = [read_text(path) for path in (settings.text1, settings.text2)]
    cascade = None if cascade_file(settings.bundle) is None else open_cascade(settings.bundle)
    model = load_siamese(
        settings.bundle if cascade is None else cascade.first.path,
        device=settings.device,
        max_length=settings.max_length,
        num_threads=settings.num_threads,
        say=say,
    )
    asked = settings.label or (None if cascade is None else cascade.labels[1])
    label = positive_label(model.bundle, asked)
    cutter = DocumentCutter(
        model.bundle, settings, max_length=settings.max_length or model.bundle.default_max_length
    )
    style = _style_calibration(model.bundle, settings, cutter, label)
    aggregate = _aggregate(settings, style)
    documents = [
        cutter.cut(text, name=name_of(path))
        for text, path in zip(texts, (settings.text1, settings.text2), strict=True)
    ]
    encoded = encode_documents(model, documents)
    score = float(
        oriented(compare_documents(model, encoded, _FIRST, _SECOND, aggregate), aggregate, label)[0]
    )
    sign = 1.0 if label == 1 else -1.0
    fitted = None if style is None else style.map_for(min(len(each.passages) for each in documents))
    probability = (
        _probability(model.bundle, label, sign * score) if fitted is None else _mapped(fitted, score)
    )
    threshold = _threshold(model.bundle, label) if fitted is None and cascade is None else 0.5
    staged = None
    if cascade is not None:
        is_positive = model.bundle.labels[label] == cascade.labels[1]
        staged = ask_cascade(cascade, settings, documents, probability if is_positive else 1 - probability)
        probability = staged.probability if is_positive else 1 - staged.probability
    for_it, against_it = _passages(model, encoded, documents, sign, settings.num_passages)
    confidence = max(probability, 1 - probability)
    return Comparison(
        relation=relation_of(model.bundle, label),
        holds=None if confidence < settings.min_confidence else probability >= threshold,
        probability=probability,
        confidence=confidence,
        calibration=_calibrated(model.bundle, fitted)
        if staged is None
        else "put together as tuned on single texts",
        stages={} if staged is None else staged.stages,
        aggregate=aggregate,
        score=score,
        texts=(_compared(documents[0]), _compared(documents[1])),
        passages_for=for_it,
        passages_against=against_it,
        evidence={} if aggregate == "cosine" else _evidence(model.bundle, encoded, sign),
        notes=(*_notes(settings, texts, documents, fitted), *(() if staged is None else staged.notes)),
    )


def positive_label(bundle: Siamese, asked: str | None) -> int:
    """Which of the model's two labels means that texts belong together; BundleError where there is no such label."""
    labels = bundle.labels
    if len(labels) != TWO_LABELS:
        raise BundleError(
            f"{bundle.path} has {len(labels)} labels, {', '.join(labels[:5])}; documents are compared by a model of"
            " two; train one on pairs of two labels"
        )
    if asked is not None and asked not in labels:
        raise BundleError(
            f"label {asked!r}; {bundle.path} has the labels {', '.join(labels)}; give one of these"
        )
    return 1 if asked is None else labels.index(asked)


def relation_of(bundle: Siamese, label: int) -> str:
    """What the label says of two texts, in words: by its name, else by the column that the model was trained on."""
    trained = bundle.provenance.get("settings")
    settings = trained if isinstance(trained, dict) else {}
    column = settings.get("label_column")
    for name in (bundle.labels[label], column if label == 1 else None):
        for relation in ("same_book", "same_author"):
            if isinstance(name, str) and relation in name.lower().replace(" ", "_"):
                return relation.replace("_", " ")
    if label == 1 and column == "label" and settings.get("book_columns") and bundle.labels[1] == "1":
        return "same book"  # as `assay prepare books` calls its columns and labels
    return f"label {bundle.labels[label]}"


def oriented(score_M: Numbers, aggregate: Aggregate, label: int) -> Numbers:
    """The numbers of pairs of documents so that a higher one makes `label` likelier; a cosine always does."""
    return score_M if label == 1 or aggregate == "cosine" else -score_M


def document_rules(
    cutter: DocumentCutter, settings: DocumentRules, aggregate: Aggregate, label: str
) -> Mapping[str, object]:
    """All that decides which number two documents have by one model; a calibration keeps it."""
    return {
        "label": label,
        "aggregate": aggregate,
        "chunk_size": cutter.chunk_tokens,
        "typography": settings.typography,
        "mask_names": settings.mask_names,
    }


def _style_calibration(
    bundle: Siamese, settings: CompareSettings, cutter: DocumentCutter, label: int
) -> StyleCalibration | None:
    file = find_style_calibration(bundle.path, settings.calibration)
    if file is None:
        return None
    style = read_style_calibration(file)
    rules = document_rules(cutter, settings, _aggregate(settings, style), bundle.labels[label])
    style.refuse_others(file, bundle.path, bundle.fingerprint, rules)
    return style


def _aggregate(settings: CompareSettings, style: StyleCalibration | None) -> Aggregate:
    """That of the settings, else that of the calibration; UsageError for a cosine without one."""
    if settings.aggregate == "cosine" and style is None:
        raise UsageError(
            "aggregate=cosine; a cosine is not a probability; run assay style calibrate with it first, or set"
            " aggregate to vectors, attention or logits"
        )
    fitted = None if style is None else style.meta.get("aggregate")
    known = next((each for each in get_args(Aggregate) if each == fitted), "vectors")
    return settings.aggregate or cast("Aggregate", known)


def _mapped(fitted: StyleMap, score: float) -> float:
    return float(map_scores([score], fitted.map)[0])


def _probability(bundle: Siamese, label: int, log_odds: float) -> float:
    """By the model's own calibration, of the log-odds of its second label."""
    logits = np.array([[-log_odds / 2, log_odds / 2]])
    return float(apply_calibration(logits, bundle.calibration, bundle.task)[0, label])


def _calibrated(bundle: Siamese, fitted: StyleMap | None) -> str:
    if fitted is not None:
        return f"calibrated for documents of {format_number_of(fitted.num_chunks, 'chunk')}"
    return "not calibrated" if bundle.calibration is None else "calibrated for single texts"


def _threshold(bundle: Siamese, label: int) -> float:
    threshold = None if bundle.calibration is None else bundle.calibration.threshold
    if not isinstance(threshold, float):
        return 0.5
    return threshold if label == 1 else 1 - threshold


def _compared(document: Document) -> ComparedText:
    return ComparedText(
        name=document.name,
        num_chunks=len(document.passages),
        num_words=document.num_words,
        share_in_chunks=document.share_in_passages,
    )


def _passages(
    model: SiameseModel, encoded: EncodedDocuments, documents: list[Document], sign: float, num: int
) -> tuple[tuple[PassagePair, ...], tuple[PassagePair, ...]]:
    """Pairs of chunks with the highest and with the lowest log-odds, each chunk in one pair of a list at most."""
    if not num:
        return (), ()
    compared = compare_passages(model, encoded, 0, 1)
    found, places = sign * compared.log_odds_KL, (compared.first_K, compared.second_L)
    # half of the pairs at most, so that none speaks for and against
    most = min(num, max(1, found.size // 2))
    highest, lowest = (_apart(order, found, most) for order in (-found, found))
    if found.size == 1:
        highest, lowest = (highest, []) if found[0, 0] > 0 else ([], lowest)

    def show(pair: tuple[int, int]) -> PassagePair:
        first, second = (
            documents[side].passages[int(places[side][place])] for side, place in enumerate(pair)
        )
        return PassagePair(
            log_odds=float(found[pair]),
            first=PassagePlace(start=first.start, stop=first.stop, beginning=brief(first.text, _BEGINNING)),
            second=PassagePlace(
                start=second.start, stop=second.stop, beginning=brief(second.text, _BEGINNING)
            ),
        )

    return tuple(map(show, highest)), tuple(map(show, lowest))


def _apart(order: Floats, found: Floats, num: int) -> list[tuple[int, int]]:
    """The first places of an order, none in the row or the column of an earlier one."""
    taken: list[tuple[int, int]] = []
    for place in np.argsort(order, axis=None, kind="stable").tolist():
        row, column = divmod(place, found.shape[1])
        if all(row != one and column != two for one, two in taken):
            taken.append((row, column))
        if len(taken) == min(num, *found.shape):
            break
    return taken


def _evidence(bundle: Siamese, encoded: EncodedDocuments, sign: float) -> dict[str, float]:
    weighed, texts = bundle.evidence, encoded.wholes.evidence
    if weighed is None or texts is None:
        return {}
    shares = weighed.evidence.shares(texts, _FIRST, _SECOND)
    counted = {name: sign * weighed.combination.evidence * float(each[0]) for name, each in shares.items()}
    return dict(sorted(counted.items(), key=lambda item: -abs(item[1])))


def _notes(
    settings: CompareSettings, texts: list[str], documents: list[Document], fitted: StyleMap | None
) -> list[str]:
    notes = []
    fewest = min(len(document.passages) for document in documents)
    if fitted is not None and fewest < fitted.num_chunks:
        notes.append(
            f"the shorter text has {format_number_of(fewest, 'chunk')}, and the calibration is for {fitted.num_chunks}"
            " or more; the probability may be too sure"
        )
    if are_same_file(settings.text1, settings.text2):
        notes.append("both texts are the same file")
    elif texts[0] == texts[1]:
        notes.append("both files hold the same text")
    notes += [
        f"{document.name}: {document.share_in_passages:.0%} of the text is in its chunks; other sentences are longer"
        " than a chunk"
        for document in documents
        if document.share_in_passages < _LEAST_SHARE and len(document.passages) > 1
    ]
    return notes
