r"""[pure] Where a text may be cut without changing the tokens of its pieces.

Truncating a 10 MB document to 512 tokens should not tokenize 10 MB. Most tokenizers split on
whitespace before the model sees a word, so what lies behind a space cannot change the tokens before
it. `find_cut_rule` reads a tokenizer.json and says whether that holds; whatever it does not know
counts as "no", and the text is then tokenized whole.

A cut lies before one separator that has a letter, digit or plain closing punctuation mark on its left
and a letter or digit on its right. Why such a cut is safe for each allowed component:

- Normalizers work on characters, or compose a character with combining marks that follow it; a
  separator is neither, and no visible character becomes, or gains, whitespace at its ends. Runs of spaces
  (`" {2,}"`) cannot reach over the cut, a separator stands alone.
- Pre-tokenizers: no class of BERT's, GPT-2's or `\w` splitting rules spans visible text and the
  whitespace after it. Metaspace splits on U+0020 only, so there only a space is a separator.
- Added tokens are matched leftmost-longest; those with inner whitespace are refused below.
- Models see one word at a time.

Not covered: `Split` with a regular expression of its own, tokenizers without a pre-tokenizer
(SentencePiece-style BPE), BPE dropout.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WHITESPACE = " \n\t"
_SPACE = " "
# Letters and digits, less what some normalizers drop (Hangul fillers, two Vedic signs) or give a
# leading space (the Greek iota subscript, Arabic presentation forms).
_VISIBLE = "[^\\W_\u115f\u1160\u3164\uffa0\u1cf2\u1cf3\u037a\ufb50-\ufdff\ufe70-\ufefc]"
_CLOSING = "[.,;:!?)\\]}\"'\u201d\u2019\u00bb\u3001\u3002\uff01\uff0c\uff1f\u300d]"

_LOCAL_NORMALIZERS = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
)
_LOCAL_REPLACED = frozenset({" {2,}"})
_WHITESPACE_SPLITTERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
_LOCAL_PRE_TOKENIZERS = frozenset({"Digits", "Punctuation"})
_LOCAL_MODELS = frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"})

_Section = Mapping[str, Any]  # one component of a tokenizer.json


@dataclass(frozen=True, kw_only=True, slots=True)
class CutRule:
    """Where texts may be cut for one tokenizer."""

    separators: str
    """Characters before which a text may be cut; empty: nowhere."""
    is_resumable: bool
    """Whether the text behind a cut, tokenized alone, gives the tokens it has within the whole."""

    def head(self, text: str, num_chars: int) -> str:
        """The shortest cuttable beginning of `num_chars` or more; the whole text where there is none."""
        if not self.separators or len(text) <= num_chars:
            return text
        cut = _pattern(self.separators).search(text, num_chars)
        return text if cut is None else text[: cut.start()]

    def tail(self, text: str, num_chars: int) -> str | None:
        """A cuttable end of `num_chars` to twice as many characters; None where there is none."""
        if not self.separators or not self.is_resumable:
            return None
        cut = _pattern(self.separators).search(text, max(1, len(text) - 2 * num_chars))
        if cut is None or cut.start() > len(text) - num_chars:
            return None
        return text[cut.start() :]

    def pieces(self, text: str, num_chars: int) -> Iterator[str]:
        """The text in pieces of about `num_chars` or more, whose tokens in a row are the text's."""
        start = 0
        if self.separators and self.is_resumable:
            pattern = _pattern(self.separators)
            while cut := pattern.search(text, start + num_chars):
                yield text[start : cut.start()]
                start = cut.start()
        yield text[start:] if start else text


def find_cut_rule(tokenizer: _Section) -> CutRule:
    """The cut rule of a parsed tokenizer.json; no separators where locality cannot be shown."""
    never = CutRule(separators="", is_resumable=False)
    model = tokenizer.get("model") or {}
    added = tokenizer.get("added_tokens") or []
    # Models saved by old versions carry no type; those are not worth guessing.
    if model.get("type") not in _LOCAL_MODELS or model.get("dropout"):
        return never
    if any(re.search(r"\S\s", token["content"]) for token in added):
        return never
    normalizers = _flatten(tokenizer.get("normalizer"), "normalizers")
    if not all(_is_local_normalizer(section) for section in normalizers):
        return never
    pre_tokenizers = _flatten(tokenizer.get("pre_tokenizer"), "pretokenizers")
    # BERT's normalizer puts spaces around CJK characters; beside a cut these must not become tokens.
    if any(section["type"] == "BertNormalizer" for section in normalizers) and (
        not _drops_whitespace(pre_tokenizers) or any(re.search(r"\s", token["content"]) for token in added)
    ):
        return never
    separators = _find_separators(pre_tokenizers)
    # What sees the start of a text would see the start of each piece: these do not commute with cuts.
    is_resumable = not any(token.get("rstrip") for token in added) and not any(
        section["type"] == "Prepend" or (section["type"] == "Strip" and section.get("strip_left", True))
        for section in normalizers
    )
    return CutRule(separators=separators, is_resumable=is_resumable and bool(separators))


def _pattern(separators: str) -> re.Pattern[str]:
    # `re` caches compiled patterns; there are two of these at most.
    return re.compile(f"(?:(?<={_VISIBLE})|(?<={_CLOSING}))[{separators}](?={_VISIBLE})")


def _flatten(section: _Section | None, key: str) -> list[_Section]:
    if not section:
        return []
    if section["type"] == "Sequence":
        return [leaf for child in section[key] for leaf in _flatten(child, key)]
    return [section]


def _is_local_normalizer(section: _Section) -> bool:
    match section["type"]:
        case "Strip" | "Prepend":
            return True
        case "Replace":
            pattern: Mapping[str, str] = section["pattern"]
            # A single character cannot reach over a cut; a single space must stay a separator.
            literal = pattern.get("String", "")
            return pattern.get("Regex") in _LOCAL_REPLACED or (len(literal) == 1 and not literal.isspace())
        case kind:
            return kind in _LOCAL_NORMALIZERS


def _drops_whitespace(sections: Sequence[_Section]) -> bool:
    kinds = [section["type"] for section in sections if section["type"] not in _LOCAL_PRE_TOKENIZERS]
    return bool(kinds) and kinds[0] in _WHITESPACE_SPLITTERS


def _find_separators(sections: Sequence[_Section]) -> str:
    separators = ""
    for section in sections:
        kind = section["type"]
        if kind in _WHITESPACE_SPLITTERS:
            separators = separators or _WHITESPACE
        elif kind == "ByteLevel" and section.get("use_regex", True):
            # With `add_prefix_space` a piece that starts with another separator would get a space as well.
            separators = separators or (_SPACE if section.get("add_prefix_space", True) else _WHITESPACE)
        elif kind == "Metaspace" and section.get("split", True):
            separators = separators or _SPACE
        elif kind not in _LOCAL_PRE_TOKENIZERS and not (kind == "ByteLevel" and separators):
            return ""
    return separators
