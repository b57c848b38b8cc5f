"""What a tokenizer puts around one text and around a pair, found by probing it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

_PROBES = ("a", "the quick brown fox 1 2 3", "")
_Segment = tuple[int | None, int, int]  # sequence (None: special token), token type, token id


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """The ids that a tokenizer puts around one text."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """How many they are."""
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSpecialTokens:
    """The ids that a tokenizer puts around and between two texts."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    num_middle_of_first: int | None
    """How many of `middle` have token type 0; None where every token type of a pair is 0."""

    @property
    def num_tokens(self) -> int:
        """How many they are."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def _segments(encoding: Encoding) -> list[_Segment]:
    return list(zip(encoding.sequence_ids, encoding.type_ids, encoding.ids, strict=True))


def _special_run(segments: Sequence[_Segment]) -> tuple[int, ...]:
    return tuple(token for _, _, token in segments)


def probe_single(tokenizer: Tokenizer) -> SpecialTokens | None:
    """The template around one text, or None where the probes do not agree on one."""
    found: SpecialTokens | None = None
    for probe in _PROBES:
        content = tokenizer.encode(probe, add_special_tokens=False).ids
        segments = _segments(tokenizer.encode(probe))
        if any(token_type for _, token_type, _ in segments):
            return None
        if found is None:
            start = next((i for i, segment in enumerate(segments) if segment[0] == 0), 0)
            found = SpecialTokens(
                prefix=_special_run(segments[:start]), suffix=_special_run(segments[start + len(content) :])
            )
        if [token for _, _, token in segments] != [*found.prefix, *content, *found.suffix]:
            return None
    return found


def probe_pair(tokenizer: Tokenizer) -> PairSpecialTokens | None:
    """The template around two texts, or None where the probes do not agree on one."""
    found: PairSpecialTokens | None = None
    for first, second in ((_PROBES[0], _PROBES[1]), (_PROBES[1], _PROBES[0]), ("", _PROBES[1]), ("", "")):
        first_ids = tokenizer.encode(first, add_special_tokens=False).ids
        second_ids = tokenizer.encode(second, add_special_tokens=False).ids
        segments = _segments(tokenizer.encode(first, second))
        if found is None:
            found = _read_pair_template(segments, len(first_ids), len(second_ids))
            if found is None:
                return None
        if [token for _, _, token in segments] != [
            *found.prefix, *first_ids, *found.middle, *second_ids, *found.suffix
        ]:  # fmt: skip
            return None
        num_zeros = len(segments)
        if found.num_middle_of_first is not None:
            num_zeros = len(found.prefix) + len(first_ids) + found.num_middle_of_first
        if [kind for _, kind, _ in segments] != [0] * num_zeros + [1] * (len(segments) - num_zeros):
            return None
    return found


def _read_pair_template(
    segments: Sequence[_Segment], num_first: int, num_second: int
) -> PairSpecialTokens | None:
    sequences = [sequence for sequence, _, _ in segments]
    if 0 not in sequences or 1 not in sequences:
        return None
    first_start, second_start = sequences.index(0), sequences.index(1)
    first_stop, second_stop = first_start + num_first, second_start + num_second
    second_type = second_type_start([kind for _, kind, _ in segments])
    return PairSpecialTokens(
        prefix=_special_run(segments[:first_start]),
        middle=_special_run(segments[first_stop:second_start]),
        suffix=_special_run(segments[second_stop:]),
        num_middle_of_first=second_type - first_stop if second_type else None,
    )


def second_type_start(type_ids: Sequence[int]) -> int:
    """Where token type 1 begins; 0 where every token type is 0."""
    return list(type_ids).index(1) if 1 in type_ids else 0
