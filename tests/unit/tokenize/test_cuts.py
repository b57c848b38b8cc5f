"""Which tokenizers allow their texts to be cut, and where."""

import pytest

from assay.tokenize.cuts import CutRule, find_cut_rule

RULE = CutRule(separators=" \n\t", is_resumable=True)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
BERT = {"normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"}}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def describe(**changes):
    """A parsed tokenizer.json of a byte-level BPE with changes."""
    return {
        "model": {"type": "BPE"},
        "pre_tokenizer": BYTE_LEVEL,
        "normalizer": None,
        "added_tokens": [],
    } | changes


def added(content, **flags):
    """One added token of a tokenizer.json."""
    return [{"content": content, "lstrip": False, "rstrip": False} | flags]


@pytest.mark.parametrize(
    ("changes", "separators", "is_resumable"),
    [
        ({}, " \n\t", True),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, " ", True),
        ({"pre_tokenizer": METASPACE}, " ", True),
        ({"pre_tokenizer": METASPACE | {"split": False}}, "", False),
        ({"pre_tokenizer": None}, "", False),
        ({"pre_tokenizer": BYTE_LEVEL | {"use_regex": False}}, "", False),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}}}, "", False),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}]}}, "", False),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, METASPACE]}},
            " ",
            True,
        ),
        ({"model": {"type": "BPE", "dropout": 0.1}}, "", False),
        ({"model": {"type": "Mystery"}}, "", False),
        ({"model": None}, "", False),
        ({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}}, "", False),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "a.*"}, "content": ""}}, "", False),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}}, " \n\t", True),
        ({"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}, " \n\t", False),
        ({"normalizer": {"type": "Prepend", "prepend": "▁"}}, " \n\t", False),
        ({"added_tokens": added("<mask>", lstrip=True)}, " \n\t", True),
        ({"added_tokens": added("<mask>", rstrip=True)}, " \n\t", False),
        ({"added_tokens": added("New York")}, "", False),
        ({"added_tokens": added("    ")}, " \n\t", True),
        ({"normalizer": {"type": "BertNormalizer"}}, "", False),
        (BERT, " \n\t", True),
        (BERT | {"added_tokens": added("  ")}, "", False),
    ],
)
def test_rule_of_components(changes, separators, is_resumable):
    """Only components that are known to split locally allow cuts."""
    rule = find_cut_rule(describe(**changes))
    assert (rule.separators, rule.is_resumable) == (separators, is_resumable)


def test_head_is_the_shortest_beginning_of_enough_characters():
    """A head ends before the first lone separator between visible characters."""
    assert RULE.head("one two three", 2) == "one"
    assert RULE.head("one two three", 3) == "one"
    assert RULE.head("one two three", 4) == "one two"
    assert RULE.head("one  two\r\nthree. Four", 2) == "one  two\r\nthree."
    assert RULE.head("onetwothree", 2) == "onetwothree"
    assert RULE.head("one two", 100) == "one two"


def test_tail_is_an_end_of_enough_characters():
    """A tail starts with its separator; None where there is no cut in reach."""
    assert RULE.tail("one two three four", 6) == " three four"
    assert RULE.tail("one two threefour", 4) is None
    assert CutRule(separators=" ", is_resumable=False).tail("one two three four", 6) is None


def test_pieces_make_up_the_text():
    """Pieces in a row are the text; without a rule there is one piece."""
    text = "one two three  four\nfive six. Seven"
    pieces = list(RULE.pieces(text, 5))
    assert "".join(pieces) == text
    assert pieces == ["one two", " three  four", "\nfive", " six.", " Seven"]
    assert list(CutRule(separators="", is_resumable=False).pieces(text, 5)) == [text]
    assert list(RULE.pieces("", 5)) == [""]
