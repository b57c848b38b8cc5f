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
from assay.model.depth import layers_left_out
from assay.tasks import Task

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
        tensors = itertools.chain.from_iterable(map(_check_safetensors, weights))
        notes += tuple(
            f"{folder / 'config.json'}: {clause}, as by transformers; correct it, or save the model again without them"
            for clause in layers_left_out(config, tensors)
        )
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


# ---------------------------------------------------------------- what the files say


def read_task(checkpoint: Checkpoint, labels: tuple[str, ...]) -> Task:
    """What the head predicts; `BundleError` where the config names something other than one of our tasks."""
    file = checkpoint.path / "config.json"
    stated = checkpoint.config.get("problem_type")
    if stated is None:
        return Task.REGRESSION if len(labels) == 1 else Task.SINGLE_LABEL
    task = next((task for task in Task if task.problem_type == stated), None)
    if task is None:
        names = ", ".join(task.problem_type for task in Task)
        msg = f"{file}: problem_type {stated!r}; it must be one of {names}; correct config.json"
        raise BundleError(msg)
    if not task.takes_outputs(len(labels)):
        number = "one output" if len(labels) == 1 else f"{len(labels)} outputs"
        way_out = (
            "one is supported; use a head with num_labels=1"
            if task is Task.REGRESSION
            else "it needs two or more; use regression or multi_label_classification"
        )
        msg = f"{file}: {stated} with {number}; {way_out}"
        raise BundleError(msg)
    return task


def read_labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the outputs in the order of the logits, as transformers takes them from the config.

    A number or a truth value is a name too, spelled as in labelled rows. Raises `BundleError` where the config
    names no outputs that transformers can take, or contradicts itself.
    """
    file, config = checkpoint.path / "config.json", checkpoint.config
    num_labels = config.get("num_labels", 2)
    if not isinstance(num_labels, int) or isinstance(num_labels, bool) or num_labels < 1:
        msg = f"{file}: num_labels is {json.dumps(num_labels)}; it must be a whole number from 1; correct or remove it"
        raise BundleError(msg)
    id2label, label2id = config.get("id2label"), config.get("label2id")
    if id2label is None:
        # transformers leaves the default pair of labels out of the file
        names = tuple(_default_label(index) for index in range(num_labels))
    else:
        names = _label_names(file, id2label)
    if id2label is not None and "num_labels" in config and num_labels != len(names):
        msg = f"{file}: num_labels={num_labels} but id2label names {len(names)}; correct one of them"
        raise BundleError(msg)
    if not _agrees(label2id, names):
        said = f"does not match id2label {brief(id2label)}" if id2label else "stands without id2label"
        msg = f"{file}: label2id {brief(label2id)} {said}; correct one of them, or remove label2id"
        raise BundleError(msg)
    return names


def _default_label(index: int) -> str:
    """The name that transformers gives an output that has none."""
    return f"LABEL_{index}"


def _label_names(file: Path, id2label: object) -> tuple[str, ...]:
    if not isinstance(id2label, dict) or not id2label:
        msg = (
            f"{file}: id2label is {brief(id2label)}; it must be an object that maps 0, 1, ... to label names; "
            "write it into config.json"
        )
        raise BundleError(msg)
    by_index = {_whole(key): value for key, value in id2label.items()}
    if set(by_index) != set(range(len(id2label))):
        msg = (
            f"{file}: id2label has the keys {brief(sorted(id2label))}; "
            f"they must be 0..{len(id2label) - 1}; correct config.json"
        )
        raise BundleError(msg)
    values = [by_index[index] for index in range(len(by_index))]
    names = tuple(_label_name(value) for value in values)
    if not all(names) or len(set(names)) < len(names):
        msg = f"{file}: labels {brief(values)}; each needs a name of its own; correct id2label in config.json"
        raise BundleError(msg)
    return names


def _label_name(value: object) -> str:
    """A scalar as a name: 1 and 1.0 are "1", true is "true"; empty for what is not a name."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or is_number(value):
        return json.dumps(value)
    return value if isinstance(value, str) else ""


def _agrees(label2id: object, names: tuple[str, ...]) -> bool:
    """Whether a label2id says what the names do, or nothing: absent, empty, or left at the default names."""
    if label2id is None or label2id == {}:
        return True
    if not isinstance(label2id, dict):
        return False
    stated = {name: _whole(index) for name, index in label2id.items()}
    given = dict(zip(names, range(len(names)), strict=True))
    return stated in (given, {_default_label(index): index for index in range(len(stated))})


def _whole(value: object) -> int | None:
    """The whole number that a JSON value or a key is; `None` for anything else."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.removeprefix("-").isdecimal() else None
    return int(value) if is_number(value) and float(value).is_integer() else None


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
