"""A model's folder, read in one place: which files are its weights, and what the others say.

`read_checkpoint` alone decides what of a folder counts, so that fingerprint, self test, engine, reference and
training speak of the same model. The order is that of transformers: `model.safetensors`, else the shards that
`model.safetensors.index.json` names, else `pytorch_model.bin`, else the shards of its index. Other weights in
the folder are not read, and a note names them.

Reads headers, not weights, and imports no torch: `pretrained` makes a model of a checkpoint.
"""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, cast

from assay.errors import BundleError, RefusedError
from assay.model.left_out import heads_left_out, layers_left_out

JsonObject = Mapping[str, object]

_SAFETENSORS = "model.safetensors"
_IN_ORDER = (_SAFETENSORS, f"{_SAFETENSORS}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where weights are looked for; transformers' order."""
_OTHER_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json")
"""What weights beside those that are read look like."""
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle"})
_LFS_POINTER = b"version https://git-lfs"
_JSON_KINDS = {list: "array", str: "string", bool: "truth value", type(None): "null"}
_NO_CONFIG = "save a transformers model with save_pretrained()"
NO_LIMIT = 1_000_000
"""Stands for no limit; a tokenizer's `model_max_length` above it is the library's way to say so."""
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_encoder_position_embeddings",
    "max_seq_len",
)
"""Names of the number of positions, by family."""
# Position ids start after the padding id in these, so `pad_token_id + 1` positions are never used.
_POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
        "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A folder with a config and whole weights, neither of which asks for code to be run."""

    path: Path
    """The folder, absolute."""
    config: JsonObject
    """`config.json` as it stands."""
    weights: tuple[Path, ...]
    """The files that hold the weights, sorted by name."""
    index: Path | None
    """The file that lists them, where there are shards."""
    max_length: int
    """Most tokens, special tokens included, that the model can take; a million where nothing says."""
    vocab_size: int | None
    """Rows of the embedding: token ids are below it; `None` where the config does not say."""
    notes: tuple[str, ...]
    """Things the user should hear of, a sentence each."""
    state: str
    """Hash of what the system keeps of its files and of the tokenizer's: changes whenever one of them does."""

    @property
    def is_safetensors(self) -> bool:
        """Whether the weights are safetensors; else they are tensors that torch has pickled."""
        return self.weights[0].suffix == ".safetensors"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the model is made of, its configuration first."""
        beside = [self.path / "tokenizer_config.json"]  # it may state a length
        index = [] if self.index is None else [self.index]
        return (
            self.path / "config.json",
            *(file for file in beside if file.is_file()),
            *index,
            *self.weights,
        )


def read_config(path: str | os.PathLike[str]) -> tuple[Path, JsonObject]:
    """The absolute path of a model's folder, and its config; `BundleError` for a folder that holds no model."""
    folder = _folder(path)
    return folder, read_json(folder / "config.json", missing=_NO_CONFIG)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in a folder, after every check that needs no weights in memory.

    Raises `BundleError` for a folder that cannot be used (no config, no weights, some of them cut short) or
    must not be (pickles, remote code).
    """
    folder, config = read_config(path)
    _refuse_remote_code(folder, config)
    _refuse_elsewhere(folder, config)
    weights, index = _weights(folder)
    notes = _other_weights(folder, weights, index)
    if weights[0].suffix == ".safetensors":
        tensors = tuple(itertools.chain.from_iterable(map(_check_safetensors, weights)))
        notes += tuple(
            f"{folder / 'config.json'}: {clause}, as by transformers; correct it, or save the model again without them"
            for clause in layers_left_out(config, tensors)
        )
        if not is_headless(config) and (heads := heads_left_out(tensors)):
            notes += (f"{folder}: the weights also hold {', '.join(heads)}, which a classifier does not use",)
    else:
        shown = index or weights[0]
        notes = (
            f"{shown}: a pickle, of which tensors alone are read; convert it with save_pretrained()",
            *notes,
        )
    return Checkpoint(
        path=folder,
        config=config,
        weights=weights,
        index=index,
        max_length=_max_length(folder, config),
        vocab_size=vocab_size_of(config),
        notes=notes,
        state=_state(folder, config, weights, index),
    )


def refuse_changed(checkpoint: Checkpoint) -> None:
    """Raise `RefusedError` where the folder holds something else now than when the checkpoint was read.

    For whoever reads the files a second time: once to hash or to check them, once to compute with them.
    """
    if read_checkpoint(checkpoint.path).state != checkpoint.state:
        msg = f"{checkpoint.path} changed while it was being loaded; wait until it is whole, then try again"
        raise RefusedError(msg)


def read_json(file: Path, *, missing: str) -> JsonObject:
    """The JSON object in a file; `BundleError` where there is none, ending in `missing`, the way out."""
    try:
        with _read_errors(file):
            raw = file.read_bytes()
        content = json.loads(raw)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"{file.parent}: no {file.name}; a bundle needs one; {missing}"
        raise BundleError(msg) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        what = f"not JSON ({reason}); the file is damaged"
        if raw.startswith(_LFS_POINTER):
            what = "a Git LFS pointer; fetch what it points to (git lfs pull)"
        msg = f"{file}: {what}; copy or save the bundle again"
        raise BundleError(msg) from None
    if not isinstance(content, dict):
        kind = _JSON_KINDS.get(type(content), "number")
        msg = f"{file}: a JSON {kind}; an object is needed; copy or save the bundle again"
        raise BundleError(msg)
    return cast("JsonObject", content)


def read_optional_json(file: Path) -> JsonObject:
    """The JSON object in a file, empty where there is no such file; `BundleError` for a damaged one."""
    return read_json(file, missing="") if file.exists() else {}


def hash_file(file: Path) -> str:
    """SHA-256 of a file's content; `BundleError` where it cannot be read."""
    with _read_errors(file), file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def canonical_digest(value: object) -> str:
    """Hash of a JSON value whatever the order of its keys, 32 hex digits."""
    content = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def brief(value: object, limit: int = 80) -> str:
    """A value for an error message, cut to `limit` characters."""
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


# ---------------------------------------------------------------- which files count


def _folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path).absolute()
    if not folder.exists():
        msg = (
            f"{path}: no such folder; a model is a local folder with config.json, nothing is fetched from a hub; "
            "check the path, or save the model there first"
        )
        raise BundleError(msg)
    if not folder.is_dir():
        msg = f"{path}: a file; a bundle is a folder with config.json; name the folder that holds it"
        raise BundleError(msg)
    if not (folder / "config.json").exists() and (pickles := _pickles(folder)):
        msg = (
            f"{path}: holds {pickles[0]}; pickles can run code and are never loaded; "
            "export with save_pretrained()"
        )
        raise BundleError(msg)
    return folder


def _refuse_remote_code(folder: Path, config: JsonObject) -> None:
    tokenizer = read_optional_json(folder / "tokenizer_config.json")
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        if content.get("auto_map"):
            msg = (
                f"{folder / name}: auto_map asks for remote code; code from a bundle is never run; "
                "use a built-in architecture"
            )
            raise BundleError(msg)


def _refuse_elsewhere(folder: Path, config: JsonObject) -> None:
    """Refuses what makes transformers take weights from another place than the usual ones, or add to them."""
    if config.get("transformers_weights"):
        msg = (
            f"{folder / 'config.json'}: transformers_weights names {config['transformers_weights']!r}; "
            f"weights are read from {_SAFETENSORS} alone; rename the file and remove the entry"
        )
        raise BundleError(msg)
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        msg = (
            f"{adapter}: an adapter, which is added to the weights of a base; a bundle holds whole weights; "
            "merge it (merge_and_unload() of peft), save the model, or remove the adapter's files"
        )
        raise BundleError(msg)


def _weights(folder: Path) -> tuple[tuple[Path, ...], Path | None]:
    """The files that hold the weights, and their index where they are shards."""
    found = next((folder / name for name in _IN_ORDER if (folder / name).exists()), None)
    if found is None:
        raise BundleError(_no_weights(folder))
    is_index = found.suffix == ".json"
    return _shards(found) if is_index else (found,), found if is_index else None


def folders_state(folders: Iterable[Path]) -> str:
    """Hash that changes whenever a file in one of the folders does, those in folders below aside."""
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
    return canonical_digest([[file.name, _file_state(file)] for file in files])


def _state(folder: Path, config: JsonObject, weights: Iterable[Path], index: Path | None) -> str:
    beside = [folder / "tokenizer_config.json", folder / "tokenizer.json", *([index] if index else [])]
    return canonical_digest({"config": config, "files": [_file_state(file) for file in (*beside, *weights)]})


def _file_state(file: Path) -> str:
    """What changes whenever the file does: its bytes where it is small, else what the system keeps of it.

    Whoever writes or replaces a file can set its time of modification, not that of its last change.
    """
    try:
        if file.suffix == ".json":
            return f"{os.path.realpath(file)} {hash_file(file)}"
        found = file.stat()
    except FileNotFoundError:
        return f"{file}: missing"
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return f"{os.path.realpath(file)} {' '.join(map(str, state))}"


def _no_weights(folder: Path) -> str:
    pickles = _pickles(folder)
    if pickles:
        return (
            f"{folder}: weights only as {pickles[0]}; pickles can run code and are never loaded; "
            f"export {_SAFETENSORS}"
        )
    return f"{folder}: no {_SAFETENSORS}; a bundle needs its weights; save the model with save_pretrained()"


def _other_weights(folder: Path, weights: Iterable[Path], index: Path | None) -> tuple[str, ...]:
    """A note on the weights in the folder that are not read, if there are any."""
    found = {file.name for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern)}
    others = sorted(found - {file.name for file in weights} - ({index.name} if index else set()))
    if not others:
        return ()
    used = index.name if index else next(iter(weights)).name
    verb = "is" if len(others) == 1 else "are"
    note = f"{folder}: the weights are those of {used}; {brief(', '.join(others), 200)} {verb} not read"
    return (f"{note}; remove what is left of another model",)


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index, missing="save the model again").get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        msg = (
            f"{index}: weight_map does not list files of this folder; the index is damaged; "
            "save the model again"
        )
        raise BundleError(msg)
    shards = tuple(index.parent / name for name in sorted(names))
    for shard in shards:
        if not shard.exists():
            msg = f"{shard}: missing; every weight file that {index.name} names is needed; copy the bundle again"
            raise BundleError(msg)
    return shards


def _check_safetensors(file: Path) -> tuple[str, ...]:
    """The names of a file's tensors; refuses one cut short (or a Git LFS pointer) before it is mapped into memory."""
    with _read_errors(file), file.open("rb") as content:
        size = file.stat().st_size
        head = content.read(8)
        header_size = int.from_bytes(head, "little")
        if len(head) == 8 and header_size <= size - 8:  # the format's length field
            header = content.read(header_size)
            try:
                entries = json.loads(header)
                last = max(
                    (entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"),
                    default=0,
                )
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                last = -1
            if last == size - 8 - header_size:
                return tuple(name for name in entries if name != "__metadata__")
    what = (
        "a Git LFS pointer"
        if head == _LFS_POINTER[:8]
        else f"{size} bytes that are not a whole safetensors file"
    )
    msg = f"{file}: {what}; the weights must be complete; copy or download them again"
    raise BundleError(msg)


def _pickles(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _PICKLES)


@contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    """`BundleError` for a file that is there and cannot be read; one that is not there is left to the caller."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{file}: {reason}; a bundle's files must be readable; check the path and its permissions"
        raise BundleError(msg) from None


# ---------------------------------------------------------------- what config.json says


def architectures(config: JsonObject) -> tuple[str, ...]:
    """The classes of transformers that a config names; empty where it names none."""
    names = config.get("architectures")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def is_headless(config: JsonObject) -> bool:
    """Whether a config names architectures, and none that has a classification head."""
    names = architectures(config)
    return bool(names) and not any(name.endswith("ForSequenceClassification") for name in names)


def refuse_headless(checkpoint: Checkpoint) -> None:
    """Raise `BundleError` for a checkpoint that names an architecture without a classification head."""
    names = architectures(checkpoint.config)
    if is_headless(checkpoint.config):
        msg = (
            f"{checkpoint.path}: architecture {', '.join(names)} has no classification head; a bundle needs one; "
            "run assay train first"
        )
        raise BundleError(msg)


def _max_length(folder: Path, config: JsonObject) -> int:
    """The smaller of what the tokenizer states and what the model has positions for."""
    stated = read_optional_json(folder / "tokenizer_config.json").get("model_max_length")
    has_limit = is_number(stated) and 1 <= stated <= NO_LIMIT
    return min(position_limit(config), int(stated) if has_limit and is_number(stated) else NO_LIMIT)


def position_limit(config: JsonObject) -> int:
    """Most tokens that a model of this config has positions for; `NO_LIMIT` where it counts none."""
    positions = next((config[name] for name in _POSITIONS if config.get(name)), None)
    if not isinstance(positions, int) or positions < 1:
        return NO_LIMIT
    if config.get("model_type") not in _POSITIONS_AFTER_PADDING:
        return positions
    padding = config.get("pad_token_id")
    if not isinstance(padding, int) or config.get("model_type") == "mpnet":
        padding = 1  # the families' default; MPNet counts from it whatever the config says
    return max(1, positions - padding - 1)


def vocab_size_of(config: JsonObject) -> int | None:
    """Rows of the embedding of a model of this config; `None` where it does not say."""
    size = config.get("vocab_size", config.get("n_words"))
    return size if isinstance(size, int) and size > 0 else None
