"""What the tokenizer's files say, and where they disagree, found without a tokenizer library."""

import json
import re

import pytest
from support.bundles import write_bundle
from support.models import change_json

from assay.bundle.load import load_bundle
from assay.errors import BundleError
from assay.model.tokenizer_files import read_tokenizer, tokenizer_notes
from assay.tokenize.encode import Encoder
from assay.tokenize.tokens import ID_OUT_OF_RANGE

NUM_TOKENS = 107
"""Of the small bundle's tokenizer."""
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


@pytest.fixture
def folder(tmp_path):
    """A small bundle."""
    return write_bundle(tmp_path / "b")


def add_token(folder, number, content):
    """Give tokenizer.json one more token."""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["added_tokens"].append({"id": number, "content": content, **PLAIN})
    file.write_text(json.dumps(tokenizer))


def test_files_that_agree_get_no_note(folder):
    """Nothing is said of a good tokenizer."""
    assert load_bundle(folder).notes == ()
    change_json(folder / "tokenizer_config.json", do_lower_case=True, strip_accents=None, unk_token="[UNK]")
    assert load_bundle(folder).notes == ()


@pytest.mark.parametrize("number", [NUM_TOKENS, NUM_TOKENS + 400])
def test_a_token_without_an_embedding_is_noted_and_its_rows_get_a_code(folder, number):
    """The folder loads with a note; a text that holds the token gets an error code, the others their ids."""
    add_token(folder, number, "<user>")
    (note,) = load_bundle(folder).notes
    assert f"one token has no row in the embedding of {NUM_TOKENS} ('<user>' is {number})" in note
    encoder = Encoder.from_bundle(folder, max_length=16, on_long="truncate")
    tokens = encoder.encode_texts(["document of 3", "hello <user> there", "document"])
    assert tokens.errors == {1: ID_OUT_OF_RANGE}
    assert tokens.num_tokens.tolist() == [5, 0, 3]
    pairs = encoder.encode_texts(["a", "b"], ["document", "<user>"])
    assert pairs.errors == {1: ID_OUT_OF_RANGE}


def test_a_vocabulary_beyond_the_embedding_is_noted(folder):
    """Not only added tokens: a config of fewer rows than the vocabulary has."""
    change_json(folder / "config.json", vocab_size=100)
    (note,) = load_bundle(folder).notes
    assert "7 tokens have no row in the embedding of 100 ('93' is 100)" in note


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"do_lower_case": False}, "do_lower_case is False and lowercase in tokenizer.json True"),
        ({"strip_accents": False}, "strip_accents is False"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is False"),
        (
            {"added_tokens_decoder": {"6": {"content": "World"}}},
            "token 6 is 'World' and in tokenizer.json 'of'",
        ),
        ({"added_tokens_decoder": {"900": {"content": "World"}}}, "token 900 is 'World'.*not added"),
        ({"cls_token": "<s>"}, "cls_token is '<s>'"),
        ({"sep_token": {"content": "</s>"}}, "sep_token is '</s>'"),
        ({"unk_token": "<unk>"}, "unk_token is '<unk>'"),
    ],
)
def test_a_config_that_says_otherwise_is_noted(folder, changes, shown):
    """What tokenizer_config.json says against tokenizer.json is named, and which of them Assay follows."""
    change_json(folder / "tokenizer_config.json", **changes)
    (note,) = load_bundle(folder).notes
    assert re.search(shown, note)
    assert "Assay follows tokenizer.json" in note


def test_flags_of_an_added_token_and_the_space_before_a_text(folder):
    """Flags that differ and a leading space are noted too."""
    add_token(folder, 6, "of")
    change_json(
        folder / "tokenizer_config.json", added_tokens_decoder={"6": {"content": "of", "lstrip": True}}
    )
    (note,) = load_bundle(folder).notes
    assert "lstrip of 'of' differ" in note
    change_json(folder / "tokenizer_config.json", added_tokens_decoder=None, add_prefix_space=True)
    change_json(folder / "tokenizer.json", pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False})
    (note,) = tokenizer_notes(folder, read_tokenizer(folder), None)
    assert "add_prefix_space is True and in tokenizer.json False" in note


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "not JSON .*damaged"),
        ('{"a": ', "not JSON .*damaged"),
        ("[]", "a JSON array; an object is needed"),
        ("null", "a JSON null; an object is needed"),
        ("[" * 100_000, "not JSON .nested too deep"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer; fetch"),
        ("FOLDER", "Is a directory; a bundle's files must be readable"),
        ("LOOP", "symbolic links; a bundle's files must be readable"),
    ],
    ids=["empty", "cut", "array", "null", "deep", "pointer", "folder", "loop"],
)
def test_a_damaged_file_is_named(tmp_path, name, content, told):
    """One line says which file, what is wrong with it and what to do."""
    folder = write_bundle(tmp_path / "bundle")
    file = folder / name
    file.unlink()
    if content == "FOLDER":
        file.mkdir()
    elif content == "LOOP":
        file.symlink_to(file.name)
    else:
        file.write_text(content)
    if (name, content) == ("config.json", "LOOP"):
        told = "no config.json|symbolic links"
    with pytest.raises(BundleError, match=told) as error:
        load_bundle(folder)
    assert "\n" not in str(error.value)
