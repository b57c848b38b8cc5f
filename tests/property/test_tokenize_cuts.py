"""Reading only the beginning, the ends or pieces of a text never changes its token ids."""

import json
from functools import cache

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from assay.tokenize import content as content_module
from assay.tokenize.cuts import find_cut_rule
from assay.tokenize.encode import Encoder

CORPUS = [
    "the quick brown fox jumps over the lazy dog 12345",
    "grüße straße ÄÖÜ",
    "数据 一个 分数",
    "\n\t  ..?!",
]
SPECIAL = ["<s>", "</s>", "<unk>"]
MAX_LENGTH = 12

_SPACES = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "\t", " \n ", "\u00a0", "\u2028", "\u3000", "\u200b", "\u0085"]
)
_WORDS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["the", "fox", "don't", "...", "数据", "e\u0301", "\u0301", "ﷺ", "ﱞ", "\u0600", "\u0d4e", "ㅤ"]
    ),
    st.sampled_from(["<mask>", "</s>", "x" * 90, "👩‍👩‍👧", "\x00", "▁", "▁▁a", "Ġ", "ÅΣς", "1234567890"]),
)
_TEXTS = st.lists(st.tuples(_WORDS, _SPACES).map("".join), max_size=60).map("".join)

NORMALIZERS = {
    "none": None,
    "bert": normalizers.BertNormalizer(),
    "nfc": normalizers.NFC(),
    "nfkc": normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]
    ),
    "strip": normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]
    ),
    "prepend": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace("a", "bb")]),
}
PRE_TOKENIZERS = {
    "bert": pre_tokenizers.BertPreTokenizer(),
    "whitespace": pre_tokenizers.Whitespace(),
    "byte level": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "byte level with space": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "metaspace": pre_tokenizers.Metaspace(),
    "metaspace first": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "metaspace never": pre_tokenizers.Metaspace(prepend_scheme="never"),
    "split metaspace": pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    ),
    "digits byte level": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "punctuation": pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.WhitespaceSplit()]),
}


@cache
def build_tokenizer(normalizer, pre_tokenizer):
    """A small BPE tokenizer of these components, and whether texts may be cut for it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre_tokenizer]
    if NORMALIZERS[normalizer] is not None:
        tokenizer.normalizer = NORMALIZERS[normalizer]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if "byte" in pre_tokenizer else []
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    # BERT's normalizer allows no cuts beside a token of spaces; Strip leaves nothing of one.
    if normalizer in {"none", "nfc", "prepend"}:
        tokenizer.add_tokens([AddedToken("  ")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


def build_encoder(tokenizer, on_long):
    """An encoder that may cut wherever its rule allows."""
    rule = find_cut_rule(json.loads(tokenizer.to_str()))
    return Encoder(
        tokenizer,
        fingerprint="",
        vocab_size=None,
        cut_rule=rule,
        max_length=MAX_LENGTH,
        on_long=on_long,
        stride=0,
    )


@pytest.fixture(autouse=True, scope="module")
def short_cuts():
    """Cut after a few characters, so that small texts are cut often, and without the safety margin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_module, "_CHARS_PER_TOKEN", 1)
        patch.setattr(content_module, "_HEAD_GROWTH", 2)
        patch.setattr(content_module, "_MARGIN_TOKENS", 1)
        patch.setattr(content_module, "_PIECE_CHARS", 4)
        yield


@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@settings(max_examples=40, deadline=None)
@given(text=_TEXTS)
def test_cut_texts_give_the_ids_of_whole_texts(normalizer, pre_tokenizer, text):
    """Under every policy the ids are those of the whole text, whatever the tokenizer is made of."""
    tokenizer = build_tokenizer(normalizer, pre_tokenizer)
    content = tokenizer.encode(text, add_special_tokens=False).ids
    limit = MAX_LENGTH - 2
    is_long = len(content) > limit
    expected = {
        "window-mean": content,
        "truncate": content[:limit],
        "head-tail": content[:3] + content[-7:] if is_long else content,
        "error": None if is_long else content,
    }
    for on_long, ids in expected.items():
        tokens = build_encoder(tokenizer, on_long).encode(pa.array([text]))
        assert tokens.flat_ids.tolist() == ([] if ids is None else [0, *ids, 1]), on_long


@settings(max_examples=200, deadline=None)
@given(first=_TEXTS, second=_TEXTS, max_length=st.integers(4, 14))
def test_cut_pairs_give_the_ids_of_whole_pairs(first, second, max_length):
    """Pairs are truncated as the library truncates them, although only their beginnings are read."""
    tokenizer = build_tokenizer("bert", "bert")
    library = Tokenizer.from_str(tokenizer.to_str())
    library.enable_truncation(max_length)
    expected = library.encode(first, second)
    encoder = build_encoder(tokenizer, "truncate")
    encoder.max_length = max_length
    tokens = encoder.encode(pa.array([first]), pa.array([second]))
    assert tokens.flat_ids.tolist() == expected.ids
    assert tokens.second_starts.tolist() == [expected.type_ids.index(1)]
    assert tokens.truncated.tolist() == [len(tokenizer.encode(first, second)) > max_length]


def test_the_rules_do_cut():
    """The components above are ones that allow cuts, so that the properties are about something."""
    for pre_tokenizer in PRE_TOKENIZERS:
        assert find_cut_rule(json.loads(build_tokenizer("nfc", pre_tokenizer).to_str())).is_resumable
        assert not find_cut_rule(json.loads(build_tokenizer("strip", pre_tokenizer).to_str())).is_resumable
        assert find_cut_rule(json.loads(build_tokenizer("strip", pre_tokenizer).to_str())).separators
