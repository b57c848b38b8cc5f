"""Which chunks are worth keeping, and their hashes."""

import re

import pytest

from assay.prepare.chunks.quality import flaw_of, hash_of


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("Zażółć gęślą jaźń, said he.", None),
        ("Too short.", "too_short"),
        ("12, 13, 14, 15, 16, 17, a line of numbers", "few_letters"),
        ("* * * * * * * * * * * *", "few_letters"),
    ],
)
def test_flaws(text, flaw):
    """A text is long enough, and most of it is letters."""
    assert flaw_of(text, min_chars=15, min_letters=0.6) == flaw


def test_share_of_letters():
    """White space does not count."""
    assert flaw_of("aaa   ,,", min_chars=1, min_letters=0.6) is None
    assert flaw_of("aaa   ,,", min_chars=1, min_letters=0.61) == "few_letters"


@pytest.mark.parametrize("text", ["“Well!” he_said — 12 times…", "ŻÓŁĆ i Straße, №5", "plain", ""])
def test_hash_is_of_letters_and_digits(text):
    """Marks, case and white space change nothing; a letter does."""
    assert hash_of(text) == hash_of(re.sub(r"[\W_]+", "", text).lower())
    assert hash_of(text) != hash_of(text + "x")
    assert -(2**63) <= hash_of(text) < 2**63
