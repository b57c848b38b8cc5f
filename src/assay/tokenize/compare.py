"""Assay's token ids beside those of transformers, on texts: what the parity gate and `doctor` compare.

The reference of a model is a text in transformers' hands, tokenizer included. `tokenizer_config.json` changes
what AutoTokenizer makes of `tokenizer.json`, so equal files do not prove equal ids.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.model.checkpoint import brief
from assay.model.pretrained import one_line, quiet
from assay.tokenize.encode import Encoder

MOST_CHARS = 20_000
"""Of a text that are compared: its beginning tells as much as the whole, and takes no minutes."""
NUM_WORDS = 50
"""Of the vocabulary that are probed."""
SAVE_TOKENIZER = "save the tokenizer that the model was trained with again, by save_pretrained()"
"""The way out of a difference."""
PROBES = (
    "The quick brown fox",
    "Hello World CAFÉ naïve Straße ÅNGSTRÖM",
    "日本語のテキスト 中文 한국어",
    "  two  spaces\tand\na line, don't; e-mail@example.com £3.50 🙂",
)
"""Texts in which tokenizers differ where they differ at all: case, accents, scripts, white space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenComparison:
    """What came of the comparison."""

    num_texts: int
    """Texts, or pairs of them, that were compared; 0 where transformers has no tokenizer."""
    difference: str | None
    """The first difference, as a clause; None where there is none."""
    reason: str | None = None
    """Why nothing was compared; None where it was."""

    def __str__(self) -> str:
        """One line for reports."""
        if self.reason is not None:
            return f"not compared: {self.reason}"
        return self.difference or f"the same ids as transformers on {self.num_texts} texts"


def compare_tokens(
    folder: Path, encoder: Encoder, texts: Sequence[str], text_pairs: Sequence[str] | None = None
) -> TokenComparison:
    """How the encoder's ids of these texts compare with those of AutoTokenizer, both cut at the end."""
    peer = _load_peer(folder)
    return peer if isinstance(peer, TokenComparison) else _compare(peer, encoder, texts, text_pairs)


def compare_probes(folder: Path, encoder: Encoder) -> TokenComparison:
    """The same on made-up texts, words of the vocabulary in lower and in title case among them."""
    peer = _load_peer(folder)
    if isinstance(peer, TokenComparison):
        return peer
    words = sorted(word for word in peer.get_vocab() if word.isalpha())
    some = " ".join(words[:: len(words) // NUM_WORDS + 1])
    return _compare(peer, encoder, [*PROBES, some, some.title()])


def _load_peer(folder: Path) -> Any:  # noqa: ANN401 - a transformers tokenizer is untyped
    """The folder's AutoTokenizer; what to say where transformers cannot make one."""
    try:
        with quiet():
            from transformers import AutoTokenizer

            peer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - whatever keeps transformers from making one
        reason = f"transformers cannot load the tokenizer ({one_line(error)})"
        return TokenComparison(num_texts=0, difference=None, reason=reason)
    peer.truncation_side = "right"  # Assay cuts by its own policy
    return peer


def _compare(
    peer: Any,  # noqa: ANN401 - a transformers tokenizer is untyped
    encoder: Encoder,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
) -> TokenComparison:
    first = [text[:MOST_CHARS] for text in texts]
    second = None if text_pairs is None else [text[:MOST_CHARS] for text in text_pairs]
    mine = encoder.truncating("right").encode_texts(first, second)
    for row, (start, stop) in enumerate(itertools.pairwise(mine.offsets.tolist())):
        if row in mine.errors:
            continue
        pair = None if second is None else second[row]
        with quiet():
            # as batches of one: a single call takes an empty second text for none
            theirs = peer(
                [first[row]],
                None if pair is None else [pair],
                truncation=True,
                max_length=encoder.max_length,
            )["input_ids"][0]
        ids = mine.flat_ids[start:stop].tolist()
        if ids != theirs:
            text = first[row] if pair is None else f"{first[row]} / {pair}"
            return TokenComparison(num_texts=len(first), difference=_difference(text, ids, theirs, peer))
    return TokenComparison(num_texts=len(first), difference=None)


def _difference(text: str, mine: list[int], theirs: list[int], peer: Any) -> str:  # noqa: ANN401 - untyped
    place = next(
        (k for k, (left, right) in enumerate(zip(mine, theirs, strict=False)) if left != right),
        min(len(mine), len(theirs)),
    )
    shown = [
        f"{peer.convert_ids_to_tokens(ids[place])!r} ({ids[place]})" if place < len(ids) else "the end"
        for ids in (mine, theirs)
    ]
    return (
        f"token {place} of {brief(text, 60)!r} is {shown[0]} by tokenizer.json and {shown[1]} by AutoTokenizer,"
        " which follows tokenizer_config.json too"
    )
