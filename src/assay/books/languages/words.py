"""[pure] What a language's table holds."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """One language's words, without their full stops and as the language writes them."""

    code: str
    """ISO 639-1."""
    never_last: frozenset[str] = frozenset()
    """Abbreviations that more of the sentence always follows, titles above all: `Mr`."""
    rarely_last: frozenset[str] = frozenset()
    """Abbreviations that end a sentence only where a word of `openers` follows: `etc`."""
    before_numbers: frozenset[str] = frozenset()
    """Abbreviations if a number follows, words otherwise: `No. 5`."""
    openers: frozenset[str] = frozenset()
    """Words that have a capital only where a sentence begins, and often begin one: `They`."""
    whole_letters: frozenset[str] = frozenset()
    """Capital letters that are words and may end a sentence; any other is the initial of a name."""
    has_ordinals: bool = False
    """Whether `3.` is how the language writes "third"."""
    spaced_quotes: str = ""
    """Closing quotes that stand after a space."""
    determiners: frozenset[str] = frozenset()
    """Where all nouns have capitals: words before a noun that rarely come before a person's name."""
    function_words: frozenset[str] = frozenset()
    """Frequent words of little meaning, in lower case, by whose shares authors differ."""


def words(text: str) -> frozenset[str]:
    """The words of a table's entry, which are separated by white space."""
    return frozenset(text.split())
