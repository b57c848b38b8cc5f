"""A scoring model that drops candidates which are probably positives: a pair classifier, run by the engine."""

from assay.bundle.bundle import Bundle
from assay.bundle.load import load_bundle
from assay.bundle.texts import refuse_other_texts
from assay.engine.load import load_engine
from assay.errors import BundleError
from assay.mine.store import Floats
from assay.score.classifier import Classifier
from assay.tasks import Task, probability_column
from assay.tokenize.encode import Encoder


def open_guard_bundle(path: str, label: str | None) -> tuple[Bundle, str]:
    """The guard's bundle and the label that means positive; raises BundleError where it cannot be a guard."""
    bundle = load_bundle(path)
    refuse_other_texts(bundle, are_pairs=True, setting="guard_bundle", error=BundleError)
    if bundle.task != Task.SINGLE_LABEL:
        raise BundleError(
            f"{path} is a {bundle.task} model; a guard gives a probability of one label: give a single_label one"
        )
    if label is None and len(bundle.labels) != 2:
        raise BundleError(
            f"{path} has {len(bundle.labels)} labels; say with --guard-label which of them means positive"
        )
    chosen = bundle.labels[1] if label is None else label
    if chosen not in bundle.labels:
        raise BundleError(
            f"guard_label {chosen!r}; {path} knows {', '.join(bundle.labels[:10])}; give one of these"
        )
    return bundle, chosen


class Guard:
    """Probabilities that a candidate is a positive of its anchor."""

    def __init__(self, bundle: Bundle, label: str, *, device: str, num_threads: int | None) -> None:
        """Load the model; the same bits whatever a pair is batched with."""
        encoder = Encoder.from_bundle(
            bundle.path, max_length=bundle.default_max_length, on_long="truncate", stride=0
        )
        engine = load_engine(bundle.checkpoint, device=device, num_threads=num_threads, deterministic=True)
        self._classifier = Classifier(bundle, engine, encoder, device=device)
        self._column = probability_column(label)

    def probabilities(self, anchors: list[str], candidates: list[str]) -> Floats:
        """Of each pair; NaN for one that has no score."""
        column = self._classifier.predict(anchors, candidates).column(self._column)
        found: Floats = column.to_numpy().astype("float32")
        return found
