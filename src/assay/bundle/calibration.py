"""The calibration files of a bundle: `calibration.json` and `style_calibration.json`, read and written."""

import math
from pathlib import Path
from typing import cast, get_args

from assay.bundle.description import FORMAT_VERSION, check_version, pretty
from assay.bundle.publish import storage_errors
from assay.data.syncing import replace_local
from assay.errors import BundleError
from assay.model.checkpoint import JsonObject, brief, is_number, read_json
from assay.outcome.calibration import Calibration, Curve
from assay.tasks import Method, Task

CALIBRATION_FILE = "calibration.json"
STYLE_CALIBRATION_FILE = "style_calibration.json"


def load_style_calibration(folder: Path) -> Calibration | None:
    """The map in a bundle's `style_calibration.json` or its parent's; `None` where there is none.

    Such a file maps the cosine similarity of two documents' embeddings to the probability that they
    belong together: hand both to `outcome.maps.map_scores`. It says nothing of the logits of a head,
    so a bundle is not calibrated by it.
    """
    file = _beside_or_above(folder, STYLE_CALIBRATION_FILE)
    if file is None:
        return None
    content = read_json(file, missing="copy the bundle again")
    return read_style_map(file, content.get("style_calibration"), content.get("meta"))


def read_style_map(file: Path, fitted: object, meta: object) -> Calibration:
    """The map that a `style_calibration` in `file` stands for; raises BundleError for one that cannot be applied."""
    if not isinstance(fitted, dict) or fitted.get("method") not in {"logistic", "isotonic"}:
        msg = (
            f"{file}: style_calibration {brief(fitted)}; it needs the method logistic or isotonic;"
            " calibrate again"
        )
        raise BundleError(msg)
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
        **parameters(calibration),
        "threshold": calibration.threshold,
        "opt_metric": calibration.opt_metric,
        "selection_metrics": dict(calibration.selection_metrics),
        "meta": dict(calibration.meta),
    }
    if calibration.provenance:
        content["provenance"] = dict(calibration.provenance)
    file = folder / CALIBRATION_FILE
    with storage_errors(file):
        replace_local(file, pretty(content))
    return file


def find_calibration(folder: Path) -> tuple[Calibration | None, tuple[str, ...]]:
    """The calibration of the bundle in a folder, `None` where there is none, and what to say of where it lies.

    The file lies beside the weights or else in the parent folder; there it counts only where the
    parent is not a bundle itself. Raises `BundleError` for a file that cannot be applied as it stands.
    """
    file = _beside_or_above(folder, CALIBRATION_FILE)
    if file is None:
        return None, ()
    if file.parent == folder:
        return _read_calibration(file), ()
    if not {"method", "temperature"} & read_json(file, missing="").keys():
        # A file of that name that calibrates something else: it is not ours to refuse.
        return None, ()
    return _read_calibration(file), (f"{file}: the calibration is taken from the parent folder",)


def style_notes(folder: Path) -> tuple[str, ...]:
    """What to say of a `style_calibration.json` that lies with a classifier, whose scores it does not touch."""
    style = _beside_or_above(folder, STYLE_CALIBRATION_FILE)
    if style is None:
        return ()
    return (f"{style}: for assay compare: it maps numbers of documents, not logits, so scores do not use it",)


def _beside_or_above(folder: Path, name: str) -> Path | None:
    """The file in the folder, or in its parent where that is not a bundle of its own."""
    if (folder / name).exists():
        return folder / name
    above = folder.absolute().parent
    return above / name if (above / name).is_file() and not (above / "config.json").exists() else None


def _read_calibration(file: Path) -> Calibration:
    content = read_json(file, missing="run assay calibrate")
    check_version(file, content)
    if not {"method", "temperature", "threshold"} & content.keys():
        msg = (
            f"{file}: {brief(sorted(content))} without method, temperature or threshold; it calibrates nothing;"
            " run assay calibrate again, or move the file away"
        )
        raise BundleError(msg)
    method = content.get("method", "temperature")
    if method not in get_args(Method):
        msg = (
            f"{file}: method {method!r}; this release applies {', '.join(get_args(Method))}; "
            "install a newer assay or calibrate again"
        )
        raise BundleError(msg)
    temperature = content.get("temperature", 1.0)
    if not is_number(temperature) or not 0 < temperature < math.inf:
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
    if not is_number(half_width) or half_width < 0 or not is_number(coverage) or not 0 < coverage < 1:
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
    numbers = tuple(float(each) for each in many if is_number(each))
    if len(numbers) < len(many):
        msg = f"{file}: {name} {brief(value)}; it must be finite numbers; run assay calibrate again"
        raise BundleError(msg)
    return numbers


def _steps(file: Path, value: object) -> tuple[Curve, ...]:
    found = []
    for entry in value if isinstance(value, list) else [value]:
        x, y = (entry.get("x"), entry.get("y")) if isinstance(entry, dict) else (None, None)
        xs, ys = _flat_numbers(file, "isotonic x", x), _flat_numbers(file, "isotonic y", y)
        rises = list(xs) == sorted(xs) and list(ys) == sorted(ys)
        if not xs or len(xs) != len(ys) or not rises or not (ys[0] >= 0 and ys[-1] <= 1):
            msg = (
                f"{file}: isotonic x {brief(x)}, y {brief(y)}; both must be rising lists of one length, y"
                " from 0 to 1; run assay calibrate again"
            )
            raise BundleError(msg)
        found.append(Curve(x=xs, y=ys))
    return tuple(found)


def parameters(calibration: Calibration) -> dict[str, object]:
    """What a method has besides the temperature, as JSON values; {} for a temperature alone."""
    values: dict[str, object] = {
        "scale": list(calibration.scale),
        "bias": list(calibration.bias),
        "isotonic": [{"x": list(each.x), "y": list(each.y)} for each in calibration.steps],
        "half_width": calibration.half_width,
        "coverage": calibration.coverage,
    }
    return {name: value for name, value in values.items() if value not in (None, [])}


def check_calibration(
    folder: Path, calibration: Calibration | None, task: Task, labels: tuple[str, ...]
) -> None:
    """Raise `BundleError` for a calibration that these outputs cannot have."""
    if calibration is None:
        return
    file = folder / CALIBRATION_FILE
    if isinstance(calibration.threshold, tuple) and len(calibration.threshold) != len(labels):
        msg = (
            f"{file}: {len(calibration.threshold)} thresholds for {len(labels)} labels;"
            " one a label is needed; run assay calibrate again"
        )
        raise BundleError(msg)
    # a regression's temperature is 1: a file that says no more than that is harmless
    fitting = sorted({"temperature", *task.calibration_methods(len(labels))})
    if calibration.method not in fitting:
        msg = (
            f"{file}: method {calibration.method!r} for {len(labels)} outputs of a {task} bundle; it takes"
            f" {', '.join(fitting)}; run assay calibrate again"
        )
        raise BundleError(msg)
    _check_counts(file, calibration, wanted=task.num_curves(calibration.method, len(labels)))


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
    if not many or not all(is_number(each) and 0 <= each <= 1 for each in many):
        msg = (
            f"{file}: threshold {brief(value)}; it must be a probability or a list of them; "
            "run assay calibrate again"
        )
        raise BundleError(msg)
    thresholds = tuple(float(each) for each in many if is_number(each))
    return thresholds if isinstance(value, list) else thresholds[0]


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {str(name): float(number) for name, number in value.items() if is_number(number)}
