"""One HTML file about an ensemble run: what rules and members found, and what more members buy."""

from collections.abc import Sequence
from dataclasses import dataclass

from assay import charts
from assay.ensemble.findings import LABEL_FREE, Findings, Share
from assay.ensemble.results import Stated
from assay.ensemble.settings import EnsembleSettings
from assay.pages import Facts, Figure, Section, Table, render_page
from assay.telemetry import format_duration, format_number_of


@dataclass(frozen=True, kw_only=True, slots=True)
class _EnsemblePage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    highlights: Facts
    warnings: tuple[str, ...]
    sections: list[Section]
    created: str


def render(settings: EnsembleSettings, stated: Stated, found: Findings, notes: Sequence[str]) -> bytes:
    """The page, as UTF-8."""
    page = _EnsemblePage(
        title="An ensemble on puzzles",
        subtitle=f"{format_number_of(found.total, 'puzzle')}, {format_number_of(found.num_members, 'member')}",
        highlights=[
            ("checked, needs no answers", _accuracy(found.rules["checked"])),
            (f"oracle pass@{found.num_members}", _accuracy(found.rules["any-correct"])),
            ("best member", _best(found)),
            (
                "passes a puzzle",
                f"{found.member_runs / found.total:.2f} of {found.num_members}" if found.total else "-",
            ),
        ],
        warnings=(*notes, *_warnings(found)),
        sections=[
            Section(
                title="What each rule finds",
                note=(
                    "A rule without labels may be deployed. An oracle looks at the answers to choose, so it says what"
                    " some rule could reach at the most. Intervals are of 95% (Wilson)."
                ),
                table=_rules(found),
            ),
            _curve(found),
            Section(title="Each member", note=_member_note(settings), table=_members(found)),
            Section(title="How it was made", facts=_made(settings, stated, found)),
        ],
        created=stated.ended.isoformat(timespec="seconds"),
    )
    return render_page("ensemble", page)


def _accuracy(share: Share) -> str:
    return "-" if share.accuracy is None else f"{share.accuracy:.2%}"


def _best(found: Findings) -> str:
    known = [member.right.accuracy for member in found.members if member.right.accuracy is not None]
    return f"{max(known):.2%}" if known else "-"


def _warnings(found: Findings) -> list[str]:
    failed = [
        f"{member.name} failed in {format_number_of(member.failed_batches, 'batch', 'batches')}"
        f" ({format_number_of(member.num_failed, 'puzzle')}): {member.error}"
        for member in found.failed
    ]
    if found.num_several:
        rows = format_number_of(found.num_several, "puzzle has", "puzzles have")
        failed.append(f"{rows} a grid that checks and is not the label: several solutions, or a wrong label")
    return failed


def _row(share: Share) -> tuple[str, ...]:
    low, high = share.interval or (0.0, 0.0)
    known = share.interval is not None
    return (
        f"{share.correct:,}",
        f"{share.total:,}",
        _accuracy(share),
        f"{low:.2%}" if known else "-",
        f"{high:.2%}" if known else "-",
    )


def _rules(found: Findings) -> Table:
    rows = [
        (name, "none" if name in LABEL_FREE else "the answers", *_row(share))
        for name, share in found.rules.items()
    ]
    if found.equal_cost is not None:
        count, share = found.equal_cost
        first = format_number_of(count, "member")
        rows.append((f"any-correct of the first {first} in full: the same cost", "the answers", *_row(share)))
    return Table(
        header=("rule", "labels it uses", "right", "puzzles", "accuracy", "low", "high"),
        rows=rows,
        numeric_from=2,
    )


def _members(found: Findings) -> Table:
    rows = [(member.name, *_row(member.right), f"{member.num_failed:,}") for member in found.members]
    return Table(
        header=("member", "right", "ran on", "accuracy", "low", "high", "failed"), rows=rows, numeric_from=1
    )


def _member_note(settings: EnsembleSettings) -> str:
    if settings.settled == "never":
        return "Each member ran on every puzzle."
    return (
        "Members in the order in which they ran. A member behind the first ran on what those before it had not settled,"
        " so its accuracy is of harder puzzles; --settled never runs all of them on all."
    )


def _curve(found: Findings) -> Section:
    caption = "Share of puzzles that one of k members gets right, by k"
    lines = [
        charts.Line(
            name="in the order given",
            x=list(range(1, len(found.in_order) + 1)),
            y=[share.accuracy or 0.0 for share in found.in_order],
        )
    ]
    if found.pass_at_k:
        ks = [each.k for each in found.pass_at_k]
        lines += [
            charts.Line(name="over all orders", x=ks, y=[each.value for each in found.pass_at_k]),
            charts.Line(name="low", x=ks, y=[each.low for each in found.pass_at_k]),
            charts.Line(name="high", x=ks, y=[each.high for each in found.pass_at_k]),
        ]
    svg = charts.line_chart(
        caption, lines, x_label="members, and so passes a puzzle", y_label="share right", y_range=(0.0, 1.0)
    )
    rows = [
        (f"{k}", *(_row(share)[2:]), *_chance(found, k)) for k, share in enumerate(found.in_order, start=1)
    ]
    over_all = ("over all orders", "low", "high") if found.pass_at_k else ()
    return Section(
        title="What more members buy",
        note=(
            "Oracle pass@k. Over all orders: 1 - C(n - c, k) / C(n, k) for a puzzle that c of n members get right,"
            " with intervals from resamples of the puzzles. Where puzzles have one solution, checking grids reaches"
            " the same without answers."
        ),
        figures=[Figure(caption=caption, svg=svg)],
        table=Table(header=("members", "in this order", "low", "high", *over_all), rows=rows),
        folded="Figures of the curve",
    )


def _chance(found: Findings, k: int) -> tuple[str, ...]:
    if not found.pass_at_k:
        return ()
    if k > len(found.pass_at_k):
        return ("-", "-", "-")
    each = found.pass_at_k[k - 1]
    return f"{each.value:.2%}", f"{each.low:.2%}", f"{each.high:.2%}"


def _made(settings: EnsembleSettings, stated: Stated, found: Findings) -> Facts:
    return [
        ("data", f"{settings.data}, split {settings.split}"),
        ("checkpoints", ", ".join(settings.checkpoint_paths)),
        ("views of each", f"{settings.permutes}, {settings.views}"),
        ("noise", f"{settings.noise_seeds} of deviation {settings.noise:g}" if settings.noise else "none"),
        ("settled", settings.settled),
        ("steps", "as trained" if settings.num_steps is None else f"{settings.num_steps}"),
        ("precision", stated.precision),
        ("batches", f"{len(found.batches):,} of {stated.batch_size:,} puzzles"),
        ("passes", f"{found.member_runs:,} of {found.total * found.num_members:,} in full"),
        ("time of all batches", format_duration(sum(batch.time_seconds for batch in found.batches))),
        ("pairs of members that agree", "-" if found.agreement is None else f"{found.agreement:.1%}"),
        ("run", f"{stated.run_url} ({stated.run_id})"),
    ]
