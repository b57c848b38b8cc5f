"""Single texts or pairs: what a bundle takes, against what it is given."""

from assay.bundle.bundle import Bundle
from assay.errors import AssayError, UsageError


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
