"""`assay ensemble build`: several classifiers to one bundle, calibrated after pooling, measured on test rows once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np

from assay._version import __version__
from assay.bundle.bundle import Bundle
from assay.bundle.description import Description, write_description
from assay.bundle.ensemble import Ensemble, join_members, read_ensemble, refuse_unlike, write_ensemble
from assay.bundle.folders import is_siamese
from assay.bundle.load import load_bundle
from assay.bundle.publish import check_out, publish_folder
from assay.bundle.texts import refuse_other_texts
from assay.calibrate.calibrate import calibrate_rows
from assay.calibrate.disjoint import refuse_seen
from assay.calibrate.settings import CalibrateSettings
from assay.data.storage import replace_file
from assay.engine.expected import operations_per_token
from assay.ensemble.build_report import render
from assay.ensemble.choose import Targets, choose_members, row_losses
from assay.ensemble.compare_rules import OrderFigures, RuleFigures, compare_orders, compare_rules
from assay.ensemble.measure import (
    Measured,
    OtherWay,
    PooledRows,
    measure,
    other_orders,
    pooled_values,
)
from assay.ensemble.plan import short_names
from assay.ensemble.second_order import (
    SecondOrderFigures,
    as_deployed,
    fitted_margin,
    second_order_figures,
)
from assay.ensemble.settings import BuildSettings
from assay.ensemble.soup import greedy_soup
from assay.errors import BundleError, UsageError
from assay.evaluate.measure import Resampling
from assay.labelled.labels import generic_names, to_targets
from assay.labelled.provenance import HashArray, HashKind, packed_provenance, seen_hashes
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.metrics import FloatArray
from assay.model.checkpoint import JsonObject, brief
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_link
from assay.outcome.orders import SecondOrder
from assay.outcome.pooling import Pooling, PoolingRule, equal_weights
from assay.score.bundles import encoder_of, engine_of, scorer_of
from assay.score.labelled import labelled_logits
from assay.settings import shared
from assay.tasks import Task

_KINDS: tuple[HashKind, ...] = ("text", "id", "group")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """What `ensemble_build` did."""

    out: str
    names: tuple[str, ...]
    """The members that are in it."""
    left_out: tuple[str, ...]
    """Members that `max_loss` left out."""
    rule: str
    best: str | None
    """The member that did best on the validation rows; None without any."""
    calibration: Calibration | None
    measured: Measured | None
    """None without test rows."""
    other_ways: tuple[OtherWay, ...]
    """What the same passes buy otherwise, on the test rows."""
    rules: tuple[RuleFigures, ...]
    """Each rule on the test rows, where each has one label."""
    orders: tuple[OrderFigures, ...]
    """What swapping the two texts does, where the test rows are pairs."""
    second_order: SecondOrder | None
    """When the bundle reads pairs with their texts swapped too."""
    second_orders: tuple[SecondOrderFigures, ...]
    """What leaving that out where the first order decides comes to, on validation and on test rows."""
    num_offsets: int
    """Offsets of the windows of long documents that each member answers to."""
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The bundle and its figures, for people."""
        lines = [f"wrote {self.out}: {self.rule} of {len(self.names)} members, {', '.join(self.names)}"]
        if self.num_offsets > 1:
            lines.append(f"  each reads long documents at {self.num_offsets} offsets of their windows")
        if self.left_out:
            lines.append(f"  left out as of no use on the validation rows: {', '.join(self.left_out)}")
        if self.calibration is not None:
            lines.append(f"  calibrated after pooling: {self.calibration.method}")
        if self.measured is not None:
            lines += _figures(self.measured) + _other_lines(self.other_ways)
            lines += _rule_lines(self.rules) + _order_lines(self.orders)
        if self.second_order is not None and self.second_order.margin is not None:
            lines.append(
                f"  pairs whose labels are within {self.second_order.margin:.4f} are read with their texts swapped too"
            )
        lines += [f"  {each}" for each in self.second_orders]
        return "\n".join(lines)


def ensemble_build(settings: BuildSettings) -> BuildResult:
    """Writes the bundle `settings.out`, whole or not at all.

    Raises `BundleError` for members that cannot answer as one, `UsageError` where `out` holds something, `InputError`
    where validation or test rows were part of a training, or of both.
    """
    out = Path(settings.out)
    check_out(out, overwrite=settings.overwrite)
    members = open_members(settings)
    names = short_names([member.path for member in members])
    if settings.rule == "soup":
        return _build_soup(settings, members, names)
    pooling = Pooling(rule=cast("PoolingRule", settings.rule), weights=settings.member_weights)
    whole = join_members(members[0].path, members, pooling, provenance=joined_provenance(members))
    validation, test = (_read(settings, whole, data) for data in (settings.validation, settings.test))
    notes = dict.fromkeys(() if validation is None else refuse_seen(whole, validation))
    if test is not None:
        notes |= dict.fromkeys(refuse_seen(whole, test, so="figures of them would be too good"))
    whole = replace(whole, num_offsets=settings.offsets)
    encoder_of(whole, settings)  # refuses more offsets than there are
    asked = _second_order(settings, whole)
    best, kept = None, list(range(len(members)))
    orders, second_orders = asked, list[SecondOrderFigures]()
    if validation is not None:
        logits_KNC, targets = _logits(settings, whole, validation, orders=asked)
        first_MNC, second_MNC = logits_KNC[: len(members)], logits_KNC[len(members) :]
        best, kept = _choose(settings, whole, logits_KNC, targets)
        if len(kept) < len(members):
            pooling = replace(pooling, weights=equal_weights(len(kept)))
        if asked is not None:
            first_MNC, second_MNC = first_MNC[kept], second_MNC[kept]
            if settings.second_order == "unsure":
                margin = fitted_margin(first_MNC, second_MNC, pooling, max_changed=settings.max_changed)
                orders = replace(asked, margin=margin)
            second_orders.append(
                second_order_figures("validation", first_MNC, second_MNC, targets, pooling, orders or asked)
            )
    chosen = [members[k] for k in kept]
    with publish_folder(out, overwrite=settings.overwrite) as folder:
        write_ensemble(folder, chosen, pooling, orders, settings.offsets)
        write_description(folder, _description(settings, chosen, names, kept))
        bundle = read_ensemble(folder)
        if validation is not None:
            bundle = _calibrate(settings, bundle, validation, test)
        on_test = (
            None if test is None else _measure(settings, bundle, [names[k] for k in kept], test, kept, best)
        )
    if on_test is not None and on_test.second_order is not None:
        second_orders.append(on_test.second_order)
    result = BuildResult(
        out=settings.out,
        names=tuple(names[k] for k in kept),
        left_out=tuple(name for k, name in enumerate(names) if k not in kept),
        rule=settings.rule,
        best=None if best is None else names[best],
        calibration=bundle.calibration,
        measured=None if on_test is None else on_test.measured,
        other_ways=() if on_test is None else on_test.other_ways,
        rules=() if on_test is None else on_test.rules,
        orders=() if on_test is None else on_test.orders,
        second_order=orders,
        second_orders=tuple(second_orders),
        num_offsets=settings.offsets,
        notes=tuple(notes),
    )
    if settings.report is not None:
        assert result.measured is not None, "a report is of test rows"
        page = render(
            settings,
            result.names,
            result.measured,
            result.other_ways,
            result.rules,
            result.orders,
            result.second_orders,
            result.calibration,
            result.notes,
        )
        replace_file(settings.report, page)
    return result


def _build_soup(settings: BuildSettings, members: Sequence[Bundle], names: Sequence[str]) -> BuildResult:
    """One classifier whose weights are the mean of those of members that help on the validation rows."""
    whole = join_members(
        members[0].path,
        members,
        Pooling(rule="mean", weights=equal_weights(len(members))),
        provenance=joined_provenance(members),
    )
    rows = _read(settings, whole, settings.validation)
    assert rows is not None, "a soup has validation rows"
    notes = refuse_seen(whole, rows)

    def loss_of(folder: Path) -> float:
        one = replace(load_bundle(folder), calibration=None)
        alone = join_members(folder, [one], Pooling(rule="mean", weights=(1.0,)))
        logits_MNC, targets = _logits(settings, alone, rows)
        values_NC = apply_link(logits_MNC[0], one.task)
        return float(row_losses(values_NC, targets, one.task.link).mean())

    with publish_folder(Path(settings.out), overwrite=settings.overwrite) as folder:
        kept, _ = greedy_soup(members, folder, loss_of)
        write_description(folder, _description(settings, [members[k] for k in kept], names, kept))
    return BuildResult(
        out=settings.out,
        names=tuple(names[k] for k in kept),
        left_out=tuple(name for k, name in enumerate(names) if k not in kept),
        rule="soup",
        best=None,
        calibration=None,
        measured=None,
        other_ways=(),
        rules=(),
        orders=(),
        second_order=None,
        second_orders=(),
        num_offsets=1,
        notes=notes,
    )


def open_members(settings: BuildSettings) -> list[Bundle]:
    """The members, without their calibrations; refused where they are not alike, or one is there twice."""
    members = []
    for path in settings.member_paths:
        if is_siamese(path):
            raise BundleError(f"{path} is Siamese; an ensemble is of classifiers; name one")
        members.append(replace(load_bundle(path), calibration=None))
    refuse_unlike(members)
    weights = [_weights(member) for member in members]
    for k, each in enumerate(weights):
        if each in weights[:k]:
            first = members[weights.index(each)].path
            raise UsageError(
                f"{members[k].path} holds the weights of {first}; each member counts once: name it once"
            )
    return members


def _weights(member: Bundle) -> list[tuple[str, bytes]]:
    """What tells its weights from others."""
    found = []
    for file in member.checkpoint.weights:
        with file.open("rb") as content:
            found.append((file.name, hashlib.file_digest(content, "sha256").digest()))
    return found


def joined_provenance(members: Sequence[Bundle]) -> JsonObject:
    """What any member has seen, by role, in the shape of a bundle's provenance, and what each is."""
    hashes: dict[HashKind, dict[str, HashArray]] = {}
    for kind in _KINDS:
        for member in members:
            for role, seen in seen_hashes(member.provenance, kind).items():
                held = hashes.setdefault(kind, {}).get(role)
                hashes[kind][role] = seen if held is None else np.union1d(held, seen)
    return {
        **packed_provenance(hashes),
        "members": [{"folder": member.path.name, "fingerprint": member.fingerprint} for member in members],
    }


def _description(
    settings: BuildSettings, members: Sequence[Bundle], names: Sequence[str], kept: Sequence[int]
) -> Description:
    first = members[0]
    return Description(
        assay_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=first.task.value,
        labels=first.labels,
        max_length=first.default_max_length,
        is_pair=bool(first.is_pair),
        provenance={
            **joined_provenance(members),
            "rule": settings.rule,
            "names": [names[k] for k in kept],
        },
        int_score=first.int_score,
    )


def _read(settings: BuildSettings, bundle: Bundle, data: Sequence[str]) -> LabelledRows | None:
    if not data:
        return None
    refuse_other_texts(bundle, are_pairs=settings.text_pair_column is not None)
    return read_labelled(data, settings, task=bundle.task)


def _logits(
    settings: BuildSettings, bundle: Ensemble, rows: LabelledRows, *, orders: SecondOrder | None = None
) -> tuple[FloatArray, Targets]:
    """The members' raw logits [M, N, C], labels in the ensemble's order, and the targets.

    `orders`: read every pair in both orders; the logits are then [2 M, N, C], all of the first order first. Of an
    ensemble with offsets they are [K * M, N, C], all of the first offset first.
    """
    bundle = replace(bundle, second_order=None if orders is None else replace(orders, margin=None))
    labels = rows.labels if bundle.task is Task.REGRESSION else generic_names(rows.labels, bundle.labels)
    targets = np.asarray(to_targets(labels, bundle.task, bundle.labels))
    engine = engine_of(
        bundle, device=settings.device, precision=settings.precision, num_threads=settings.num_threads
    )
    scorer = scorer_of(
        bundle,
        engine,
        encoder_of(bundle, settings),
        device=settings.device,
        max_batch_tokens=settings.max_batch_tokens,
    )
    logits = labelled_logits(scorer, rows, of_members=True).logits_NC
    shape = (rows.num_rows, len(bundle.members) * bundle.num_views, len(bundle.labels))
    return np.moveaxis(logits.reshape(shape), 1, 0).astype(np.float64), targets


def _second_order(settings: BuildSettings, bundle: Ensemble) -> SecondOrder | None:
    """That every pair is read in both orders, where settings ask for a second one at all."""
    if settings.second_order == "never":
        return None
    if bundle.is_pair is False or bundle.task is not Task.SINGLE_LABEL:
        raise BundleError(
            f"{bundle.members[0].path} is not a classifier of pairs with one label each; leave --second-order out"
        )
    around = encoder_of(bundle, settings).pair_special_tokens
    if around is None:
        raise BundleError(
            f"{bundle.path}: its tokenizer follows no template for pairs, so texts cannot be swapped; leave"
            " --second-order out"
        )
    return SecondOrder(
        margin=None,
        prefix=around.prefix,
        middle=around.middle,
        suffix=around.suffix,
        num_middle_of_first=around.num_middle_of_first,
    )


def _choose(
    settings: BuildSettings, bundle: Ensemble, logits_KNC: FloatArray, targets: Targets
) -> tuple[int, list[int]]:
    """On the validation rows, the member that does best by itself, in one view, and the members to keep.

    Members are chosen by what they say of all offsets together, or of the first order.
    """
    task, num_members = bundle.task, len(bundle.members)
    link = task.link
    values_MNC = np.stack([apply_link(logits_NC, task) for logits_NC in logits_KNC[:num_members]])
    losses = [row_losses(values_NC, targets, link).mean() for values_NC in values_MNC]
    kept = list(range(num_members))
    if settings.max_loss is not None:
        if bundle.num_offsets > 1:
            alone = Pooling(rule=bundle.pooling.rule, weights=(1.0,)).of_views(bundle.num_offsets)
            each = [pooled_values(logits_KNC[m::num_members], alone, task) for m in kept]
            values_MNC = np.stack(each)
        kept, _ = choose_members(values_MNC, targets, link, max_loss=settings.max_loss, seed=settings.seed)
    return int(np.argmin(losses)), kept


def _calibrate(
    settings: BuildSettings, bundle: Ensemble, validation: LabelledRows, test: LabelledRows | None
) -> Ensemble:
    """The bundle with a calibration of its pooled outputs, as `assay calibrate` fits it by default."""
    chosen = CalibrateSettings(
        bundle=str(bundle.path), data=settings.validation, **shared(settings, CalibrateSettings)
    )
    engine = engine_of(
        bundle, device=settings.device, precision=settings.precision, num_threads=settings.num_threads
    )
    calibrate_rows(chosen, bundle, engine, validation, test)
    return read_ensemble(bundle.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class _OnTest:
    """What the test rows show."""

    measured: Measured
    other_ways: tuple[OtherWay, ...]
    rules: tuple[RuleFigures, ...]
    orders: tuple[OrderFigures, ...]
    second_order: SecondOrderFigures | None


def _measure(
    settings: BuildSettings,
    bundle: Ensemble,
    names: Sequence[str],
    test: LabelledRows,
    kept: Sequence[int],
    best: int | None,
) -> _OnTest:
    asked, pooling = bundle.second_order, bundle.pooling
    logits_KNC, targets = _logits(settings, bundle, test, orders=asked)
    num_passes = None
    if bundle.num_offsets > 1:
        num_passes = _passes(logits_KNC, bundle.num_offsets)
        names = at_offsets(names, bundle.num_offsets)
        pooling = pooling.of_views(bundle.num_offsets)
    logits_MNC = logits_KNC[: len(names)]
    swapped_MNC, second = None, None
    if asked is not None:
        swapped_MNC = logits_KNC[len(names) :]
        logits_KNC = as_deployed(logits_MNC, swapped_MNC, pooling, asked)
        second = second_order_figures("test", logits_MNC, swapped_MNC, targets, pooling, asked)
    elif test.text_pairs is not None:
        swapped = replace(test, texts=test.text_pairs, text_pairs=test.texts)
        swapped_MNC, _ = _logits(settings, bundle, swapped)
    draws = Resampling(
        num_resamples=settings.resamples, method="percentile", confidence=0.95, seed=settings.seed
    )
    measured = measure(
        names,
        logits_KNC,
        targets,
        bundle.task,
        pooling,
        calibration=bundle.calibration,
        best=kept.index(best) if best in kept else None,
        num_passes=num_passes,
        draws=draws,
    )
    rules = compare_rules(logits_MNC, targets, bundle.task, pooling.weights, draws=draws)
    orders: tuple[OrderFigures, ...] = ()
    pooled = PooledRows(
        values_NC=pooled_values(logits_KNC, pooling.of_views(len(logits_KNC) // len(names)), bundle.task),
        targets=targets,
        task=bundle.task,
        num_passes=measured.pooled.num_members,
    )
    other_ways = _against(settings, bundle, test, pooled, draws)
    if swapped_MNC is not None:
        orders = compare_orders(names, logits_MNC, swapped_MNC, targets, bundle.task, pooling, draws=draws)
        num_orders = 1 if asked is None else 2
        ways = other_orders(pooled, logits_MNC, swapped_MNC, pooling, num_orders, draws)
        other_ways = (*ways, *other_ways)
    return _OnTest(measured=measured, other_ways=other_ways, rules=rules, orders=orders, second_order=second)


def _against(
    settings: BuildSettings, bundle: Ensemble, test: LabelledRows, pooled: PooledRows, draws: Resampling
) -> tuple[OtherWay, ...]:
    """Other classifiers on the test rows, each with its cost in passes of a member.

    Raises `BundleError` for one of another task or with other labels, `InputError` where it has seen the rows.
    """
    member_cost = operations_per_token(bundle.checkpoint.config)
    found = []
    for path in settings.against:
        other = replace(load_bundle(path), calibration=None)
        is_alike = other.task is bundle.task and len(other.labels) == len(bundle.labels)
        if not is_alike or (bundle.task.is_classifier and set(other.labels) != set(bundle.labels)):
            raise BundleError(
                f"{path} is a {other.task} model of {brief(list(other.labels))}, {settings.out} would be a"
                f" {bundle.task} one of {brief(list(bundle.labels))}; --against takes models with the same labels"
            )
        refuse_other_texts(other, are_pairs=settings.text_pair_column is not None)
        refuse_seen(other, test, so="figures of them would be too good")
        alone = join_members(other.path, [other], Pooling(rule="mean", weights=(1.0,)))
        logits_MNC, targets = _logits(settings, alone, test)
        cost = operations_per_token(other.checkpoint.config) / member_cost
        values_NC = apply_link(logits_MNC[0], other.task)
        found.append(pooled.less(short_names([other.path])[0], [values_NC], cost, draws, targets))
    return tuple(found)


def at_offsets(names: Sequence[str], num_offsets: int) -> list[str]:
    """Names of the members at each offset of their windows, in parts of the way from one window to the next."""
    return [f"{name} +{k}/{num_offsets}" if k else name for k in range(num_offsets) for name in names]


def _passes(logits_KNC: FloatArray, num_offsets: int) -> float:
    """How often a document is read on average, by all members: once each where it fits into one window."""
    first_MNC, *others = logits_KNC.reshape(num_offsets, -1, *logits_KNC.shape[1:])
    is_long_N = np.any([(each != first_MNC).any(axis=(0, 2)) for each in others], axis=0)
    return len(first_MNC) * (1 + (num_offsets - 1) * float(is_long_N.mean()))


def _figures(measured: Measured) -> list[str]:
    rows = [*measured.members, measured.pooled, *([measured.calibrated] if measured.calibrated else [])]
    metrics = list(measured.pooled.values)
    width = max(len(row.name) for row in rows)
    lines = [
        f"  {measured.num_rows:,} test rows {'':{max(0, width - 14)}}"
        + "  ".join(f"{name:>8}" for name in metrics)
    ]
    lines += [
        f"  {row.name:{width}}  " + "  ".join(f"{row.values[name]:8.4f}" for name in metrics) for row in rows
    ]
    for each in measured.differences:
        shown = ", ".join(
            f"{name} {value:+.4f}" + _ends(each.intervals[name].low, each.intervals[name].high)
            for name, value in each.values.items()
        )
        lines.append(f"  pooled less {each.against}: {shown}")
    return lines


def _other_lines(ways: Sequence[OtherWay]) -> list[str]:
    return [
        f"  pooled less {each.figures.name}, {each.figures.num_members:.3g} passes: "
        + ", ".join(
            f"{name} {value:+.4f}"
            + _ends(each.difference.intervals[name].low, each.difference.intervals[name].high)
            for name, value in each.difference.values.items()
        )
        for each in ways
    ]


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:+.4f} to {high:+.4f})"


def _rule_lines(rules: Sequence[RuleFigures]) -> list[str]:
    lines = []
    for each in rules:
        figures = [] if each.accuracy is None else [f"accuracy {each.accuracy:.4f}"]
        figures += [] if each.auc is None else [f"AUC {each.auc:.4f}"]
        figures += [each.note] if each.note else []
        lines.append(f"  {each.rule:<12} {'; '.join(figures)}")
    return ["  the same rows by rule:", *(f"  {line}" for line in lines)] if lines else []


def _order_lines(orders: Sequence[OrderFigures]) -> list[str]:
    return [
        f"  texts swapped, {each.name}: {each.changed:.2%} of labels change"
        f"{_ends(each.changed_interval.low, each.changed_interval.high)}; accuracy {each.accuracy:.4f}, swapped"
        f" {each.accuracy_swapped:.4f}, mean of both {each.accuracy_both:.4f}"
        for each in orders
    ]
