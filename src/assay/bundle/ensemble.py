"""An ensemble of classifiers as one bundle: members in folders of their own, one tokenizer, labels and calibration.

ensemble.json                    the rule, the weights, the members and their fingerprints; of pairs the second order,
                                 of long documents how many offsets their windows have
members/1, members/2, ...        classifiers as they were, less their calibrations: members are pooled raw
config.json, tokenizer.json ...  those of the first member, so that texts are tokenized as for any bundle
assay.json, calibration.json     as in any bundle; the calibration is of the pooled outputs
"""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast, get_args

from assay.bundle.bundle import Bundle
from assay.bundle.calibration import (
    CALIBRATION_FILE,
    STYLE_CALIBRATION_FILE,
    check_calibration,
    find_calibration,
    parameters,
)
from assay.bundle.description import ASSAY_FILE, FORMAT_VERSION, check_version, pretty, read_description
from assay.bundle.folders import ENSEMBLE_FILE
from assay.bundle.load import load_bundle
from assay.errors import BundleError
from assay.model.checkpoint import JsonObject, brief, canonical_digest, is_number, read_json
from assay.outcome.calibration import Calibration
from assay.outcome.decide import Decider
from assay.outcome.orders import SecondOrder
from assay.outcome.pooling import Pooling, PoolingRule
from assay.tasks import Task

MEMBERS_FOLDER = "members"
MOST_MEMBERS = 64
_WAY_OUT = "build it again with assay ensemble build"
_SUM_TOLERANCE = 1e-6
_OF_A_TRAINING = (".html", ".jsonl")
"""Files of a member that tell of its training, which is not the ensemble's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble(Bundle):
    """A bundle of several classifiers; `checkpoint` is the first one's."""

    folder: Path
    """Where `ensemble.json` is."""
    members: tuple[Bundle, ...]
    """Without calibrations."""
    pooling: Pooling
    """Of the members."""
    second_order: SecondOrder | None = None
    """When pairs are read with their texts swapped too; None: never."""
    num_offsets: int = 1
    """Offsets of the windows of long documents that each member answers to."""

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder

    @property
    def max_length(self) -> int:
        """Most tokens that every member can take."""
        return min(member.max_length for member in self.members)

    @property
    def decider(self) -> Decider:
        """What turns the members' logits, side by side, into what the ensemble says."""
        return Decider(
            task=self.task,
            labels=self.labels,
            calibration=self.calibration,
            int_score=self.int_score,
            pooling=self.pooling.of_views(self.num_views),
        )

    @property
    def num_views(self) -> int:
        """Answers of each member to a document: one for each offset of its windows, or order of a pair."""
        return self.num_offsets if self.second_order is None else 2

    @property
    def label_orders(self) -> tuple[tuple[int, ...], ...]:
        """Of each member, which of its outputs is each of the ensemble's."""
        return tuple(label_order(self.labels, member) for member in self.members)


def label_order(labels: Sequence[str], member: Bundle) -> tuple[int, ...]:
    """Which output of a member is each of `labels`; a regression has one, whatever its name."""
    if member.task is Task.REGRESSION:
        return (0,)
    return tuple(member.labels.index(label) for label in labels)


def read_ensemble(path: str | os.PathLike[str]) -> Ensemble:
    """The ensemble in a folder, after every check that needs no weights in memory.

    Reads the weights of all members once to hash them. Raises `BundleError` for a folder that cannot be used.
    """
    folder = Path(path)
    file = folder / ENSEMBLE_FILE
    content = read_json(file, missing=_WAY_OUT)
    check_version(file, content)
    pooling, listed = _read_pooling(file, content)
    members = []
    for name, fingerprint in listed:
        member = load_bundle(folder / name)
        if member.fingerprint != fingerprint:
            msg = (
                f"{folder / name} is {member.fingerprint} and {file.name} was written for {fingerprint}; {_WAY_OUT},"
                " or put the member back"
            )
            raise BundleError(msg)
        members.append(replace(member, calibration=None))
    refuse_unlike(members)
    first = members[0]
    description = read_description(folder)
    calibration, notes = find_calibration(folder)
    check_calibration(folder, calibration, first.task, first.labels)
    provenance = description.get("provenance")
    return join_members(
        folder,
        members,
        pooling,
        second_order=_read_second_order(file, content, first),
        num_offsets=_read_offsets(file, content, first),
        calibration=calibration,
        provenance=provenance if isinstance(provenance, dict) else {},
        notes=notes,
    )


def join_members(
    folder: Path,
    members: Sequence[Bundle],
    pooling: Pooling,
    *,
    second_order: SecondOrder | None = None,
    num_offsets: int = 1,
    calibration: Calibration | None = None,
    provenance: JsonObject | None = None,
    notes: Sequence[str] = (),
) -> Ensemble:
    """The ensemble of members that are alike; `folder` holds their tokenizer."""
    first = members[0]
    calibrated: JsonObject | None = None
    if calibration is not None:
        calibrated = {
            "method": calibration.method,
            "temperature": calibration.temperature,
            **parameters(calibration),
            "threshold": calibration.threshold,
        }
    return Ensemble(
        checkpoint=first.checkpoint,
        task=first.task,
        labels=first.labels,
        calibration=calibration,
        default_max_length=first.default_max_length,
        fingerprint=canonical_digest(
            {
                "members": [member.fingerprint for member in members],
                "rule": pooling.rule,
                "weights": list(pooling.weights),
                "calibration": calibrated,
                **_views_of(second_order, num_offsets),
            }
        ),
        tokenizer_fingerprint=first.tokenizer_fingerprint,
        is_pair=first.is_pair,
        provenance=provenance or {},
        int_score=first.int_score,
        notes=(*dict.fromkeys(note for member in members for note in member.notes), *notes),
        folder=folder,
        members=tuple(members),
        pooling=pooling,
        second_order=second_order,
        num_offsets=num_offsets,
    )


def _views_of(second_order: SecondOrder | None, num_offsets: int) -> JsonObject:
    return {
        **({} if second_order is None else {"second_order": asdict(second_order)}),
        **({} if num_offsets == 1 else {"offsets": num_offsets}),
    }


def write_ensemble(
    folder: Path,
    members: Sequence[Bundle],
    pooling: Pooling,
    second_order: SecondOrder | None = None,
    num_offsets: int = 1,
) -> None:
    """Write an ensemble of classifiers into a folder that is still being made, `assay.json` aside.

    Copies the members' weights. Raises as `refuse_unlike` does.
    """
    refuse_unlike(members)
    listed = []
    for number, member in enumerate(members, start=1):
        name = f"{MEMBERS_FOLDER}/{number}"
        _copy(member.path, folder / name, without=(CALIBRATION_FILE, STYLE_CALIBRATION_FILE))
        listed.append({"folder": name, "fingerprint": load_bundle(folder / name).fingerprint})
    weights = {file.name for file in members[0].checkpoint.weights}
    indexes = {f"{name}.index.json" for name in ("model.safetensors", "pytorch_model.bin")}
    _copy(
        members[0].path,
        folder,
        without=(*weights, *indexes, ASSAY_FILE, CALIBRATION_FILE, STYLE_CALIBRATION_FILE),
        without_endings=_OF_A_TRAINING,
    )
    content = {
        "format_version": FORMAT_VERSION,
        "rule": pooling.rule,
        "weights": list(pooling.weights),
        "members": listed,
        **_views_of(second_order, num_offsets),
    }
    (folder / ENSEMBLE_FILE).write_bytes(pretty(content))


def _copy(
    source: Path, target: Path, *, without: Sequence[str], without_endings: tuple[str, ...] = ()
) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in without and not file.name.endswith(without_endings):
            shutil.copyfile(file, target / file.name)


def refuse_unlike(members: Sequence[Bundle]) -> None:
    """Raise `BundleError` where members cannot answer as one, with what differs: they share all but their weights."""
    first, *others = members
    for other in others:
        for what, mine, theirs in (
            ("task", str(first.task), str(other.task)),
            ("labels", _names(first), _names(other)),
            ("tokenizer", first.tokenizer_fingerprint, other.tokenizer_fingerprint),
            ("max_length", first.default_max_length, other.default_max_length),
            ("is_pair", first.is_pair, other.is_pair),
            ("int_score", first.int_score, other.int_score),
        ):
            if mine != theirs:
                msg = (
                    f"{first.path} and {other.path} differ in {what}: {brief(mine)} and {brief(theirs)}; members share"
                    " task, label names, tokenizer, length and scale; leave one out, or train them alike"
                )
                raise BundleError(msg)


def _names(member: Bundle) -> list[str] | int:
    """The labels by name, in whatever order; how many outputs a regression has."""
    return len(member.labels) if member.task is Task.REGRESSION else sorted(member.labels)


def _read_pooling(file: Path, content: JsonObject) -> tuple[Pooling, list[tuple[str, str]]]:
    rule, weights, members = (content.get(name) for name in ("rule", "weights", "members"))
    if rule not in get_args(PoolingRule):
        raise _wrong(file, "rule", rule)
    listed = [_member(file, entry) for entry in (members if isinstance(members, list) else [])]
    if not 1 <= len(listed) <= MOST_MEMBERS:
        raise _wrong(file, "members", members)
    numbers = [float(each) for each in weights if is_number(each)] if isinstance(weights, list) else []
    if (
        len(numbers) != len(listed)
        or min(numbers) < 0
        or not math.isclose(sum(numbers), 1, abs_tol=_SUM_TOLERANCE)
    ):
        raise _wrong(file, "weights", weights)
    return Pooling(rule=cast("PoolingRule", rule), weights=tuple(numbers)), listed


def _read_second_order(file: Path, content: JsonObject, member: Bundle) -> SecondOrder | None:
    given = content.get("second_order")
    if given is None:
        return None
    if not isinstance(given, dict) or member.is_pair is False or member.task is not Task.SINGLE_LABEL:
        raise _wrong(file, "second_order", given)
    margin, num_first = given.get("margin"), given.get("num_middle_of_first")
    around = [given.get(name) for name in ("prefix", "middle", "suffix")]
    if (
        not (margin is None or (is_number(margin) and 0 <= float(margin) <= 1))
        or not (num_first is None or type(num_first) is int)
        or not all(isinstance(ids, list) and all(type(each) is int for each in ids) for ids in around)
        or not around[1]
    ):
        raise _wrong(file, "second_order", given)
    prefix, middle, suffix = (tuple(cast("list[int]", ids)) for ids in around)
    return SecondOrder(
        margin=None if margin is None else float(margin),
        prefix=prefix,
        middle=middle,
        suffix=suffix,
        num_middle_of_first=num_first,
    )


def _read_offsets(file: Path, content: JsonObject, member: Bundle) -> int:
    given = content.get("offsets", 1)
    if type(given) is not int or given < 1 or (given > 1 and (member.is_pair or "second_order" in content)):
        raise _wrong(file, "offsets", given)
    return given


def _member(file: Path, entry: object) -> tuple[str, str]:
    """Folder and fingerprint of a member; a folder elsewhere is none of the bundle's."""
    folder, fingerprint = (
        (entry.get("folder"), entry.get("fingerprint")) if isinstance(entry, dict) else (None, None)
    )
    if not isinstance(folder, str) or not isinstance(fingerprint, str):
        raise _wrong(file, "members", entry)
    if not folder.startswith(f"{MEMBERS_FOLDER}/") or ".." in folder:
        raise _wrong(file, "folder", folder)
    return folder, fingerprint


def _wrong(file: Path, name: str, value: object) -> BundleError:
    return BundleError(f"{file}: {name} is {brief(value)}, which is not an ensemble's; {_WAY_OUT}")
