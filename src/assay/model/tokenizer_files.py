"""What a folder's tokenizer files say: their identity, ids without an embedding, words that disagree.

`tokenizer.json` is what Assay tokenizes with. transformers also reads `tokenizer_config.json`, and changes what
it made of the former by it; where the two disagree the model may have been trained on other ids. Found here by
reading alone; the parity gate compares ids themselves.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from assay.model.checkpoint import JsonObject, brief, canonical_digest, read_json, read_optional_json

SAVE_TOKENIZER = "save a fast tokenizer with tokenizer.save_pretrained()"
"""The way out where `tokenizer.json` is missing or is not a tokenizer."""
_NORMALIZER_FIELDS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Names in `tokenizer_config.json` of what a BertNormalizer has under other names."""
_TOKEN_FLAGS = ("lstrip", "rstrip", "normalized", "single_word")
_TEMPLATES = frozenset({"BertProcessing", "RobertaProcessing", "TemplateProcessing"})


def read_tokenizer(folder: str | os.PathLike[str]) -> JsonObject:
    """The `tokenizer.json` of a folder; `BundleError` where there is none."""
    return read_json(Path(folder) / "tokenizer.json", missing=SAVE_TOKENIZER)


def tokenizer_fingerprint(tokenizer: JsonObject) -> str:
    """Hash of what a `tokenizer.json` does to text, 32 hex digits.

    Truncation and padding are left out: both are set by whoever encodes.
    """
    return canonical_digest({k: v for k, v in tokenizer.items() if k not in {"truncation", "padding"}})


def tokenizer_notes(folder: Path, tokenizer: JsonObject, vocab_size: int | None) -> tuple[str, ...]:
    """Things the user should hear of the tokenizer of a folder, a sentence each.

    `vocab_size` is the number of rows in the model's embedding, where it is known.
    """
    file = folder / "tokenizer.json"
    config = read_optional_json(folder / "tokenizer_config.json")
    notes = []
    missing = sorted(
        (number, token) for token, number in _ids(tokenizer) if number >= (vocab_size or number + 1)
    )
    if missing:
        number, token = missing[0]
        what = f"{len(missing)} tokens have" if len(missing) > 1 else "one token has"
        notes.append(
            f"{file}: {what} no row in the embedding of {vocab_size:,} ({token!r} is {number}); a text that holds"
            " one gets the error id_out_of_range; call resize_token_embeddings() and train, or remove the token"
        )
    if differences := list(_disagreements(config, tokenizer)):
        notes.append(
            f"{folder / 'tokenizer_config.json'}: {'; '.join(differences)}; Assay follows tokenizer.json, transformers"
            " may not; save the tokenizer that the model was trained with again, by save_pretrained()"
        )
    return tuple(notes)


def _ids(tokenizer: JsonObject) -> Iterator[tuple[str, int]]:
    """Each token and its id, those of a list by their place."""
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        yield from ((str(token), number) for token, number in vocab.items() if isinstance(number, int))
    elif isinstance(vocab, list):
        known = {number for _, number in _added(tokenizer)}
        for number, entry in enumerate(vocab):
            if number not in known:
                yield str(entry[0] if isinstance(entry, list) and entry else entry), number
    names = {str(token) for token in vocab} if isinstance(vocab, dict) else set()
    yield from ((token, number) for token, number in _added(tokenizer) if token not in names)


def _added(tokenizer: JsonObject) -> list[tuple[str, int]]:
    return [(str(token.get("content")), number) for number, token in _added_by_id(tokenizer).items()]


def _added_by_id(tokenizer: JsonObject) -> dict[int, JsonObject]:
    found = tokenizer.get("added_tokens")
    tokens = [token for token in found if isinstance(token, dict)] if isinstance(found, list) else []
    return {token["id"]: token for token in tokens if isinstance(token.get("id"), int)}


def _disagreements(config: JsonObject, tokenizer: JsonObject) -> Iterator[str]:
    """What the config says otherwise than the tokenizer, a clause each."""
    for kind in _of_type(tokenizer.get("normalizer"), {"BertNormalizer"}):
        for name, field in _NORMALIZER_FIELDS.items():
            if name in config and config[name] != kind.get(field):
                yield f"{name} is {config[name]!r} and {field} in tokenizer.json {kind.get(field)!r}"
    if isinstance(prefix := config.get("add_prefix_space"), bool):
        for kind in _of_type(tokenizer.get("pre_tokenizer"), {"ByteLevel"}):
            if kind.get("add_prefix_space") is not prefix:
                yield f"add_prefix_space is {prefix} and in tokenizer.json {kind.get('add_prefix_space')}"
    yield from _other_added_tokens(config.get("added_tokens_decoder"), tokenizer)
    special = _special_tokens(tokenizer.get("post_processor"))
    for name in ("cls_token", "sep_token"):
        stated = config.get(name)
        token = stated.get("content") if isinstance(stated, dict) else stated
        if isinstance(token, str) and special and token not in special:
            yield f"{name} is {token!r} and tokenizer.json puts {brief(sorted(special))} around a text"
    model = tokenizer.get("model")
    unknown = model.get("unk_token") if isinstance(model, dict) else None
    stated = config.get("unk_token")
    token = stated.get("content") if isinstance(stated, dict) else stated
    if isinstance(token, str) and isinstance(unknown, str) and token != unknown:
        yield f"unk_token is {token!r} and in tokenizer.json {unknown!r}"


def _other_added_tokens(decoder: object, tokenizer: JsonObject) -> Iterator[str]:
    by_id = _added_by_id(tokenizer)
    in_vocabulary = {number: token for token, number in _ids(tokenizer)}
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if not isinstance(token, dict) or not str(number).isdecimal():
            continue
        held = by_id.get(int(number))
        content = str(token.get("content"))
        if held is None or held.get("content") != content:
            other = in_vocabulary.get(int(number))
            yield f"token {number} is {content!r} and in tokenizer.json {'not added' if other is None else repr(other)}"
        elif flags := [flag for flag in _TOKEN_FLAGS if token.get(flag, held.get(flag)) != held.get(flag)]:
            yield f"{', '.join(flags)} of {content!r} differ from tokenizer.json"


def _of_type(component: object, kinds: set[str]) -> Iterator[JsonObject]:
    """A component of these kinds, or those within a sequence."""
    if not isinstance(component, dict):
        return
    if component.get("type") in kinds:
        yield component
    for name in ("normalizers", "pretokenizers", "processors"):
        for each in component.get(name) or ():
            yield from _of_type(each, kinds)


def _special_tokens(post_processor: object) -> set[str]:
    """The tokens that are put around texts; empty where no template says."""
    found: set[str] = set()
    for kind in _of_type(post_processor, set(_TEMPLATES)):
        if isinstance(tokens := kind.get("special_tokens"), dict):
            found |= {str(token) for token in tokens}
        found |= {
            str(pair[0]) for name in ("cls", "sep") if isinstance(pair := kind.get(name), list) and pair
        }
    return found
