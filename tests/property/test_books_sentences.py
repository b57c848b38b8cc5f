"""What holds of sentences and normal forms of any text."""

from hypothesis import given
from hypothesis import strategies as st

from assay.books.languages.table import TABLES
from assay.books.normal_forms import mask_names, normalise_typography, typography_of
from assay.books.sentences import split_sentences

PIECES = st.sampled_from(
    [*"aA1iI \n.!?…。\"'“”„«»‘’()*_-—–,;:tś\u00ad\u00a0`", "Mr.", " No. ", "\n\n", "...", " \r\n", "e\u0301"]
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
