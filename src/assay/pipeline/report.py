"""What a pipeline did, for people: a few lines, and one HTML page that leads through the steps to their own reports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from assay.metrics import TITLES
from assay.pages import Facts, Section, Table, render_page
from assay.pipeline.figures import SHOWN
from assay.pipeline.plan import SPLITS, Plan
from assay.telemetry import format_duration

Made = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineReport:
    """What came of all steps."""

    plan: Plan
    made: Made
    """What each step made, by its name; `test` has the figures."""
    looks_at_test: int
    """Of how many different models the test rows were scored in this folder."""
    created: str

    @property
    def test(self) -> Mapping[str, Mapping[str, Mapping[str, float | None]]]:
        """Metrics on the test rows by model (`cross`, `siamese`, `cascade`): `value`, `low`, `high` of each."""
        models: Mapping[str, Mapping[str, Mapping[str, float | None]]] = self.made["test"]["models"]
        return models

    def __str__(self) -> str:
        """The splits, the figures on the test rows, and where everything is."""
        test, plan = self.made["test"], self.plan
        lines = [self.made["splits"]["said"], _looked(self)]
        of_languages = {f"of {name}": each["models"] for name, each in test["languages"].items()}
        for where, models in {"": self.test, **of_languages}.items():
            for name, figures in models.items():
                shown = ", ".join(f"{TITLES[metric]} {_figure(figures, metric)}" for metric in SHOWN[:2])
                lines.append(f"{f'{name} {where}':16}{shown}" if where else f"{name:10}{shown}")
        cascade = f"{test['share']:.1%} of the test pairs reach {plan.cross_model().name}; recall {test['recall']:.4f}"
        wrote = f"wrote {plan.siamese_model}, {plan.cross_model()}, {plan.cascade}; the page: {plan.report}"
        return "\n".join([*lines, cascade, *(f"note: {note}" for note in test["notes"]), wrote])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A section, and links to what it is about."""

    section: Section
    links: list[tuple[str, str]] = field(default_factory=list)
    """Words, and a path beside the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _PipelinePage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    highlights: Facts
    warnings: tuple[str, ...]
    parts: list[_Part]
    created: str


def render(report: PipelineReport) -> bytes:
    """The page, as UTF-8."""
    made, test = report.made, report.made["test"]
    cascade = report.test["cascade"]
    page = _PipelinePage(
        title="From books to a cascade",
        subtitle=(
            f"{made['pairs']['books']:,} books by {made['pairs']['authors']:,} authors,"
            f" {made['pairs']['chunks']:,} chunks"
        ),
        highlights=[
            ("AUC of the cascade, test", _value(cascade, "auc")),
            ("accuracy, test", _value(cascade, "accuracy")),
            ("reach the cross-encoder", f"{test['share']:.1%}"),
            ("recall, test", f"{test['recall']:.4f}"),
        ],
        warnings=tuple(test["notes"]),
        parts=list(_parts(report)),
        created=report.created,
    )
    return render_page("pipeline", page)


def _parts(report: PipelineReport) -> Iterator[_Part]:
    plan, made = report.plan, report.made
    yield _Part(
        section=Section(
            title="On the test rows",
            note=(
                f"{_looked(report)} {made['test']['num_pairs']:,} pairs; in brackets 95% intervals, for which authors"
                f" are drawn with replacement ({made['test']['num_authors'] or 0:,} of them)."
            ),
            table=_test_table(report),
        ),
        links=[
            ("evaluation of both models", plan.evaluation.name),
            ("answers of the cascade", plan.answers.name),
        ],
    )
    if made["test"]["languages"]:
        yield _Part(section=_languages_section(made["test"]["languages"]))
    yield _Part(
        section=Section(title="Splits", note=f"{made['splits']['said']}.", table=_split_table(report)),
        links=[],
    )
    for name, facts in made.items():
        if "files" in facts:
            yield _pairs_part(name, facts)
    for number in range(1, plan.settings.rounds + 1):
        yield _model_part(plan.cross_model(number).name, "reads both passages together", made)
    yield _model_part("siamese", "reads each passage by itself", made)
    if "calibrate documents" in made:
        yield _documents_part(made["calibrate documents"])
    yield _cascade_part(made["cascade"])


def _looked(report: PipelineReport) -> str:
    times = report.looks_at_test
    if times == 1:
        return "The test rows were scored once, after all else was decided."
    return (
        f"The test rows were scored for {times} different cascades in this folder: where figures on them had a part in"
        " what was changed, they are too good."
    )


def _test_table(report: PipelineReport) -> Table:
    rows = [(name, *(_figure(figures, metric) for metric in SHOWN)) for name, figures in report.test.items()]
    return Table(header=("model", *(TITLES[metric] for metric in SHOWN)), rows=rows)


def _languages_section(languages: Mapping[str, Mapping[str, Any]]) -> Section:
    rows = [
        (language, f"{each['num_pairs']:,}", model, *(_figure(figures, metric) for metric in SHOWN))
        for language, each in languages.items()
        for model, figures in each["models"].items()
    ]
    header = ("language", "pairs", "model", *(TITLES[metric] for metric in SHOWN))
    return Section(
        title="On the test rows of each language",
        note="A pair is of one language. Probabilities and thresholds are the same for all of them.",
        table=Table(header=header, rows=rows, numeric_from=3),
    )


def _split_table(report: PipelineReport) -> Table:
    counts, splits = report.made["splits"]["counts"], report.made["pairs"]["splits"]
    rows = [
        (
            split,
            what,
            f"{counts[split]['authors']:,}",
            f"{counts[split]['books']:,}",
            f"{splits[split]['pairs']:,}",
            f"{splits[split]['positives']:,}",
        )
        for split, what in SPLITS.items()
    ]
    header = ("split", "what for", "authors", "books", "pairs", "positive")
    return Table(header=header, rows=rows, numeric_from=2)


def _pairs_part(name: str, facts: Mapping[str, Any]) -> _Part:
    return _Part(
        section=Section(
            title=f"Pairs: {name}",
            facts=[
                ("took", format_duration(facts["seconds"])),
                *((f"negatives, {split}", _kinds(each)) for split, each in facts["splits"].items()),
            ],
        ),
        links=[("report.json", f"{name}/report.json")],
    )


def _kinds(split: Mapping[str, Any]) -> str:
    return ", ".join(f"{kind} {number:,}" for kind, number in split["negatives_by_kind"].items()) or "none"


def _model_part(name: str, what: str, made: Made) -> _Part:
    trained, calibrated = made[name], made.get(f"calibrate {name}")
    links = [("training", f"{name}/train_report.html")]
    facts = [
        ("trained in", format_duration(trained["seconds"])),
        ("training pairs", f"{trained['num_train_rows']:,}"),
        ("weights of step", f"{trained['best_step']:,} of {trained['num_steps']:,}"),
        *(
            (f"validation {TITLES.get(key, key)}", f"{value:.4f}")
            for key, value in trained["validation"].items()
        ),
    ]
    if calibrated is not None:
        links.append(("calibration", f"{name}/calibration.json"))
        before, after = calibrated["before"], calibrated["cross_validated"]
        facts += [
            (
                f"{TITLES[key]}, calibration rows",
                f"{before[key]:.4f} before, {after[key]:.4f} cross-validated",
            )
            for key in ("nll", "brier", "ece")
            if key in before and key in after
        ]
        facts += [("note", note) for note in calibrated["notes"]]
    return _Part(section=Section(title=f"Model: {name}", note=f"It {what}.", facts=facts), links=links)


def _documents_part(facts: Mapping[str, Any]) -> _Part:
    rows = [
        (f"{each['chunks']}", f"{each['pairs']:,}", *(f"{each[key]:.4f}" for key in ("auc", "brier", "ece")))
        for each in facts["maps"]
    ]
    note = (
        "What assay compare says of two documents, by the number of chunks that both have. Pairs of the calibration"
        " split, cross-validated by author; not the test rows."
    )
    header = ("chunks", "pairs", *(TITLES[key] for key in ("auc", "brier", "ece")))
    return _Part(
        section=Section(title="Documents", note=note, table=Table(header=header, rows=rows, numeric_from=0)),
        links=[("calibration of documents", "siamese/style_calibration.json")],
    )


def _cascade_part(facts: Mapping[str, Any]) -> _Part:
    return _Part(
        section=Section(
            title="Cascade",
            note="On the pairs that it was tuned on.",
            facts=[
                ("recall, at least", f"{facts['recall_bound']:.4f}"),
                ("reach the cross-encoder", f"{facts['share']:.1%}"),
                ("cost over the cross-encoder alone", f"{facts['cost']:.1%}"),
                *(("note", note) for note in facts["notes"]),
            ],
        ),
        links=[("curve of thresholds", "cascade.html")],
    )


def _value(figures: Mapping[str, Mapping[str, float | None]], metric: str) -> str:
    value = figures[metric]["value"]
    return "undefined" if value is None else f"{value:.4f}"


def _figure(figures: Mapping[str, Mapping[str, float | None]], metric: str) -> str:
    low, high = (figures[metric][end] for end in ("low", "high"))
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{_value(figures, metric)}{interval}"
