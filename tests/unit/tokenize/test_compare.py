"""Assay's ids beside those of AutoTokenizer."""

import pytest
from support.models import change_json, write_model

from assay.tokenize.compare import compare_probes, compare_tokens
from assay.tokenize.encode import Encoder

TEXTS = ["document of 3 " * 20, "", "of", "Document"]
PAIRS = ["", "document", "3 " * 40, "of 7"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small bundle."""
    return write_model(tmp_path_factory.mktemp("compare") / "b")


@pytest.mark.parametrize("max_length", [9, 16, 64])
def test_texts_and_pairs_get_the_same_ids(folder, max_length):
    """Cut or whole, single or in pairs, one of them empty: no false alarm."""
    encoder = Encoder.from_bundle(folder, max_length=max_length, on_long="truncate")
    for pairs in (None, PAIRS):
        found = compare_tokens(folder, encoder, TEXTS, pairs)
        assert (found.num_texts, found.difference, found.reason) == (4, None, None)
    assert compare_probes(folder, encoder).difference is None


def test_a_tokenizer_that_transformers_cannot_load_is_no_difference(folder, tmp_path):
    """What cannot be compared is said, not refused."""
    other = write_model(tmp_path / "b")
    encoder = Encoder.from_bundle(other, max_length=16, on_long="truncate")
    change_json(other / "tokenizer_config.json", tokenizer_class="NoSuchTokenizer", unk_token=["[UNK]"])
    found = compare_tokens(other, encoder, TEXTS)
    assert found.difference is None
    assert str(found).startswith("not compared: transformers cannot load the tokenizer (")
