"""Single texts or pairs: what a bundle takes, against what it is given."""

from assay.bundle.bundle import Bundle
from assay.bundle.load import load_bundle
from assay.errors import AssayError, BundleError, UsageError
from assay.tasks import Task


def refuse_other_texts(
    bundle: Bundle,
    *,
    are_pairs: bool,
    setting: str = "--text-pair-column",
    single_texts: str | None = None,
    error: type[AssayError] = UsageError,
) -> None:
    """Raise `error` where a bundle takes pairs and gets single texts, or takes single texts and gets pairs.

    `setting` is what the caller's second text is given by, `single_texts` how to give single ones, where it is
    not to leave that out. A bundle that does not say which it takes is
    given either.
    """
    if bundle.is_pair is True and not are_pairs:
        raise error(
            f"one text a row; {bundle.path} takes pairs of texts; give the second with {setting},"
            " or use a model of single texts"
        )
    if bundle.is_pair is False and are_pairs:
        raise error(
            f"pairs of texts; {bundle.path} takes single texts; {single_texts or f'leave {setting} out'},"
            " or use a model of pairs"
        )


def open_pair_classifier(
    path: str, label: str | None, *, setting: str, label_setting: str
) -> tuple[Bundle, str]:
    """A pair classifier and the label that means positive: `label`, or the second of two.

    `setting` and `label_setting` are what the two are given by. Raises BundleError for another kind of model.
    """
    bundle = load_bundle(path)
    refuse_other_texts(bundle, are_pairs=True, setting=setting, error=BundleError)
    if bundle.task != Task.SINGLE_LABEL:
        raise BundleError(
            f"{path} is a {bundle.task} model; {setting} needs the probability of one label: give a single_label one"
        )
    if label is None and len(bundle.labels) != 2:
        flag = "--" + label_setting.replace("_", "-")
        raise BundleError(
            f"{path} has {len(bundle.labels)} labels; say with {flag} which of them means positive"
        )
    chosen = bundle.labels[1] if label is None else label
    if chosen not in bundle.labels:
        raise BundleError(
            f"{label_setting} {chosen!r}; {path} has the labels {', '.join(bundle.labels[:10])}; give one of these"
        )
    return bundle, chosen
