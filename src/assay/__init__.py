"""Assay grades every document in a corpus with a transformer text classifier, exactly once.

    import assay
    classifier = assay.load("bundle/")
    table = classifier.predict(["a text", "another"])

    with assay.Client("http://127.0.0.1:8000") as client:        # of `assay serve`
        predictions = client.predict_batch(["a text", "another"])

The verbs of the command line are functions in `assay.api`, each taking the same settings value.
"""

from assay._version import __version__

TYPE_CHECKING = False  # as typing has it, which takes milliseconds to import before `assay` minds Ctrl-C
if TYPE_CHECKING:
    from assay.client.async_client import AsyncClient
    from assay.client.sync_client import Client
    from assay.score.classifier import Classifier, load

__all__ = ["AsyncClient", "Classifier", "Client", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Load what needs torch only when it is asked for, so that `assay --help` stays quick."""
    if name in {"Classifier", "load"}:
        from assay.garbage import not_collecting

        with not_collecting():
            from assay.score import classifier

        return getattr(classifier, name)
    if name == "Client":
        from assay.client.sync_client import Client

        return Client
    if name == "AsyncClient":
        from assay.client.async_client import AsyncClient

        return AsyncClient
    msg = f"module 'assay' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    """Every public name, those that are loaded when asked for included."""
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
