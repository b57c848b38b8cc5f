"""`Encoder` gives what `transformers` gives, under every policy."""

import json
import shutil
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from assay.errors import BundleError, RefusedError, UsageError
from assay.model.tokenizer_files import read_tokenizer, tokenizer_fingerprint
from assay.tokenize import content as content_module
from assay.tokenize import encode as encode_module
from assay.tokenize.encode import Encoder
from assay.tokenize.tokens import TOO_LONG

FOLDERS = ["wordpiece_folder", "bpe_folder", "unigram_folder"]
TEXTS = [
    "",
    " ",
    " \t\n\r ",
    "a",
    "Hello, world!  Two  spaces,\n\n  and\ttabs.",
    "emoji 🙂 👩‍👩‍👧‍👦 🚀 flags 🇩🇪",
    "مرحبا بالعالم، كيف الحال؟ שלום עולם",
    "nul\x00inside \x00 and \x07 bell",
    "combining e\u0301 n\u0303 \u0301alone Zalgo Z̸̡̛a̶̧l̵g̷o̸",
    "数据工程师想要一个分数列。日本語のテキスト、한국어 텍스트",
    "zero\u200bwidth\u200djoin\ufeffbom non\u00a0break line\u2028sep",
    "special [CLS] tokens </s> in <mask> text [MASK].",
    "supercalifragilisticexpialidocious" * 8,
    "the quick brown fox jumps over the lazy dog " * 40,
    "fi ﬁ ½ Å Ω ﷺ İstanbul ΣΊΣΥΦΟΣ ẞ",
    "\U0010ffff\ufffd\ue000 private",
]


@pytest.fixture(params=FOLDERS)
def folder(request):
    """Each tokenizer folder in turn."""
    return request.getfixturevalue(request.param)


@cache
def load_reference(folder):
    """The tokenizer as `transformers` loads it."""
    return AutoTokenizer.from_pretrained(folder)


def column(texts):
    """An Arrow column as `data` hands it over."""
    return pa.array(texts, type=pa.large_string())


def rows_of(tokens):
    """The ids of each row as lists."""
    bounds = tokens.offsets.tolist()
    return [tokens.flat_ids[a:b].tolist() for a, b in pairwise(bounds)]


@pytest.mark.parametrize("max_length", [3, 7, 32, 512])
def test_truncate_equals_transformers(folder, max_length):
    """Single texts under `truncate` give the ids that AutoTokenizer gives with truncation."""
    tokens = Encoder.from_bundle(folder, max_length=max_length, on_long="truncate").encode(column(TEXTS))
    reference = load_reference(folder)
    whole = reference(TEXTS)["input_ids"]
    assert rows_of(tokens) == reference(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert tokens.truncated.tolist() == [len(ids) > max_length for ids in whole]
    assert tokens.num_tokens.tolist() == [min(len(ids), max_length) for ids in whole]
    assert tokens.second_starts is None
    assert tokens.errors == {}


@pytest.mark.parametrize("max_length", [5, 8, 9, 33, 512])
def test_pairs_equal_transformers_longest_first(folder, max_length):
    """Pairs of all length relations give transformers' ids and token types, longest first."""
    # The library builds every overflowing piece of a pair, so the longest text is kept short here.
    texts = [*TEXTS[:5], *TEXTS[6:12], "the quick brown fox jumps over the lazy dog " * 6]
    first = [text for text in texts for _ in texts]
    second = [text for _ in texts for text in texts]
    tokens = Encoder.from_bundle(folder, max_length=max_length, on_long="truncate").encode(
        column(first), column(second)
    )
    reference = load_reference(folder)
    expected = reference(
        first, second, truncation="longest_first", max_length=max_length, return_token_type_ids=True
    )
    assert rows_of(tokens) == expected["input_ids"]
    whole = reference(first, second)["input_ids"]
    assert tokens.truncated.tolist() == [len(ids) > max_length for ids in whole]
    starts = np.zeros(len(first), np.int32) if tokens.second_starts is None else tokens.second_starts
    types = [
        [int(start != 0 and place >= start) for place in range(num_tokens)]
        for start, num_tokens in zip(starts.tolist(), tokens.num_tokens.tolist(), strict=True)
    ]
    assert types == expected["token_type_ids"]


@pytest.mark.parametrize("max_length", [3, 7, 8, 33, 512])
def test_truncation_on_the_left_equals_transformers(folder, max_length):
    """What `truncating("left")` cuts is what transformers cuts with truncation_side left, singles and pairs."""
    encoder = Encoder.from_bundle(folder, max_length=max_length, on_long="error")
    cutting = encoder.truncating("left")
    reference = AutoTokenizer.from_pretrained(folder, truncation_side="left")
    long = [*TEXTS, " ".join(str(number) for number in range(20_000))]
    tokens = cutting.encode(column(long))
    assert rows_of(tokens) == reference(long, truncation=True, max_length=max_length)["input_ids"]
    assert tokens.truncated.tolist() == [len(ids) > max_length for ids in reference(long)["input_ids"]]
    assert tokens.errors == {}
    assert encoder.encode(column(long)).errors, "the encoder itself still refuses"
    if max_length < 7:
        return
    texts = [*TEXTS[:5], TEXTS[6], *TEXTS[10:13], "the quick brown fox jumps over the lazy dog " * 6]
    first, second = [one for one in texts for _ in texts], [one for _ in texts for one in texts]
    pairs = cutting.encode(column(first), column(second))
    expected = reference(
        first, second, truncation="longest_first", max_length=max_length, return_token_type_ids=True
    )
    assert rows_of(pairs) == expected["input_ids"]
    starts = [0] * len(first) if pairs.second_starts is None else pairs.second_starts.tolist()
    assert starts == [types.index(1) if 1 in types else 0 for types in expected["token_type_ids"]]


@pytest.mark.parametrize("num_first", range(12))
def test_longest_first_rule_equals_the_library(wordpiece_folder, num_first):
    """Every pair of small lengths and every limit is cut as the library cuts it."""
    library = Tokenizer.from_file(str(wordpiece_folder / "tokenizer.json"))
    library.no_padding()
    for num_second in range(12):
        for limit in range(1, 14):
            library.enable_truncation(limit + 3)
            encoding = library.encode("a " * num_first, "b " * num_second)
            kept = tuple(encoding.sequence_ids.count(number) for number in (0, 1))
            assert encode_module._longest_first(num_first, num_second, limit) == kept


def test_head_tail_keeps_first_and_last_tokens(folder):
    """`head-tail` keeps 128 of 510 content tokens from the beginning and 382 from the end."""
    texts = [" ".join(str(number) for number in range(count)) for count in (3, 500, 5000, 60_000)]
    tokens = Encoder.from_bundle(folder, max_length=512, on_long="head-tail").encode(column(texts))
    reference = load_reference(folder)
    for row, whole, is_cut in zip(
        rows_of(tokens), reference(texts)["input_ids"], tokens.truncated.tolist(), strict=True
    ):
        assert is_cut == (len(whole) > 512)
        assert row == (whole[:129] + whole[-383:] if is_cut else whole)
    assert tokens.truncated.tolist()[-2:] == [True, True]


def test_error_policy_gives_an_empty_row_and_a_code(folder):
    """`error` turns a long document into an empty row with the code too_long, and leaves the others."""
    texts = ["short", "word " * 1000, None, "brief"]
    tokens = Encoder.from_bundle(folder, max_length=16, on_long="error").encode(column(texts))
    assert tokens.errors == {1: TOO_LONG}
    assert (tokens.num_tokens > 0).tolist() == [True, False, False, True]
    assert not tokens.truncated.any()
    pairs = Encoder.from_bundle(folder, max_length=16, on_long="error").encode(
        column(texts), column(["b"] * 4)
    )
    assert pairs.errors == {1: TOO_LONG}


@pytest.mark.parametrize("on_long", ["window-mean", "window-max"])
def test_window_policies_keep_the_whole_document(folder, on_long):
    """Under a window policy a row is the whole document, and nothing counts as truncated."""
    tokens = Encoder.from_bundle(folder, max_length=8, on_long=on_long, stride=2).encode(column(TEXTS))
    assert rows_of(tokens) == load_reference(folder)(TEXTS)["input_ids"]
    assert not tokens.truncated.any()


def test_a_tokenizer_that_was_replaced_is_noticed(bpe_folder, wordpiece_folder, tmp_path):
    """Whoever has read one tokenizer does not get the ids of another that has taken its place."""
    read = tokenizer_fingerprint(read_tokenizer(bpe_folder))
    shutil.copy(bpe_folder / "tokenizer.json", tmp_path)
    assert Encoder.from_bundle(tmp_path, max_length=8, on_long="truncate", fingerprint=read)
    shutil.copy(wordpiece_folder / "tokenizer.json", tmp_path)
    with pytest.raises(RefusedError, match=r"tokenizer\.json changed while the model was being loaded"):
        Encoder.from_bundle(tmp_path, max_length=8, on_long="truncate", fingerprint=read)


@pytest.mark.parametrize("model", [models.WordPiece(), models.BPE(), models.WordLevel()])
def test_an_empty_vocabulary_is_refused_at_load(model, tmp_path):
    """In one sentence, before any text fails of it or comes out without a token."""
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BundleError, match=r"tokenizer\.json: .*save a fast tokenizer"):
        Encoder.from_bundle(tmp_path, max_length=8, on_long="truncate")


def test_null_texts_are_empty_rows(folder):
    """A null text, or a null half of a pair, is a row of length 0 without an error code."""
    encoder = Encoder.from_bundle(folder, max_length=16, on_long="truncate")
    singles = encoder.encode(column(["a", None, ""]))
    assert (singles.num_tokens == 0).tolist() == [False, True, False]
    pairs = encoder.encode(column(["a", None, "a", None]), column(["b", "b", None, None]))
    assert (pairs.num_tokens == 0).tolist() == [False, True, True, True]
    assert singles.errors == pairs.errors == {}


def test_no_rows_give_no_tokens(folder):
    """An empty column, and one of nulls only, keep the id type and the row count."""
    encoder = Encoder.from_bundle(folder, max_length=16, on_long="truncate")
    for texts in ([], [None, None]):
        tokens = encoder.encode(column(texts))
        assert tokens.flat_ids.dtype == encoder.id_type
        assert tokens.offsets.tolist() == [0] * (len(texts) + 1)
        assert encoder.encode(column(texts), column(texts)).num_tokens.tolist() == [0] * len(texts)


def test_string_columns_and_slices_are_read(wordpiece_folder):
    """`string`, `string_view`, sliced and chunked columns give the ids of the same texts."""
    encoder = Encoder.from_bundle(wordpiece_folder, max_length=64, on_long="truncate")
    expected = rows_of(encoder.encode(column(TEXTS[3:9])))
    for kind in (pa.string(), pa.string_view(), pa.large_string()):
        array = pa.array(TEXTS, type=kind)
        assert rows_of(encoder.encode(array.slice(3, 6))) == expected
        assert rows_of(encoder.encode(pa.chunked_array([array.slice(3, 2), array.slice(5, 4)]))) == expected


def test_ids_take_the_smallest_type(wordpiece_folder, bpe_folder, unigram_folder):
    """Vocabularies up to 65,535 give uint16, larger ones (added tokens included) int32."""
    types = [
        Encoder.from_bundle(folder, max_length=16, on_long="truncate").encode(column(["a"])).flat_ids.dtype
        for folder in (wordpiece_folder, bpe_folder, unigram_folder)
    ]
    assert types == [np.dtype(np.uint16), np.dtype(np.uint16), np.dtype(np.int32)]


def test_added_token_beyond_the_vocabulary_is_kept(unigram_folder):
    """Ids of added tokens above 65,535 come out whole."""
    encoder = Encoder.from_bundle(unigram_folder, max_length=16, on_long="truncate")
    reference = load_reference(unigram_folder)
    row = rows_of(encoder.encode(column(["a <extra> b"])))[0]
    assert row == reference("a <extra> b")["input_ids"]
    assert max(row) > 65_535


@pytest.mark.parametrize("on_long", ["truncate", "head-tail", "window-max"])
def test_megabyte_word(folder, on_long):
    """One word of a megabyte, and one between short words, is tokenized exactly."""
    texts = ["x" * 1_000_000, "before " * 5 + "ab" * 500_000 + " after it"]
    tokens = Encoder.from_bundle(folder, max_length=64, on_long=on_long).encode(column(texts))
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    num_head = 1 + round(62 * 128 / 510)
    for row, text in zip(rows_of(tokens), texts, strict=True):
        whole = library.encode(text).ids
        if on_long == "truncate" and len(whole) > 64:
            whole = [*whole[:63], whole[-1]]
        elif on_long == "head-tail" and len(whole) > 64:
            whole = [*whole[:num_head], *whole[num_head - 64 :]]
        assert row == whole


def test_long_document_is_not_tokenized_whole(folder, monkeypatch):
    """Truncating 10 MB hands the library a few thousand characters."""
    encoder = Encoder.from_bundle(folder, max_length=512, on_long="truncate")
    seen = []
    reader = encoder._content
    original = reader._library_ids
    monkeypatch.setattr(reader, "_library_ids", lambda texts: seen.extend(map(len, texts)) or original(texts))
    tokens = encoder.encode(column(["the quick brown fox jumps over it " * 300_000]))
    assert tokens.num_tokens.tolist() == [512]
    assert tokens.truncated.tolist() == [True]
    assert sum(seen) < 50_000


def test_batching_does_not_change_ids(folder, monkeypatch):
    """The ids of a text do not depend on what is encoded with it, nor on the size of a batch or a piece."""
    texts = TEXTS * 3
    encoder = Encoder.from_bundle(folder, max_length=16, on_long="window-mean")
    expected = rows_of(encoder.encode(column(texts)))
    monkeypatch.setattr(content_module, "_BATCH_TEXTS", 2)
    monkeypatch.setattr(content_module, "_PIECE_CHARS", 5)
    assert rows_of(encoder.encode(column(texts))) == expected
    assert [rows_of(encoder.encode(column([text])))[0] for text in texts] == expected


def test_fingerprint_ignores_truncation_and_padding_only(wordpiece_folder, tmp_path):
    """The fingerprint changes with the vocabulary, not with the baked-in truncation."""
    file = tmp_path / "tokenizer.json"
    description = json.loads((wordpiece_folder / "tokenizer.json").read_bytes())
    original = Encoder.from_bundle(wordpiece_folder, max_length=16, on_long="truncate").fingerprint
    file.write_text(json.dumps(description | {"truncation": None, "padding": None}, indent=3))
    encoder = Encoder.from_bundle(tmp_path, max_length=99, on_long="error")
    assert encoder.fingerprint == original == tokenizer_fingerprint(read_tokenizer(tmp_path))
    assert len(original) == 32
    description["model"]["vocab"]["zzzz"] = len(description["model"]["vocab"])
    file.write_text(json.dumps(description))
    assert Encoder.from_bundle(tmp_path, max_length=16, on_long="truncate").fingerprint != original


def test_folder_without_tokenizer_is_refused(tmp_path):
    """No tokenizer.json, and a damaged one, are each a BundleError of one line with the way out."""
    for content in (None, "{", "[]", '{"version": "1.0"}', '{"model": {"type": "Nope"}}'):
        if content is not None:
            (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(BundleError) as caught:
            Encoder.from_bundle(tmp_path, max_length=16, on_long="truncate")
        assert "\n" not in str(caught.value)
        assert "tokenizer.json" in str(caught.value)
    shutil.rmtree(tmp_path)
    with pytest.raises(BundleError, match="save a fast tokenizer"):
        Encoder.from_bundle(tmp_path, max_length=16, on_long="truncate")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_length": 2, "on_long": "truncate"}, "use at least 3"),
        ({"max_length": 10, "on_long": "window-max", "stride": 8}, "use 0 to 7"),
        ({"max_length": 10, "on_long": "window-max", "stride": -1}, "use 0 to 7"),
        (
            {"max_length": 10, "on_long": "truncate", "stride": 2},
            "stride 2; truncate cuts no windows .*; leave it out, or use on_long window-mean or window-max",
        ),
        ({"max_length": 10, "on_long": "shorten"}, "use one of truncate"),
    ],
)
def test_impossible_settings_are_refused(wordpiece_folder, settings, match):
    """Lengths and strides that leave no room, and unknown policies, are a UsageError with the way out."""
    with pytest.raises(UsageError, match=match):
        Encoder.from_bundle(wordpiece_folder, **settings)


def test_pairs_refuse_policies_for_single_texts(wordpiece_folder):
    """Pairs under head-tail or windows, or without room for their special tokens, are a UsageError."""
    for on_long in ("head-tail", "window-mean", "window-max"):
        encoder = Encoder.from_bundle(wordpiece_folder, max_length=16, on_long=on_long)
        with pytest.raises(UsageError, match="single texts"):
            encoder.encode(column(["a"]), column(["b"]))
    with pytest.raises(UsageError, match="use at least 4"):
        Encoder.from_bundle(wordpiece_folder, max_length=3, on_long="truncate").encode(
            column(["a"]), column(["b"])
        )


def _bare_tokenizer(folder, post_processor=None):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "[S]": 3}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    tokenizer.save(str(folder / "tokenizer.json"))


def test_tokenizer_without_special_tokens(tmp_path):
    """A tokenizer that adds nothing gives bare content, for single texts and pairs."""
    _bare_tokenizer(tmp_path)
    encoder = Encoder.from_bundle(tmp_path, max_length=3, on_long="truncate")
    assert rows_of(encoder.encode(column(["a b A b", "", "b"]))) == [[1, 2, 1], [], [2]]
    assert rows_of(encoder.encode(column(["a a a", ""]), column(["b b b", "b"]))) == [[1, 2, 2], [2]]


def test_tokenizer_without_a_template_is_asked_for_everything(tmp_path):
    """Special tokens that follow no template (here: the text twice) come from the library itself."""
    template = processors.TemplateProcessing(
        single="$A [S] $A", pair="$A:0 [S]:0 $B:1 [S]:1 $A:1", special_tokens=[("[S]", 3)]
    )
    _bare_tokenizer(tmp_path, template)
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts, pairs = ["a b", "b", "", "a b a b a b"], ["b", "", "a", "b b b b"]
    for max_length in (6, 20):
        library.enable_truncation(max_length)
        encoder = Encoder.from_bundle(tmp_path, max_length=max_length, on_long="truncate")
        assert encoder.special_tokens is None
        assert rows_of(encoder.encode(column(texts))) == [library.encode(text).ids for text in texts]
        tokens = encoder.encode(column(texts), column(pairs))
        expected = [library.encode(*pair) for pair in zip(texts, pairs, strict=True)]
        assert rows_of(tokens) == [encoding.ids for encoding in expected]
    errors = Encoder.from_bundle(tmp_path, max_length=6, on_long="error").encode(column(texts))
    assert errors.errors == {3: TOO_LONG}
    with pytest.raises(UsageError, match="no template"):
        Encoder.from_bundle(tmp_path, max_length=20, on_long="head-tail")
