"""A scoring model that drops candidates which are probably positives: a model of pairs, run by the engine."""

from functools import partial

from assay.bundle.bundle import Bundle
from assay.mine.store import Floats
from assay.score.bundles import AS_TUNED, engine_of, open_pair_classifier, open_scorer
from assay.score.classifier import Classifier
from assay.tasks import probability_column


def open_guard_bundle(path: str, label: str | None) -> tuple[Bundle, str]:
    """The guard's bundle and the label that means positive; raises BundleError where it cannot be a guard."""
    return open_pair_classifier(path, label, setting="guard_bundle", label_setting="guard_label")


class Guard:
    """Probabilities that a candidate is a positive of its anchor."""

    def __init__(self, bundle: Bundle, label: str, *, device: str, num_threads: int | None) -> None:
        """Load the model; the same bits whatever a pair is batched with."""
        scorer = open_scorer(
            bundle,
            AS_TUNED,
            partial(engine_of, device=device, num_threads=num_threads, deterministic=True),
            device=device,
        )
        self._classifier = Classifier(bundle, scorer, device=device)
        self._column = probability_column(label)

    def probabilities(self, anchors: list[str], candidates: list[str]) -> Floats:
        """Of each pair; NaN for one that has no score."""
        column = self._classifier.predict(anchors, candidates).column(self._column)
        found: Floats = column.to_numpy().astype("float32")
        return found
