"""`style_calibration.json`: how likely two documents belong together by the number that compares them.

The three keys of R2's kind of file, `style_calibration`, `meta` and `selection`, hold the map for the documents of
most chunks; `by_num_chunks` has one for each number of chunks, and `bundle_fingerprint` says whose numbers they map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.bundle.calibration import STYLE_CALIBRATION_FILE, read_style_map
from assay.bundle.description import FORMAT_VERSION, check_version, pretty
from assay.bundle.publish import storage_errors
from assay.data.syncing import replace_local
from assay.errors import BundleError, RefusedError
from assay.model.checkpoint import JsonObject, brief, read_json
from assay.outcome.calibration import Calibration

AGAIN = "run assay style calibrate again"


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleMap:
    """A map for documents of so many chunks, and how it was chosen."""

    num_chunks: int
    """Of each of the two documents."""
    num_pairs: int
    """That it was fitted on."""
    map: Calibration
    """Logistic or isotonic: for `outcome.maps.map_scores`."""
    scores: Mapping[str, float]
    """What each method was chosen by, cross-validated: lower is better."""
    cross_validated: Mapping[str, float]
    """Metrics of the chosen method on rows that it was not fitted on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleCalibration:
    """The maps of a model."""

    bundle_fingerprint: str
    """Of the model whose numbers they map."""
    meta: Mapping[str, object]
    """How the numbers were made: `rules` of the documents, aggregate, label; and of what."""
    maps: tuple[StyleMap, ...]
    """At least one, of rising `num_chunks`."""

    def map_for(self, num_chunks: int) -> StyleMap:
        """That of the most chunks which both documents have, or of the fewest where both have fewer."""
        fitting = [each for each in self.maps if each.num_chunks <= num_chunks]
        return fitting[-1] if fitting else self.maps[0]

    def refuse_others(self, file: Path, bundle: Path, fingerprint: str, rules: Mapping[str, object]) -> None:
        """Raise RefusedError where the model, or how numbers are made of its documents, is another."""
        if fingerprint != self.bundle_fingerprint:
            raise RefusedError(
                f"{file} was fitted for another model than {bundle}, or before it was calibrated; {AGAIN}, or give"
                " another --calibration"
            )
        for name, value in rules.items():
            fitted = self.meta.get(name)
            if fitted != value:
                raise RefusedError(
                    f"{name} is {value}; {file} was fitted with {fitted}; set it so, or {AGAIN} with {value}"
                )


def find_style_calibration(bundle: Path, asked: str | None) -> Path | None:
    """The file that was asked for, else the one in the bundle's folder; None where there is none."""
    file = bundle / STYLE_CALIBRATION_FILE if asked is None else Path(asked)
    return None if asked is None and not file.is_file() else file


def read_style_calibration(file: Path) -> StyleCalibration:
    """What `write_style_calibration` wrote; BundleError for a file that is missing, damaged or names no model."""
    content: dict[str, Any] = dict(read_json(file, missing=AGAIN))
    check_version(file, content)
    fingerprint, meta, entries = (
        content.get(name) for name in ("bundle_fingerprint", "meta", "by_num_chunks")
    )
    if not isinstance(fingerprint, str) or not isinstance(meta, dict):
        raise BundleError(f"{file} does not say which model it was fitted for; {AGAIN}")
    if not isinstance(entries, list) or not entries:
        raise BundleError(f"{file}: by_num_chunks {brief(entries)}; it must be a list of maps; {AGAIN}")
    maps = [_read_map(file, entry) for entry in entries]
    return StyleCalibration(
        bundle_fingerprint=fingerprint,
        meta=meta,
        maps=tuple(sorted(maps, key=lambda each: each.num_chunks)),
    )


def write_style_calibration(file: Path, calibration: StyleCalibration) -> None:
    """Writes or replaces the file in one step."""
    most = calibration.maps[-1]
    content = {
        "format_version": FORMAT_VERSION,
        "style_calibration": _map_content(most.map),
        "meta": {"n_samples": most.num_pairs, "num_chunks": most.num_chunks, **calibration.meta},
        "selection": _selection(most),
        "bundle_fingerprint": calibration.bundle_fingerprint,
        "by_num_chunks": [
            {
                "num_chunks": each.num_chunks,
                "n_samples": each.num_pairs,
                "style_calibration": _map_content(each.map),
                "selection": _selection(each),
                "cross_validated": dict(each.cross_validated),
            }
            for each in calibration.maps
        ],
    }
    with storage_errors(file):
        replace_local(file, pretty(content))


def _map_content(fitted: Calibration) -> JsonObject:
    if fitted.method == "isotonic":
        (curve,) = fitted.steps
        return {"method": "isotonic", "x_thresholds": list(curve.x), "y_values": list(curve.y)}
    return {"method": "logistic", "coef": fitted.scale[0], "intercept": fitted.bias[0]}


def _selection(fitted: StyleMap) -> JsonObject:
    return {"scores": dict(fitted.scores), "chosen": fitted.map.method}


def _read_map(file: Path, entry: object) -> StyleMap:
    found: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    num_chunks, num_pairs = found.get("num_chunks"), found.get("n_samples")
    if type(num_chunks) is not int or num_chunks < 1 or type(num_pairs) is not int:
        raise BundleError(f"{file}: num_chunks {brief(num_chunks)}; it must be a number from 1 on; {AGAIN}")
    selection = found.get("selection")
    scores = selection.get("scores") if isinstance(selection, dict) else None
    measured = found.get("cross_validated")
    return StyleMap(
        num_chunks=num_chunks,
        num_pairs=num_pairs,
        map=read_style_map(file, found.get("style_calibration"), None),
        scores=scores if isinstance(scores, dict) else {},
        cross_validated=measured if isinstance(measured, dict) else {},
    )


def describe(maps: Sequence[StyleMap]) -> list[str]:
    """A line a map."""
    return [
        f"  {each.num_chunks:>3} chunks: {each.num_pairs:,} pairs, {each.map.method}; cross-validated "
        + ", ".join(f"{name} {value:.4f}" for name, value in each.cross_validated.items())
        for each in maps
    ]
