"""A model's folder, read in one place: which files are its weights, and what the others say.

`read_checkpoint` alone decides what of a folder counts, so that fingerprint, self test, engine, reference and
training speak of the same model. The order is that of transformers: `model.safetensors`, else the shards that
`model.safetensors.index.json` names, else `pytorch_model.bin`, else the shards of its index. Other weights in
the folder are not read, and a note names them.

Reads headers, not weights, and imports no torch: `pretrained` makes a model of a checkpoint.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, cast

from assay.errors import BundleError
from assay.tasks import Task

JsonObject = Mapping[str, object]

_SAFETENSORS = "model.safetensors"
_IN_ORDER = (_SAFETENSORS, f"{_SAFETENSORS}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where weights are looked for; transformers' order."""
_OTHER_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json")
"""What weights beside those that are read look like."""
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle"})
_NO_CONFIG = "save a transformers model with save_pretrained()"
_NO_LIMIT = 1_000_000
"""A tokenizer's `model_max_length` above this is the library's way to say that it has none."""
# Position ids start after the padding id in these, so `pad_token_id + 1` positions are never used.
_POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
        "xlm-roberta", "xlm-roberta-xl", "xmod",
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
    notes: tuple[str, ...]
    """Things the user should hear of, a sentence each."""

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


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in a folder, after every check that needs no weights in memory.

    Raises `BundleError` for a folder that cannot be used (no config, no weights, some of them cut short) or
    must not be (pickles, remote code).
    """
    folder = _folder(path)
    config = read_json(folder / "config.json", missing=_NO_CONFIG)
    _refuse_remote_code(folder, config)
    _refuse_elsewhere(folder, config)
    weights, index = _weights(folder)
    notes = _other_weights(folder, weights, index)
    if weights[0].suffix != ".safetensors":
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
        notes=notes,
    )


def read_json(file: Path, *, missing: str) -> JsonObject:
    """The JSON object in a file; `BundleError` where there is none, ending in `missing`, the way out."""
    try:
        with _read_errors(file):
            content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        msg = f"{file.parent}: no {file.name}; a bundle needs one; {missing}"
        raise BundleError(msg) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{file}: not JSON ({error}); the file is damaged; copy or save the bundle again"
        raise BundleError(msg) from None
    if not isinstance(content, dict):
        msg = f"{file}: a JSON {type(content).__name__}; an object is needed; copy or save the bundle again"
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
    weights = _shards(found) if is_index else (found,)
    if found.name.startswith(_SAFETENSORS):
        for file in weights:
            _check_safetensors(file)
    return weights, found if is_index else None


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
    note = f"{folder}: the weights are those of {used}; {brief(', '.join(others))} {verb} not read"
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
            msg = (
                f"{shard}: missing; the index names {len(shards)} weight files and all are needed; "
                "copy the bundle again"
            )
            raise BundleError(msg)
    return shards


def _check_safetensors(file: Path) -> None:
    """Refuses a file cut short (or a Git LFS pointer) before anything maps it into memory."""
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
                return
    what = (
        "a Git LFS pointer" if head == b"version " else f"{size} bytes that are not a whole safetensors file"
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


def tokenizer_fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash of what a `tokenizer.json` (or the one in a folder) does to text, 32 hex digits.

    Truncation and padding are left out: both are set by whoever encodes.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "tokenizer.json"
    tokenizer = read_json(file, missing="save a fast tokenizer with tokenizer.save_pretrained()")
    return canonical_digest({k: v for k, v in tokenizer.items() if k not in {"truncation", "padding"}})


def read_task(checkpoint: Checkpoint, labels: tuple[str, ...]) -> Task:
    """What the head predicts; `BundleError` where the config names something else than a task of ours."""
    file = checkpoint.path / "config.json"
    stated = checkpoint.config.get("problem_type")
    if stated is None:
        return Task.REGRESSION if len(labels) == 1 else Task.SINGLE_LABEL
    task = next((task for task in Task if task.problem_type == stated), None)
    if task is None:
        names = ", ".join(task.problem_type for task in Task)
        msg = f"{file}: problem_type {stated!r}; it must be one of {names}; correct config.json"
        raise BundleError(msg)
    if task is Task.REGRESSION and len(labels) > 1:
        msg = f"{file}: regression with {len(labels)} outputs; one is supported; use a head with num_labels=1"
        raise BundleError(msg)
    return task


def read_labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the outputs in the order of the logits; `BundleError` where the config contradicts itself."""
    file, config = checkpoint.path / "config.json", checkpoint.config
    id2label = config.get("id2label")
    stated = config.get("num_labels")
    if id2label is None:
        # transformers leaves the default pair of labels out of the file.
        return tuple(f"LABEL_{index}" for index in range(stated if isinstance(stated, int) else 2))
    if not isinstance(id2label, dict) or not id2label:
        msg = (
            f"{file}: id2label is {id2label!r}; it must map 0, 1, ... to label names; "
            "write it into config.json"
        )
        raise BundleError(msg)
    expected = [str(index) for index in range(len(id2label))]
    if sorted(id2label) != sorted(expected):
        msg = (
            f"{file}: id2label has the keys {brief(sorted(id2label))}; "
            f"they must be 0..{len(id2label) - 1}; correct config.json"
        )
        raise BundleError(msg)
    names = tuple(id2label[key] for key in expected)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        msg = f"{file}: labels {brief(names)}; each needs a name of its own; correct id2label in config.json"
        raise BundleError(msg)
    label2id = config.get("label2id")
    if label2id is not None and label2id != {name: index for index, name in enumerate(names)}:
        msg = (
            f"{file}: label2id {brief(label2id)} does not match id2label {brief(id2label)}; "
            "correct one of them"
        )
        raise BundleError(msg)
    if isinstance(stated, int) and stated != len(names):
        msg = f"{file}: num_labels={stated} but id2label names {len(names)}; correct one of them"
        raise BundleError(msg)
    return names


def refuse_headless(checkpoint: Checkpoint) -> None:
    """Raise `BundleError` for a checkpoint that names an architecture without a classification head."""
    architectures = checkpoint.config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return
    names = [str(name) for name in architectures]
    if not any(name.endswith("ForSequenceClassification") for name in names):
        msg = (
            f"{checkpoint.path}: architecture {', '.join(names)} has no classification head; a bundle needs one; "
            "run assay train first"
        )
        raise BundleError(msg)


def _max_length(folder: Path, config: JsonObject) -> int:
    limits = []
    stated = read_optional_json(folder / "tokenizer_config.json").get("model_max_length")
    if is_number(stated) and 0 < stated <= _NO_LIMIT:
        limits.append(int(stated))
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(positions, int) and positions > 0:
        padding = config.get("pad_token_id")
        offset = 0
        if config.get("model_type") in _POSITIONS_AFTER_PADDING:
            offset = (padding if isinstance(padding, int) else 1) + 1
        limits.append(positions - offset)
    if not limits:
        return _NO_LIMIT
    return min(limits)
