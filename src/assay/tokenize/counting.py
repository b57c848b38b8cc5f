"""How many tokens texts have, for those who cut them to a budget."""

import os
from collections.abc import Callable, Sequence

import numpy as np

from assay.tokenize.encode import Encoder

CountTokens = Callable[[Sequence[str]], list[int]]
"""Tokens of each text, without special tokens."""
_MAX_LENGTH = 1 << 20
"""No text that is counted has as many tokens: none is cut before it is counted."""


def open_encoder(bundle: str | os.PathLike[str]) -> Encoder:
    """The tokenizer of a bundle; nothing that it is given is cut."""
    return Encoder.from_bundle(bundle, max_length=_MAX_LENGTH, on_long="truncate")


def token_counter(encoder: Encoder) -> CountTokens:
    """Counts the tokens of texts, without the special ones."""
    special = encoder.special_tokens
    num_special = 0 if special is None else special.num_tokens

    def count(texts: Sequence[str]) -> list[int]:
        lengths = np.diff(encoder.encode_texts(list(texts)).offsets) - num_special
        return [int(length) for length in np.maximum(lengths, 0)]

    return count
