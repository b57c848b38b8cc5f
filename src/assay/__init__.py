"""Assay grades every document in a corpus with a transformer text classifier, exactly once.

    import assay
    classifier = assay.load("bundle/")
    table = classifier.predict(["a text", "another"])

The verbs of the command line are functions in `assay.api`, each taking the same settings value.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.score.classifier import Classifier, load

__version__ = "0.1.0"
__all__ = ["Classifier", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Load what needs torch only when it is asked for, so that `assay --help` stays quick."""
    if name in {"Classifier", "load"}:
        from assay.score import classifier

        return getattr(classifier, name)
    msg = f"module 'assay' has no attribute {name!r}"
    raise AttributeError(msg)
