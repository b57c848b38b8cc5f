"""The JSON file of a tuned cascade, written and read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from assay.bundle.description import FORMAT_VERSION, check_version, pretty
from assay.bundle.folders import cascade_file
from assay.data.storage import replace_file
from assay.errors import BundleError
from assay.model.checkpoint import JsonObject, brief, is_number, read_json
from assay.score.cascade.decide import Thresholds
from assay.siamese.evidence import Combination

_WAY_OUT = "run assay cascade tune again"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageEntry:
    """What the file says of a model."""

    path: str
    """Its folder, from the folder of the file."""
    kind: str
    fingerprint: str

    def check(self, file: Path, folder: Path, fingerprint: str) -> None:
        """Raise `BundleError` where the model in a folder is another than the thresholds are for."""
        if fingerprint != self.fingerprint:
            msg = (
                f"{file}: tuned for the model {self.fingerprint}, and {folder} is {fingerprint}; thresholds belong to"
                f" one model, its calibration included; {_WAY_OUT}, or put that model there"
            )
            raise BundleError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeFile:
    """What a cascade needs to answer."""

    labels: tuple[str, str]
    """The second is the one whose probability is given."""
    thresholds: Thresholds
    combination: Combination
    first: StageEntry
    second: StageEntry
    provenance: JsonObject = field(default_factory=dict)
    """What the tuning saw, as hashes of its rows."""

    def stages(self) -> tuple[tuple[str, StageEntry], tuple[str, StageEntry]]:
        """Both models, in order, by name."""
        return ("first", self.first), ("second", self.second)


def write_cascade(out: str, cascade: CascadeFile, found: Mapping[str, object]) -> None:
    """Writes the file in one step; `found` is what tuning measured, kept beside it for readers."""
    combination = cascade.combination
    content = {
        "format_version": FORMAT_VERSION,
        "labels": list(cascade.labels),
        "first": _stage_content(cascade.first),
        "second": _stage_content(cascade.second),
        "thresholds": {"low": cascade.thresholds.low, "high": cascade.thresholds.high},
        "combination": {
            "first": combination.network,
            "second": combination.evidence,
            "bias": combination.bias,
        },
        **found,
        "provenance": cascade.provenance,
    }
    replace_file(out, pretty(content))


def find_cascade(path: str | os.PathLike[str]) -> tuple[Path, CascadeFile]:
    """The file that a path is, or that its folder holds, and what it says; raises BundleError where there is none."""
    file = cascade_file(path)
    if file is None:
        msg = f"{path}: not a cascade; give the file of assay cascade tune, or a folder with its cascade.json"
        raise BundleError(msg)
    return file, read_cascade_file(file)


def read_cascade_file(path: str | os.PathLike[str]) -> CascadeFile:
    """The cascade in a file; raises `BundleError` for one that cannot be used."""
    file = Path(path)
    content = read_json(file, missing=_WAY_OUT)
    check_version(file, content)
    labels = content.get("labels")
    if (
        not isinstance(labels, list)
        or len(labels) != 2
        or not all(isinstance(label, str) for label in labels)
    ):
        raise _wrong(file, "labels", labels)
    low, high = (_part(file, content, "thresholds").get(name) for name in ("low", "high"))
    if (
        not is_number(low)
        or not 0 <= low <= 0.5
        or not (high is None or (is_number(high) and 0.5 <= high <= 1))
    ):
        raise _wrong(file, "thresholds", content["thresholds"])
    weights = _part(file, content, "combination")
    numbers = [float(each) for name in ("first", "second", "bias") if is_number(each := weights.get(name))]
    if len(numbers) < 3 or min(numbers[:2]) < 0:
        raise _wrong(file, "combination", weights)
    return CascadeFile(
        labels=(labels[0], labels[1]),
        thresholds=Thresholds(low=float(low), high=None if high is None else float(high)),
        combination=Combination(network=numbers[0], evidence=numbers[1], bias=numbers[2]),
        first=_stage(file, content, "first"),
        second=_stage(file, content, "second"),
        provenance=provenance if isinstance(provenance := content.get("provenance"), dict) else {},
    )


def stage_folders(path: str | os.PathLike[str]) -> list[Path]:
    """The folders of the two models of a cascade, links resolved; raises BundleError where one is not there."""
    file, tuned = find_cascade(path)
    return [stage_folder(file, name, entry) for name, entry in tuned.stages()]


def stage_folder(file: Path, name: str, entry: StageEntry) -> Path:
    """Where a model of a cascade is: where the file says, else in a folder of its name beside the file."""
    named, beside = file.absolute().parent / entry.path, file.absolute().parent / name
    folder = next((each for each in (named, beside) if each.is_dir()), None)
    if folder is None:
        msg = (
            f"{file}: its {name} model is neither at {named.resolve()} nor at {beside}; put the model there, or"
            f" {_WAY_OUT}"
        )
        raise BundleError(msg)
    return folder.resolve()


def _stage_content(stage: StageEntry) -> JsonObject:
    return {"path": stage.path, "kind": stage.kind, "fingerprint": stage.fingerprint}


def _stage(file: Path, content: JsonObject, name: str) -> StageEntry:
    entry = _part(file, content, name)
    values = [entry.get(key) for key in ("path", "kind", "fingerprint")]
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        raise _wrong(file, name, entry)
    return StageEntry(path=texts[0], kind=texts[1], fingerprint=texts[2])


def _part(file: Path, content: JsonObject, name: str) -> JsonObject:
    part = content.get(name)
    if not isinstance(part, dict):
        raise _wrong(file, name, part)
    return part


def _wrong(file: Path, name: str, value: object) -> BundleError:
    return BundleError(f"{file}: {name} is {brief(value)}, which is not a cascade's; {_WAY_OUT}")
