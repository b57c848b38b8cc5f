"""One HTML file about a training: curves, the chosen step, confusions, the worst-judged rows, how it was made.

It goes into the bundle as `train_report.html`. All that it says of quality is of the validation rows,
which chose the weights, so the figures are slightly optimistic.

Axes: N validation rows, C outputs.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay import charts, metrics
from assay.labelled.labels import Targets
from assay.metrics import TITLES, format_value
from assay.pages import Facts, Figure, Section, Table, confusion_section, regression_section, render_page
from assay.siamese.evidence_files import WeighedEvidence
from assay.tasks import Task
from assay.telemetry import format_duration, format_rate
from assay.train.datasets import Prepared
from assay.train.history import History, Validation, cost
from assay.train.settings import TrainSettings
from assay.train.speed import Effort

REPORT_FILE = "train_report.html"
POINTS = 200
"""Points of a curve at the most, evenly spread over the steps."""
SMOOTHED_SHARE = 0.04
"""A smoothed curve averages over about so much of the steps."""
LISTED_LABELS = 100
LISTED_VALIDATIONS = 100
WORST_ROWS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a page is made of."""

    settings: TrainSettings
    prepared: Prepared
    history: History
    best: Validation
    """The validation whose weights were saved."""
    logits_NC: NDArray[np.float32]
    """Of the saved weights on the validation rows."""
    targets: Targets
    """Of the validation rows."""
    num_steps: int
    """Steps that were planned."""
    num_truncated: int
    """Training rows that were cut at `max_length`."""
    num_devices: int
    device: str
    """What rank 0 trained on."""
    precision: str
    """Number format of the forward pass."""
    effort: Effort
    versions: Mapping[str, str]
    created: str
    evidence: WeighedEvidence | None = None
    """Siamese: what words and style say beside the network."""
    joined: Mapping[str, float] | None = None
    """Siamese: validation metrics of network and evidence together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _TrainingPage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    highlights: Facts
    warnings: tuple[str, ...]
    sections: list[Section]
    settings: Section
    """What was set; `defaults` was left as it is."""
    defaults: Facts
    versions: Section
    created: str


def render(trained: Trained) -> bytes:
    """The page, as UTF-8."""
    return render_page("train", _page(trained))


def _page(trained: Trained) -> _TrainingPage:
    settings, history = trained.settings, trained.history
    sections = [
        _learning(trained),
        _validations(trained),
        *(_regression(trained) if settings.predicts is Task.REGRESSION else _classes(trained)),
        _worst(trained),
        *_evidence(trained),
        _rows(trained),
        Section(title="Speed", facts=_speed(trained)),
    ]
    chosen, defaults = _settings(settings)
    stopped = len(history.losses) < trained.num_steps
    return _TrainingPage(
        title=f"{_last(settings.out)}, trained",
        subtitle=(
            f"{settings.task.replace('_', '-')} on {_last(settings.base)}; weights of step {trained.best.step:,} of "
            f"{len(history.losses):,}, chosen by {TITLES[settings.chosen_by]} on the validation rows"
            + (f"; stopped early, {trained.num_steps:,} steps were planned" if stopped else "")
        ),
        highlights=_highlights(trained),
        warnings=trained.prepared.warnings,
        sections=sections,
        settings=Section(title="Settings", facts=chosen),
        defaults=defaults,
        versions=Section(title="Versions", facts=list(trained.versions.items())),
        created=trained.created,
    )


def _highlights(trained: Trained) -> Facts:
    found = trained.best.metrics
    names = [name for name in trained.settings.predicts.best_by if name in found]
    return [
        *((TITLES[name], format_value(found[name])) for name in names),
        *(
            (f"{TITLES[name]}, with words", format_value(trained.joined[name]))
            for name in names
            if trained.joined
        ),
        ("training rows", f"{trained.prepared.train.num_rows:,}"),
        ("validation rows", f"{trained.prepared.validation.num_rows:,}"),
        ("time", format_duration(trained.history.seconds)),
    ]


def _evidence(trained: Trained) -> list[Section]:
    """What the evidence of words and style weighs: the change of the log-odds for a standard deviation of each."""
    if trained.evidence is None:
        return []
    combination, evidence = trained.evidence.combination, trained.evidence.evidence
    weights = sorted(
        zip(evidence.names, evidence.regression.weights, strict=True), key=lambda each: -abs(each[1])
    )
    facts = [(name.replace("_", " "), f"{weight:+.3f}") for name, weight in weights]
    return [
        Section(
            title="Words and style",
            note=(
                "What each piece of evidence adds to the log-odds for a standard deviation of the training pairs."
                f" The network's logit counts {combination.network:.3f} times, this evidence"
                f" {combination.evidence:.3f} times; both were fitted on the validation rows, so figures with words"
                " on those rows are a little too good."
            ),
            facts=facts,
        )
    ]


# ---------------------------------------------------------------- curves


def _learning(trained: Trained) -> Section:
    history = trained.history
    num_steps = len(history.losses)
    few = "" if num_steps <= POINTS else f" ({POINTS} of {num_steps:,} steps)"
    loss = f"Training loss{few}; dropout on"
    rate = "Learning rate"
    norm = f"Gradient norm before clipping{few}"
    norms = _raw_and_smoothed(history.gradient_norms)
    most = trained.settings.max_gradient_norm
    if max(history.gradient_norms, default=0.0) > most:
        norms.append(charts.Line(name=f"clipped above {most:g}", x=[1, num_steps], y=[most, most]))
    at = _spread(num_steps)
    return Section(
        title="Training",
        figures=[
            _figure(loss, _raw_and_smoothed(history.losses), "loss"),
            _figure(
                rate,
                [
                    charts.Line(
                        name=rate,
                        x=(at + 1).tolist(),
                        y=[history.learning_rates[step] for step in at.tolist()],
                    )
                ],
                "learning rate",
                from_zero=True,
            ),
            _figure(norm, norms, "norm", from_zero=True),
        ],
    )


def _raw_and_smoothed(values: Sequence[float]) -> list[charts.Line]:
    at = _spread(len(values))
    steps = (at + 1).tolist()
    raw = charts.Line(name="of a step", x=steps, y=[values[step] for step in at.tolist()], is_faint=True)
    span = SMOOTHED_SHARE * len(values)
    if span < 2:
        return [dataclasses.replace(raw, is_faint=False)]
    smooth = smoothed(values, span)
    return [charts.Line(name="smoothed", x=steps, y=[smooth[step] for step in at.tolist()]), raw]


def smoothed(values: Sequence[float], span: float) -> list[float]:
    """Exponential moving averages over about `span` values, corrected for their start (Kingma & Ba 2015, section 3).

    The first one is the first value itself, not a step up from zero.
    """
    keep = 1 - 2 / (span + 1)
    total, weight, found = 0.0, 0.0, []
    for value in values:
        total = keep * total + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        found.append(total / weight)
    return found


def _validations(trained: Trained) -> Section:
    settings, history, best = trained.settings, trained.history, trained.best
    shown = [name for name in settings.predicts.best_by if name in best.metrics]
    shown.sort(key=lambda name: name != settings.chosen_by)
    steps = [validation.step for validation in history.validations]
    figures = []
    for name in shown:
        lines = [
            charts.Line(
                name="validation", x=steps, y=[validation.metrics[name] for validation in history.validations]
            )
        ]
        caption = f"Validation rows: {TITLES[name]}"
        if name == "nll" and _loss_is_nll(settings):
            caption = "Validation rows: NLL, and mean training loss since the validation before"
            losses = [validation.train_loss for validation in history.validations]
            lines.append(charts.Line(name="training", x=steps, y=losses))
        figures.append(_figure(caption, lines, TITLES[name], metrics.range_of(name), chosen=best.step))
    names = list(best.metrics)
    ranked = sorted(history.validations, key=lambda each: cost(each, settings.chosen_by))
    listed = sorted(ranked[:LISTED_VALIDATIONS], key=lambda each: each.step)
    rows = [
        (
            f"{each.step:,}{' (chosen)' if each.step == best.step else ''}",
            f"{each.epoch:.2f}",
            format_value(each.train_loss),
            *(format_value(each.metrics[name]) for name in names),
        )
        for each in listed
    ]
    header = ("step", "epoch", "training loss", *(TITLES[name] for name in names))
    left_out = len(ranked) - len(listed)
    note = "These rows chose the weights, so the figures are slightly optimistic; run assay evaluate on other rows."
    return Section(
        title="Validation",
        note=note,
        figures=figures,
        table=Table(header=header, rows=rows),
        folded="All figures"
        if not left_out
        else f"All figures of the best {LISTED_VALIDATIONS} of {len(ranked):,}",
    )


def _loss_is_nll(settings: TrainSettings) -> bool:
    """Whether the training loss is the validation's NLL but for dropout."""
    return (
        settings.predicts is Task.SINGLE_LABEL
        and not settings.label_smoothing
        and settings.class_weights == "none"
    )


def _figure(
    caption: str,
    lines: list[charts.Line],
    y_label: str,
    y_range: tuple[float, float] = (0.0, math.inf),
    *,
    chosen: int | None = None,
    from_zero: bool = False,
) -> Figure:
    marks = [] if chosen is None else [charts.Mark(x=chosen, text="chosen")]
    svg = charts.line_chart(
        caption,
        lines,
        x_label="step",
        y_label=y_label,
        marks=marks,
        from_zero=from_zero,
        y_range=y_range,
    )
    return Figure(caption=caption, svg=svg)


def _spread(count: int) -> NDArray[np.int64]:
    """At most `POINTS` indices below `count`, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(max(count, 1), POINTS)).astype(np.int64))


# ---------------------------------------------------------------- classifiers


def _classes(trained: Trained) -> list[Section]:
    names = trained.prepared.names
    if trained.settings.predicts is Task.MULTI_LABEL:
        predicted_NC = trained.logits_NC >= 0
        return [_by_label(names, trained.targets > 0, predicted_NC)]
    predicted_N = trained.logits_NC.argmax(axis=1)
    classes = np.arange(len(names))
    matrix = metrics.confusion_matrix(trained.targets, predicted_N, len(names))
    return [
        confusion_section("Validation rows", names, matrix),
        _by_label(names, trained.targets[:, None] == classes, predicted_N[:, None] == classes),
    ]


def _by_label(names: Sequence[str], holds_NC: NDArray[np.bool_], predicted_NC: NDArray[np.bool_]) -> Section:
    hits_C = (holds_NC & predicted_NC).sum(axis=0)
    true_C, said_C = holds_NC.sum(axis=0), predicted_NC.sum(axis=0)
    rows = []
    for index in np.argsort(-true_C, kind="stable")[:LISTED_LABELS].tolist():
        hits, true, said = int(hits_C[index]), int(true_C[index]), int(said_C[index])
        rows.append(
            (
                names[index],
                f"{true:,}",
                f"{said:,}",
                _ratio(hits, said),
                _ratio(hits, true),
                _ratio(2 * hits, true + said),
            )
        )
    header = ("label", "rows", "predicted", "precision", "recall", "F1")
    left_out = len(names) - len(rows)
    note = f"The {len(rows)} most frequent of {len(names):,} labels." if left_out > 0 else ""
    return Section(title="By label", note=note, table=Table(header=header, rows=rows))


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else "undefined"


# ---------------------------------------------------------------- regression


def _regression(trained: Trained) -> list[Section]:
    values_N, targets_N = trained.logits_NC[:, 0], trained.targets
    sections = [regression_section("Validation rows", values_N, targets_N)]
    if trained.settings.int_score is not None:
        low, high = trained.settings.int_score
        true_N, said_N = (metrics.whole_scores(each, low, high) - low for each in (targets_N, values_N))
        names = [str(score) for score in range(low, high + 1)]
        matrix = metrics.confusion_matrix(true_N, said_N, len(names))
        sections.append(confusion_section("Validation rows", names, matrix))
    return sections


# ---------------------------------------------------------------- the worst rows


def _worst(trained: Trained) -> Section:
    settings, rows = trained.settings, trained.prepared.validation
    losses_N, is_wrong_N = _judged(trained)
    order = [row for row in np.argsort(-losses_N, kind="stable").tolist() if is_wrong_N[row]]
    is_regression = settings.predicts is Task.REGRESSION
    title = "Largest errors" if is_regression else "Worst classified"
    if not order:
        return Section(title=title, note="Every validation row is classified right.")
    header = ["row" if rows.ids is None else "id", "true", "predicted", "error" if is_regression else "NLL"]
    table = []
    for row in order[:WORST_ROWS]:
        cells = [
            str(row) if rows.ids is None else rows.ids[row],
            _truth(rows.labels[row]),
            _prediction(trained, row),
            f"{losses_N[row]:.3f}",
        ]
        table.append((*cells, rows.beginning(row)) if settings.report_texts else tuple(cells))
    wrong = int(is_wrong_N.sum())
    of_all = f" of the {wrong:,} wrong ones" if wrong > len(table) else ""
    note = "" if is_regression else f"{wrong:,} of {rows.num_rows:,} validation rows are classified wrong. "
    note += f"These {len(table):,}{of_all if not is_regression else ''} have the largest {header[3]}."
    if rows.ids is None:
        note += " Rows are counted from 0 among the validation rows."
    if not settings.report_texts:
        note += " Their texts are left out, as report_texts says."
    header += ["text"] if settings.report_texts else []
    return Section(
        title=title,
        note=note,
        table=Table(
            header=tuple(header), rows=table, numeric_from=len(header), is_wide=settings.report_texts
        ),
    )


def _judged(trained: Trained) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How bad each row is: its NLL (of multi-label the mean over labels) or absolute error; and whether it is wrong."""
    logits_NC, targets = trained.logits_NC.astype(np.float64), trained.targets
    if trained.settings.predicts is Task.REGRESSION:
        errors_N = np.abs(logits_NC[:, 0] - targets)
        return errors_N, np.ones(errors_N.size, dtype=np.bool_)
    if trained.settings.predicts is Task.MULTI_LABEL:
        signed_NC = np.where(targets > 0, -logits_NC, logits_NC)
        losses_N = np.logaddexp(0.0, signed_NC).mean(axis=1)
        return losses_N, ((logits_NC >= 0) != (targets > 0)).any(axis=1)
    rows = np.arange(len(logits_NC))
    return -metrics.log_softmax(logits_NC)[rows, targets], logits_NC.argmax(axis=1) != targets


def _truth(label: object) -> str:
    if isinstance(label, tuple):
        return ", ".join(label) or "none"
    return f"{label:.4g}" if isinstance(label, float) else str(label)


def _prediction(trained: Trained, row: int) -> str:
    logits_C, names = trained.logits_NC[row], trained.prepared.names
    if trained.settings.predicts is Task.REGRESSION:
        return f"{logits_C[0]:.4g}"
    if trained.settings.predicts is Task.MULTI_LABEL:
        return ", ".join(name for name, logit in zip(names, logits_C, strict=True) if logit >= 0) or "none"
    at = int(logits_C.argmax())
    return f"{names[at]} ({metrics.softmax(logits_C)[at]:.0%})"


# ---------------------------------------------------------------- rows, settings, speed


def _rows(trained: Trained) -> Section:
    split = trained.prepared.split
    num_rows = split.num_rows
    header: tuple[str, ...] = ("split", "rows")
    rows: list[tuple[str, ...]] = [(name, f"{size:,}") for name, size in num_rows.items()]
    if split.ranges:
        header = ("split", "rows", "least target", "mean", "greatest")
        rows = [
            (name, f"{num_rows[name]:,}", *(f"{value:.4g}" for value in found))
            for name, found in split.ranges.items()
        ]
    elif split.num_rows_by_label:
        header = ("label", *(f"{name}, {size:,} rows" for name, size in num_rows.items()))
        rows = [
            (label, *(f"{counts[name]:,} ({_share(counts[name], size)})" for name, size in num_rows.items()))
            for label, counts in list(split.num_rows_by_label.items())[:LISTED_LABELS]
        ]
    note = str(split).partition("\n")[0]
    if split.num_kept_together is not None:
        note += f"; {str(split).splitlines()[1]}"
    left_out = len(split.num_rows_by_label) - LISTED_LABELS
    if left_out > 0:
        note += f"; {left_out:,} rarer labels are not listed"
    return Section(title="Rows and labels", note=f"{note}.", table=Table(header=header, rows=rows))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _settings(settings: TrainSettings) -> tuple[Facts, Facts]:
    """What was set, and what was left as it is."""
    chosen: Facts = []
    defaults: Facts = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        fact = (each.name, _shown(value))
        (defaults if value == each.default else chosen).append(fact)
    return chosen, defaults


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _speed(trained: Trained) -> Facts:
    history = trained.history
    seconds = max(history.seconds, 1e-9)
    facts = [
        ("time, validations included", format_duration(history.seconds)),
        ("training rows a second", format_rate(history.num_rows / seconds)),
        ("tokens a second, padding left out", format_rate(history.num_tokens / seconds)),
        ("steps", f"{len(history.losses):,}"),
        ("tokens trained on", f"{history.num_tokens:,}"),
        (
            "training rows cut at max_length",
            f"{trained.num_truncated:,} of {trained.prepared.train.num_rows:,}",
        ),
        ("devices", f"{trained.num_devices} x {trained.device}"),
        ("number format", trained.precision),
    ]
    if (peak := trained.effort.peak_flops) is not None:
        used = history.num_tokens * trained.effort.flops_per_token / seconds / peak
        facts.append(("MFU: share of a measured matrix product", f"{used:.1%} of {peak / 1e12:,.0f} TFLOP/s"))
    return facts


def _last(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/").rpartition("/")[2] or path
