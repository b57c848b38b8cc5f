"""The deployable: a folder with weights, tokenizer, labels, calibration and provenance.

A bundle is a plain `transformers` folder (`config.json`, `model.safetensors`, `tokenizer.json`)
plus two files of ours, both optional:

    assay.json         what the classifier is and where it came from (format version 1)
    calibration.json   how its logits become probabilities (format version 1); also found in the parent
                       folder, where some trainers put it

This module reads and publishes such folders and decides which must not be used. It loads no
weights (that is `model`) and fits no calibration (that is `calibrate`).
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeGuard, cast, get_args

from assay.errors import AssayError, BundleError, StorageError, UsageError

Task = Literal["single_label", "multi_label", "regression"]
Method = Literal["temperature", "vector", "logistic", "isotonic", "conformal"]
JsonObject = Mapping[str, object]

ASSAY_FILE = "assay.json"
CALIBRATION_FILE = "calibration.json"
STYLE_CALIBRATION_FILE = "style_calibration.json"
FORMAT_VERSION = 1
"""Version of both files of ours; a larger one is refused."""

_PROBLEM_TYPES: dict[str, Task] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
# Position ids start after the padding id in these, so `pad_token_id + 1` positions are never used.
_POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm",
        "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle"})
_SAFETENSORS = "model.safetensors"
_SAFETENSORS_INDEX = "model.safetensors.index.json"
_LEGACY_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_NO_CONFIG = "save a transformers model with save_pretrained()"
_NO_LIMIT = 1_000_000
"""A tokenizer's `model_max_length` above this is the library's way to say that it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """A rising curve through points, straight between them and flat beyond: one map of an isotonic fit."""

    x: tuple[float, ...]
    """Uncalibrated probabilities, rising, at least one."""
    y: tuple[float, ...]
    """What each becomes: 0 to 1, never falling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How logits become probabilities and, where a threshold was chosen, probabilities decisions.

    `calibrate.maps.apply_calibration` says what each method does. Which fields a method has:

        temperature   temperature
        vector        scale, bias: one a label
        logistic      scale, bias: one (two labels), or one a label (multi-label)
        isotonic      steps: one (two labels), or one a label
        conformal     half_width, coverage (regression)
    """

    method: Method = "temperature"
    """The kind of map."""
    temperature: float = 1.0
    """Logits are divided by this before softmax or sigmoid; above 0; 1 under other methods."""
    scale: tuple[float, ...] = ()
    """Factors of the logits."""
    bias: tuple[float, ...] = ()
    """What is added to the scaled logits."""
    steps: tuple[Steps, ...] = ()
    """Curves from uncalibrated to calibrated probability."""
    half_width: float | None = None
    """Half of the width of a regression's intervals, in the unit of its targets; 0 or more."""
    coverage: float | None = None
    """Share of the documents whose interval is promised to hold their target, above 0 and below 1."""
    threshold: float | tuple[float, ...] | None = None
    """Probability at which a label holds, one for all or one a label; `None`: arg max, or 0.5."""
    opt_metric: str | None = None
    """What the threshold maximised; without a threshold, what the fit minimised."""
    selection_metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics on the calibration rows, by name: in-sample, so too kind."""
    meta: Mapping[str, object] = field(default_factory=dict)
    """Sample counts, cross-validated metrics, fingerprints and dates; changes no number."""
    provenance: JsonObject = field(default_factory=dict)
    """Hashes of the calibration rows, in the shape of `Bundle.provenance`; changes no number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A checked bundle folder: what it predicts, within which limits, and its identity."""

    path: Path
    """The folder."""
    config: JsonObject
    """`config.json` as it stands."""
    task: Task
    """What the head predicts."""
    labels: tuple[str, ...]
    """Names of the outputs, in the order of the logits."""
    calibration: Calibration | None
    """`calibration.json`, where there is one."""
    max_length: int
    """Most tokens, special tokens included, that the model can take."""
    default_max_length: int
    """Tokens that it was trained and calibrated for; `max_length` where nothing says so."""
    fingerprint: str
    """Hash of all that can change a score, 32 hex digits."""
    tokenizer_fingerprint: str
    """Hash of what turns text into ids, 32 hex digits."""
    is_pair: bool | None
    """Whether it takes two texts; `None` where the folder does not say."""
    provenance: JsonObject
    """Where it came from: base, settings, counts, hashes of the training rows."""
    int_score: tuple[int, int] | None = None
    """Regression: least and greatest whole score, where predictions are also given rounded and clipped."""
    notes: tuple[str, ...] = ()
    """Things the user should hear of, a sentence each."""


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The bundle in a folder, after every check that needs no weights in memory.

    Reads the weights once to hash them (about a second a gigabyte). Raises `BundleError` for a
    folder that cannot be used (no tokenizer, no head, labels that disagree) or must not be
    (pickles, remote code).
    """
    folder = _folder(path)
    config = read_json(folder / "config.json", missing=_NO_CONFIG)
    _refuse_remote_code(folder, config)
    weights, notes = _weights(folder)
    _refuse_headless(folder, config)
    labels = _labels(folder, config)
    description = _description(folder)
    calibration, calibration_notes = _find_calibration(folder)
    max_length = limit_of(folder, config)
    task = _task(folder, config, labels)
    _check_description(folder, description, task, labels)
    _check_calibration(folder, calibration, task, labels)
    trained_length = description.get("max_length")
    is_pair = description.get("is_pair")
    provenance = description.get("provenance")
    return Bundle(
        path=folder,
        config=config,
        task=task,
        labels=labels,
        calibration=calibration,
        max_length=max_length,
        default_max_length=min(trained_length, max_length) if isinstance(trained_length, int) else max_length,
        fingerprint=_fingerprint(config, weights, description, calibration),
        tokenizer_fingerprint=tokenizer_fingerprint(folder),
        is_pair=is_pair if isinstance(is_pair, bool) else None,
        provenance=cast("JsonObject", provenance) if isinstance(provenance, dict) else {},
        int_score=_int_score(folder, description, task),
        notes=(*notes, *calibration_notes),
    )


def check_base(path: str | os.PathLike[str]) -> JsonObject:
    """The `config.json` of a model folder to start training from, after the checks of a bundle.

    It needs weights and a tokenizer as a bundle does, but no head and no labels.
    """
    folder = _folder(path)
    config = read_json(folder / "config.json", missing=_NO_CONFIG)
    _refuse_remote_code(folder, config)
    _weights(folder)
    tokenizer_fingerprint(folder)
    return config


def tokenizer_fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash of what a `tokenizer.json` (or the one in a folder) does to text, 32 hex digits.

    Truncation and padding are left out: both are set by whoever encodes.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "tokenizer.json"
    tokenizer = read_json(file, missing="save a fast tokenizer with tokenizer.save_pretrained()")
    lasting = {name: value for name, value in tokenizer.items() if name not in {"truncation", "padding"}}
    return _digest(_canonical(lasting))


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


# ---------------------------------------------------------------- calibration.json


def load_style_calibration(folder: Path) -> Calibration | None:
    """The map in a bundle's `style_calibration.json` or its parent's; `None` where there is none.

    Such a file maps the cosine similarity of two documents' embeddings to the probability that they
    belong together: hand both to `calibrate.maps.map_scores`. It says nothing of the logits of a head,
    so a bundle is not calibrated by it.
    """
    file = _beside_or_above(folder, STYLE_CALIBRATION_FILE)
    if file is None:
        return None
    content = read_json(file, missing="copy the bundle again")
    fitted = content.get("style_calibration")
    if not isinstance(fitted, dict) or fitted.get("method") not in {"logistic", "isotonic"}:
        msg = (
            f"{file}: style_calibration {_brief(fitted)}; it needs the method logistic or isotonic;"
            " calibrate again"
        )
        raise BundleError(msg)
    meta = content.get("meta")
    calibration = Calibration(
        method=fitted["method"],
        scale=_flat_numbers(file, "coef", fitted.get("coef")),
        bias=_flat_numbers(file, "intercept", fitted.get("intercept")),
        steps=_steps(file, [{"x": fitted.get("x_thresholds"), "y": fitted.get("y_values")}])
        if fitted["method"] == "isotonic"
        else (),
        meta=cast("JsonObject", meta) if isinstance(meta, dict) else {},
    )
    _check_counts(file, calibration, wanted=1)
    return calibration


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Writes or replaces `calibration.json` in one step (a reader sees the old or the new); the file."""
    content: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "method": calibration.method,
        "temperature": calibration.temperature,
        **_parameters(calibration),
        "threshold": calibration.threshold,
        "opt_metric": calibration.opt_metric,
        "selection_metrics": dict(calibration.selection_metrics),
        "meta": dict(calibration.meta),
    }
    if calibration.provenance:
        content["provenance"] = dict(calibration.provenance)
    file = folder / CALIBRATION_FILE
    with _storage_errors(file):
        descriptor, name = tempfile.mkstemp(prefix=f".{CALIBRATION_FILE}.", dir=folder)
        scratch = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(_pretty(content))
                sink.flush()
                os.fsync(sink.fileno())
            scratch.chmod(0o644)
            scratch.replace(file)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    return file


def _find_calibration(folder: Path) -> tuple[Calibration | None, tuple[str, ...]]:
    """The calibration of the bundle in a folder, `None` where there is none, and what to say of it.

    The file lies beside the weights or else in the parent folder; there it counts only where the
    parent is no bundle itself. Raises `BundleError` for a file that cannot be applied as it stands.
    """
    notes: list[str] = []
    style = _beside_or_above(folder, STYLE_CALIBRATION_FILE)
    if style is not None:
        notes.append(f"{style}: maps similarities of embeddings, not logits; scores do not use it")
    file = _beside_or_above(folder, CALIBRATION_FILE)
    if file is None:
        return None, tuple(notes)
    if file.parent != folder:
        if not {"method", "temperature"} & read_json(file, missing="").keys():
            # A file of that name that calibrates something else: it is not ours to refuse.
            return None, tuple(notes)
        notes.append(f"{file}: the calibration is taken from the parent folder")
    return _read_calibration(file), tuple(notes)


def _beside_or_above(folder: Path, name: str) -> Path | None:
    """The file in the folder, or in its parent where that is no bundle of its own."""
    if (folder / name).exists():
        return folder / name
    above = folder.absolute().parent
    return above / name if (above / name).is_file() and not (above / "config.json").exists() else None


def _read_calibration(file: Path) -> Calibration:
    content = read_json(file, missing="run assay calibrate")
    _check_version(file, content)
    method = content.get("method", "temperature")
    if method not in get_args(Method):
        msg = (
            f"{file}: method {method!r}; this release applies {', '.join(get_args(Method))}; "
            "install a newer assay or calibrate again"
        )
        raise BundleError(msg)
    temperature = content.get("temperature", 1.0)
    if not _is_number(temperature) or not 0 < temperature < math.inf:
        msg = f"{file}: temperature {temperature!r}; it must be a number above 0; run assay calibrate again"
        raise BundleError(msg)
    opt_metric = content.get("opt_metric")
    provenance = content.get("provenance")
    half_width, coverage = _interval(file, content) if method == "conformal" else (None, None)
    return Calibration(
        method=cast("Method", method),
        temperature=float(temperature),
        scale=_flat_numbers(file, "scale", content.get("scale")),
        bias=_flat_numbers(file, "bias", content.get("bias")),
        steps=_steps(file, content.get("isotonic", [])),
        half_width=half_width,
        coverage=coverage,
        threshold=_threshold(file, content.get("threshold")),
        opt_metric=opt_metric if isinstance(opt_metric, str) else None,
        selection_metrics=_numbers(content.get("selection_metrics")),
        meta=cast("JsonObject", meta) if isinstance(meta := content.get("meta"), dict) else {},
        provenance=cast("JsonObject", provenance) if isinstance(provenance, dict) else {},
    )


def _interval(file: Path, content: JsonObject) -> tuple[float, float]:
    half_width, coverage = content.get("half_width"), content.get("coverage")
    if not _is_number(half_width) or half_width < 0 or not _is_number(coverage) or not 0 < coverage < 1:
        msg = (
            f"{file}: half_width {half_width!r} with coverage {coverage!r}; an interval needs a width of 0 or"
            " more and a share between 0 and 1; run assay calibrate again"
        )
        raise BundleError(msg)
    return float(half_width), float(coverage)


def _flat_numbers(file: Path, name: str, value: object) -> tuple[float, ...]:
    """Numbers of a list, of a list in a list (as scikit-learn has coefficients), or one; () for None."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    many = [] if value is None else value if isinstance(value, list) else [value]
    numbers = tuple(float(each) for each in many if _is_number(each))
    if len(numbers) < len(many):
        msg = f"{file}: {name} {_brief(value)}; it must be finite numbers; run assay calibrate again"
        raise BundleError(msg)
    return numbers


def _steps(file: Path, value: object) -> tuple[Steps, ...]:
    found = []
    for entry in value if isinstance(value, list) else [value]:
        x, y = (entry.get("x"), entry.get("y")) if isinstance(entry, dict) else (None, None)
        xs, ys = _flat_numbers(file, "isotonic x", x), _flat_numbers(file, "isotonic y", y)
        rises = list(xs) == sorted(xs) and list(ys) == sorted(ys)
        if not xs or len(xs) != len(ys) or not rises or not (ys[0] >= 0 and ys[-1] <= 1):
            msg = (
                f"{file}: isotonic x {_brief(x)}, y {_brief(y)}; both must be rising lists of one length, y"
                " from 0 to 1; run assay calibrate again"
            )
            raise BundleError(msg)
        found.append(Steps(x=xs, y=ys))
    return tuple(found)


def _parameters(calibration: Calibration) -> dict[str, object]:
    """What a method has besides the temperature, as JSON values; {} for a temperature alone."""
    values: dict[str, object] = {
        "scale": list(calibration.scale),
        "bias": list(calibration.bias),
        "isotonic": [{"x": list(each.x), "y": list(each.y)} for each in calibration.steps],
        "half_width": calibration.half_width,
        "coverage": calibration.coverage,
    }
    return {name: value for name, value in values.items() if value not in (None, [])}


# ---------------------------------------------------------------- publishing a bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What `assay.json` says about a bundle, beyond what `config.json` can."""

    assay_version: str
    """Version of Assay that wrote it."""
    created: str
    """When, ISO 8601 with time zone."""
    task: Task
    """What the head predicts."""
    labels: tuple[str, ...]
    """Names of the outputs, in the order of the logits."""
    max_length: int
    """Tokens that it was trained for."""
    is_pair: bool
    """Whether it takes two texts."""
    provenance: JsonObject
    """Base, settings, counts and hashes of the training rows; plain JSON values."""
    int_score: tuple[int, int] | None = None
    """Regression: least and greatest whole score, where scores are also given rounded and clipped."""


def write_description(folder: Path, description: Description) -> None:
    """Writes `assay.json` into a bundle folder that is still being made."""
    content: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "assay_version": description.assay_version,
        "created": description.created,
        "task": description.task,
        "labels": list(description.labels),
        "max_length": description.max_length,
        "is_pair": description.is_pair,
        "provenance": dict(description.provenance),
    }
    if description.int_score is not None:
        content["int_score"] = list(description.int_score)
    (folder / ASSAY_FILE).write_bytes(_pretty(content))


@contextmanager
def publish_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A scratch folder beside `out` that becomes `out` when the block ends well, and vanishes when not.

    A reader never sees a half-written bundle. Refuses an `out` that holds anything, unless
    `overwrite`; then the old folder is moved aside, replaced and removed. A killed process leaves
    `.<name>.tmp-*` behind.
    """
    check_out(out, overwrite=overwrite)
    with _storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.tmp-", dir=out.parent))
        try:
            yield scratch
            mode = _default_mode(scratch)
            for file in sorted(scratch.rglob("*")):
                if file.is_file():
                    file.chmod(mode & 0o666)  # safetensors' writer lets only the owner read
                    _sync_file(file)
            scratch.chmod(mode)
            _swap_in(scratch, out)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def check_out(out: Path, *, overwrite: bool = False) -> None:
    """Raises `UsageError` where `out` cannot become a new bundle folder, before any work is done."""
    if out.exists() and not out.is_dir():
        msg = f"{out}: a file; a bundle is a folder; name another place"
        raise UsageError(msg)
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        msg = (
            f"{out}: the folder is not empty; a bundle is never written over another; "
            "name a new folder, or replace it with overwrite"
        )
        raise UsageError(msg)


def _default_mode(folder: Path) -> int:
    """Permissions that a new folder gets here."""
    probe = folder / ".mode"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    probe.rmdir()
    return mode


def _swap_in(scratch: Path, out: Path) -> None:
    aside: Path | None = None
    if out.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
        out.replace(aside)
    scratch.replace(out)
    _sync_folder(out.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def _sync_file(file: Path) -> None:
    with file.open("rb") as content:
        os.fsync(content.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except AssayError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{target}: {reason}; the bundle could not be written; free space or name a writable place"
        raise StorageError(msg) from error


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


# ---------------------------------------------------------------- checks of a folder


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
    for name, content in (
        ("config.json", config),
        ("tokenizer_config.json", _optional(folder, "tokenizer_config.json")),
    ):
        if content.get("auto_map"):
            msg = (
                f"{folder / name}: auto_map asks for remote code; code from a bundle is never run; "
                "use a built-in architecture"
            )
            raise BundleError(msg)


def _weights(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    single = folder / _SAFETENSORS
    if single.exists():
        _check_safetensors(single)
        return (single,), ()
    index = folder / _SAFETENSORS_INDEX
    if index.exists():
        shards = _shards(index)
        for shard in shards:
            _check_safetensors(shard)
        return shards, ()
    for name in _LEGACY_WEIGHTS:
        legacy = folder / name
        if legacy.exists():
            files = (legacy,) if legacy.suffix == ".bin" else _shards(legacy)
            note = f"{legacy}: legacy weights, read with weights_only; convert them with save_pretrained()"
            return files, (note,)
    pickles = _pickles(folder)
    if pickles:
        msg = (
            f"{folder}: weights only as {pickles[0]}; pickles can run code and are never loaded; "
            f"export {_SAFETENSORS}"
        )
    else:
        msg = (
            f"{folder}: no {_SAFETENSORS}; a bundle needs its weights; save the model with save_pretrained()"
        )
    raise BundleError(msg)


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
    what = "a Git LFS pointer" if head == b"version " else f"{size} bytes that are no whole safetensors file"
    msg = f"{file}: {what}; the weights must be complete; copy or download them again"
    raise BundleError(msg)


def _refuse_headless(folder: Path, config: JsonObject) -> None:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return
    names = [str(name) for name in architectures]
    if not any(name.endswith("ForSequenceClassification") for name in names):
        msg = (
            f"{folder}: architecture {', '.join(names)} has no classification head; a bundle needs one; "
            "run assay train first"
        )
        raise BundleError(msg)


def _labels(folder: Path, config: JsonObject) -> tuple[str, ...]:
    file = folder / "config.json"
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
            f"{file}: id2label has the keys {_brief(sorted(id2label))}; "
            f"they must be 0..{len(id2label) - 1}; correct config.json"
        )
        raise BundleError(msg)
    names = tuple(id2label[key] for key in expected)
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        msg = f"{file}: labels {_brief(names)}; each needs a name of its own; correct id2label in config.json"
        raise BundleError(msg)
    label2id = config.get("label2id")
    if label2id is not None and label2id != {name: index for index, name in enumerate(names)}:
        msg = (
            f"{file}: label2id {_brief(label2id)} does not match id2label {_brief(id2label)}; "
            "correct one of them"
        )
        raise BundleError(msg)
    if isinstance(stated, int) and stated != len(names):
        msg = f"{file}: num_labels={stated} but id2label names {len(names)}; correct one of them"
        raise BundleError(msg)
    return names


def _task(folder: Path, config: JsonObject, labels: tuple[str, ...]) -> Task:
    problem_type = config.get("problem_type")
    if problem_type is None:
        return "regression" if len(labels) == 1 else "single_label"
    if problem_type not in _PROBLEM_TYPES:
        msg = (
            f"{folder / 'config.json'}: problem_type {problem_type!r}; "
            f"it must be one of {', '.join(_PROBLEM_TYPES)}"
        )
        raise BundleError(msg)
    task = _PROBLEM_TYPES[problem_type]
    if task == "regression" and len(labels) > 1:
        msg = (
            f"{folder / 'config.json'}: regression with {len(labels)} outputs; one is supported; "
            "use a head with num_labels=1"
        )
        raise BundleError(msg)
    return task


def limit_of(folder: Path, config: JsonObject) -> int:
    """Most tokens, special tokens included, that the model in a folder can take; a million where nothing says."""
    limits = []
    stated = _optional(folder, "tokenizer_config.json").get("model_max_length")
    if _is_number(stated) and 0 < stated <= _NO_LIMIT:
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


def _description(folder: Path) -> JsonObject:
    file = folder / ASSAY_FILE
    if not file.exists():
        return {}
    content = read_json(file, missing="save the bundle again")
    _check_version(file, content)
    return content


def _check_version(file: Path, content: JsonObject) -> None:
    version = content.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        msg = (
            f"{file}: format_version {version!r}; this release reads up to {FORMAT_VERSION}; "
            "install a newer assay"
        )
        raise BundleError(msg)


def _check_description(folder: Path, description: JsonObject, task: Task, labels: tuple[str, ...]) -> None:
    seen = description.get("labels", list(labels))
    if seen != list(labels):
        msg = (
            f"{folder / ASSAY_FILE}: labels {_brief(seen)} but config.json says {_brief(labels)}; "
            "correct one of them"
        )
        raise BundleError(msg)
    if description.get("task", task) != task:
        msg = (
            f"{folder / ASSAY_FILE}: task {description['task']!r} but config.json says {task!r}; "
            "correct one of them"
        )
        raise BundleError(msg)


def _int_score(folder: Path, description: JsonObject, task: Task) -> tuple[int, int] | None:
    value = description.get("int_score")
    if value is None:
        return None
    bounds = value if isinstance(value, list) and len(value) == 2 else []
    if (
        not bounds
        or not all(type(each) is int for each in bounds)
        or not -(2**31) <= bounds[0] < bounds[1] < 2**31
    ):
        msg = (
            f"{folder / ASSAY_FILE}: int_score {_brief(value)}; it is the least and the greatest whole score;"
            " write for example [1, 5]"
        )
        raise BundleError(msg)
    if task != "regression":
        msg = f"{folder / ASSAY_FILE}: int_score {bounds} of a {task} bundle; only a regression has one; remove it"
        raise BundleError(msg)
    return bounds[0], bounds[1]


def _check_calibration(
    folder: Path, calibration: Calibration | None, task: Task, labels: tuple[str, ...]
) -> None:
    if calibration is None:
        return
    file = folder / CALIBRATION_FILE
    if isinstance(calibration.threshold, tuple) and len(calibration.threshold) != len(labels):
        msg = (
            f"{file}: {len(calibration.threshold)} thresholds for {len(labels)} labels;"
            " one a label is needed; run assay calibrate again"
        )
        raise BundleError(msg)
    method = calibration.method
    fits = {
        "single_label": {"temperature", "vector", "isotonic", *(["logistic"] if len(labels) == 2 else [])},
        "multi_label": {"temperature", "logistic", "isotonic"},
        "regression": {"temperature", "conformal"},
    }
    if method not in fits[task]:
        msg = (
            f"{file}: method {method!r} for {len(labels)} outputs of a {task} bundle; it takes"
            f" {', '.join(sorted(fits[task]))}; run assay calibrate again"
        )
        raise BundleError(msg)
    is_one_curve = task == "single_label" and len(labels) == 2 and method != "vector"
    _check_counts(file, calibration, wanted=1 if is_one_curve else len(labels))


def _check_counts(file: Path, calibration: Calibration, *, wanted: int) -> None:
    """Refuses a map that lacks the numbers for some of its outputs."""
    counts = {
        "vector": {len(calibration.scale), len(calibration.bias)},
        "logistic": {len(calibration.scale), len(calibration.bias)},
        "isotonic": {len(calibration.steps)},
    }.get(calibration.method, {wanted})
    if counts != {wanted}:
        msg = (
            f"{file}: method {calibration.method!r} with {' and '.join(map(str, sorted(counts)))} parameters;"
            f" {wanted} of each are needed; run assay calibrate again"
        )
        raise BundleError(msg)


def _threshold(file: Path, value: object) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    many = value if isinstance(value, list) else [value]
    if not many or not all(_is_number(each) and 0 <= each <= 1 for each in many):
        msg = (
            f"{file}: threshold {_brief(value)}; it must be a probability or a list of them; "
            "run assay calibrate again"
        )
        raise BundleError(msg)
    thresholds = tuple(float(each) for each in many if _is_number(each))
    return thresholds if isinstance(value, list) else thresholds[0]


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {str(name): float(number) for name, number in value.items() if _is_number(number)}


def _pickles(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _PICKLES)


def _optional(folder: Path, name: str) -> JsonObject:
    file = folder / name
    return read_json(file, missing="") if file.exists() else {}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _brief(value: object, limit: int = 80) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


# ---------------------------------------------------------------- identity


def _fingerprint(
    config: JsonObject,
    weights: tuple[Path, ...],
    description: JsonObject,
    calibration: Calibration | None,
) -> str:
    """Hash of configuration, weights, calibration and description, as far as they change a score."""
    described = {name: description.get(name) for name in ("task", "labels", "max_length", "is_pair")}
    if description.get("int_score") is not None:
        described["int_score"] = description["int_score"]
    parts: dict[str, object] = {
        "config": config,
        "weights": {file.name: _hash_file(file) for file in weights},
        "description": described,
        "calibration": None
        if calibration is None
        else {
            "method": calibration.method,
            "temperature": calibration.temperature,
            **_parameters(calibration),
            "threshold": calibration.threshold,
        },
    }
    return _digest(_canonical(parts))


def _hash_file(file: Path) -> str:
    with _read_errors(file), file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _pretty(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
