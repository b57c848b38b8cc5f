"""What holds of sentences and normal forms of any text."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from assay.books.candidates import CLOSERS, OPENERS, TERMINATORS, find_candidates
from assay.books.languages.table import TABLES
from assay.books.normal_forms import find_names, mask_names, normalise_typography, typography_of
from assay.books.sentences import split_sentences
from assay.prepare.chunks.passages import Passages
from assay.prepare.chunks.quality import hash_of
from assay.prepare.chunks.settings import ChunkRules

PIECES = st.sampled_from(
    [
        *"aA1iI \n.!?…。\"'“”„«»‘’()*_-—–,;:tś\u00ad\u00a0`",
        "Mr.",
        " No. ",
        "\n\n",
        "...",
        " \r\n",
        "e\u0301",
        "\n* * *\n",
        "ΑΣ",
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=60)


@given(text=TEXTS, language=st.sampled_from([*TABLES, "xx"]))
def test_every_visible_character_is_in_one_sentence(text: str, language: str) -> None:
    """Sentences come in order, hold no outer white space, and leave nothing out but white space."""
    spans = split_sentences(text, language)
    assert spans.dtype.name == "int64"
    place = 0
    for start, stop in spans.tolist():
        assert place <= start < stop
        assert not text[place:start].strip()
        assert text[start:stop].strip() == text[start:stop]
        place = stop
    assert not text[place:].strip()


@given(text=TEXTS)
def test_typography_twice_is_once(text: str) -> None:
    """A normal form is its own normal form, and lies on one line."""
    normal = normalise_typography(text)
    assert normalise_typography(normal) == normal
    assert normal == " ".join(normal.split())


@given(text=TEXTS, cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_a_piece_is_normalised_as_by_itself(text: str, cuts: tuple[int, int]) -> None:
    """What is known of a whole text changes nothing in the normal form of its pieces."""
    piece = text[slice(*sorted(cuts))]
    assert typography_of(text).normalise(piece) == normalise_typography(piece)


@given(text=TEXTS)
def test_masking_keeps_all_but_words(text: str) -> None:
    """What is no letter stays in its place and order."""
    masked = mask_names(text)
    assert [c for c in masked if not c.isalpha()] == [c for c in text if not c.isalpha()]


@given(text=TEXTS, quotes=st.sampled_from(["", "»"]))
def test_candidates_are_those_of_a_regular_expression(text: str, quotes: str) -> None:
    """Arrays find what a terminator, closers, white space and then no lower-case letter and no mark are."""
    closers, openers = f"[{re.escape(CLOSERS)}]*", re.escape(OPENERS)
    if quotes:
        closers += rf"(?:\s?[{quotes}])*"
    lower = "".join(chr(code) for code in range(0x2000) if chr(code).islower())
    pattern = rf"([{TERMINATORS}]+{closers})(\s+)(?=[{openers}\s]*[^{openers}{lower}\s,;:.!?…)\]}}])"
    expected = [(*match.span(2), match[1] == ".") for match in re.finditer(pattern, text)]
    found = find_candidates(text, quotes)
    rows = zip(found.stop.tolist(), found.start.tolist(), found.is_lone_stop.tolist(), strict=True)
    assert list(rows) == expected


@given(text=TEXTS, masks=st.booleans(), numbers=st.lists(st.integers(0, 60), min_size=2, max_size=5))
def test_a_passage_is_as_by_itself(text: str, masks: bool, numbers: list[int]) -> None:
    """A passage that is put together from pieces is the normal form of its place in the text, and has its hash."""
    text = text.replace("\0", "")
    spans = split_sentences(text)
    cuts = sorted({min(number, len(spans)) for number in numbers})
    passages = Passages(text, spans, "en", ChunkRules(mask_names=masks), cuts=cuts)
    for first, stop in itertools.combinations(cuts, 2):
        place = text[spans[first, 0] : spans[stop - 1, 1]]
        expected = normalise_typography(mask_names(place, "en", find_names(text)) if masks else place)
        assert passages.text(first, stop) == expected
        assert passages.hash(first, stop) == hash_of(expected)
