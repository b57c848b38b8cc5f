"""The verbs: a settings class each, and a function that calls one room and prints what came of it.

Rooms are imported inside the functions, so that `assay --help` and a wrong flag answer at once.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from assay.calibrate.settings import CalibrateSettings
from assay.cli.flags import stdout
from assay.errors import CheckError
from assay.evaluate.settings import EvaluateSettings
from assay.score.bench_settings import BenchSettings
from assay.score.settings import ScoreSettings
from assay.serve.settings import ServeSettings
from assay.telemetry import ProgressDisplay, format_count, format_duration, format_number_of
from assay.tokenize.settings import TokenizeSettings
from assay.train.settings import TrainSettings

INTERRUPTED = 130
"""Exit status of a training that was stopped."""


def positional(metavar: str) -> dict[str, Any]:
    """Field metadata: given by place, not by flag."""
    return {"positional": True, "metavar": metavar}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One command."""

    name: str
    settings: type
    run: Callable[[Any], int]
    """Takes the settings, prints, returns the exit status."""
    summary: str
    """One line for the overview."""
    example: str
    """Shown below the flags."""
    config: Literal["none", "flag", "positional"] = "none"
    """Whether a TOML or YAML file may hold the settings, and how it is given."""


# ------------------------------------------------------------ settings of the small verbs


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartSettings:
    """Where the quickstart works."""

    directory: str = field(default="quickstart", metadata=positional("DIR"))
    """Directory for the bundle, the run, the merged corpus and the report [quickstart]."""
    devices: str = "auto"
    """`auto`, or how many: GPUs where there are any, worker processes otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusSettings:
    """Which run to look at."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    json: bool = False
    """Print one JSON object instead of a line for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifySettings:
    """Which run to prove."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    check_sources: bool = False
    """Read the ids of the sources again too and compare them."""
    duplicates: bool = False
    """Count the ids that occur more than once (reads all ids, in bounded memory)."""
    json: bool = False
    """Print one JSON object instead of lines for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeSettings:
    """Which run to merge, and where to."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    out: str
    """Directory or URL for the merged files; one for each source."""
    columns: tuple[str, ...] = ()
    """Columns of the parts to add; all of them by default."""
    prefix: str = ""
    """Put before the name of each added column, where a source has that name already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSettings:
    """Which run to report on."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    out: str | None = None
    """The HTML file; by default report.html in the run."""
    price_per_hour: float | None = None
    """Price of one worker's device for an hour, for the cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorSettings:
    """What to examine."""

    bundle: str | None = None
    """A bundle to load too: says which engine runs it, and why not a faster one."""
    json: bool = False
    """Print one JSON object instead of lines for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionSettings:
    """Which shell to write completion for."""

    shell: str = field(metadata=positional("SHELL"))
    """bash, zsh or tcsh."""


# ------------------------------------------------------------ the verbs


def run_quickstart(settings: QuickstartSettings) -> int:
    """Fine-tune, calibrate, score, verify, merge and report on real embedded data."""
    from assay.quickstart import quickstart

    stdout(str(quickstart(settings.directory, devices=settings.devices, on_message=_say)))
    return 0


def run_tokenize(settings: TokenizeSettings) -> int:
    """Tokenize, with progress on stderr, and say what came of it."""
    from assay.runs.placement import describe_plan
    from assay.tokenize.verb import tokenize

    with ProgressDisplay("tokenize") as display:
        result = tokenize(settings, on_progress=display.update, on_message=_say)
    stdout(
        describe_plan(result.manifest, result.run_url, result.placement)
        if result.outcome is None
        else f"tokenized into {result.run_url}: {_figures(result.outcome)}"
    )
    return 0


def run_score(settings: ScoreSettings) -> int:
    """Score, with progress on stderr, and say what came of it and what comes next."""
    from assay.runs.placement import describe_plan
    from assay.score.verb import score

    with ProgressDisplay("score") as display:
        result = score(settings, on_progress=display.update, on_message=_say)
    if result.outcome is None:
        stdout(describe_plan(result.manifest, result.run_url, result.placement))
        return 0
    stdout(f"scored into {result.run_url}: {_figures(result.outcome)}")
    for description in result.outcome.descriptions:
        stdout(f"engine: {description}")
    stdout(
        f"next: assay verify {settings.run}; assay merge {settings.run} --out DIR; assay report {settings.run}"
    )
    return 0


def run_status(settings: StatusSettings) -> int:
    """Print where a run stands."""
    from assay.runs.status import status

    found = status(settings.run)
    stdout(json.dumps(found.to_json()) if settings.json else str(found))
    return 0


def run_verify(settings: VerifySettings) -> int:
    """Print the proof that a run is whole; status 1 where it is not."""
    from assay.runs.verify import require, verify

    proof = verify(settings.run, sources=settings.check_sources, duplicates=settings.duplicates)
    stdout(json.dumps(proof.to_json()) if settings.json else str(proof))
    require(proof)
    return 0


def run_merge(settings: MergeSettings) -> int:
    """Merge the parts back onto the sources."""
    from assay.score.merge import merge

    stdout(str(merge(settings.run, settings.out, columns=settings.columns or None, prefix=settings.prefix)))
    return 0


def run_report(settings: ReportSettings) -> int:
    """Write the HTML report."""
    from assay.score.report import report

    stdout(str(report(settings.run, out=settings.out, price_per_hour=settings.price_per_hour)))
    return 0


def run_bench(settings: BenchSettings) -> int:
    """Measure the bundle on a sample and print figures and estimate."""
    from assay.score.bench import bench

    report = bench(settings, on_message=_say)
    stdout(json.dumps(report.to_json()) if settings.json else str(report))
    return 0


def run_train(settings: TrainSettings) -> int:
    """Fine-tune a classifier, with progress on stderr, and say how it went and what comes next.

    Of the processes that a launcher started the first alone speaks.
    """
    import os

    from assay.train.checkpoints import training_folder, way_out
    from assay.train.display import TrainDisplay
    from assay.train.distributed import find_place
    from assay.train.train import train

    place = find_place(os.environ)
    if place is not None and place.rank > 0:
        train(settings)
        return 0
    try:
        with TrainDisplay(settings.chosen_by) as display:
            report = train(settings, on_progress=display.update, on_message=_say)
    except KeyboardInterrupt:
        _say(f"interrupted: {way_out(training_folder(settings.out))}")
        return INTERRUPTED
    stdout(str(report))
    stdout(
        f"next: look at {report.out / 'train_report.html'}; assay calibrate {settings.out} DATA; "
        f"assay evaluate {settings.out} DATA"
    )
    return 0


def run_calibrate(settings: CalibrateSettings) -> int:
    """Fit a temperature and say what it changed."""
    from assay.calibrate.calibrate import calibrate

    stdout(str(calibrate(settings)))
    return 0


def run_evaluate(settings: EvaluateSettings) -> int:
    """Evaluate a bundle, or two, and print the metrics."""
    from assay.evaluate.evaluate import evaluate
    from assay.evaluate.findings import to_json_text

    report = evaluate(settings)
    stdout(to_json_text(report) if settings.json else str(report))
    return 0


def run_serve(settings: ServeSettings) -> int:
    """Serve until told to stop; what happens is said on stderr."""
    from assay.serve.verb import serve

    serve(settings, on_message=_say)
    return 0


def run_doctor(settings: DoctorSettings) -> int:
    """Print versions, devices, memory and what falls back to a slower path; status 1 on a problem."""
    from assay.cli.doctor import examine

    findings = examine(settings.bundle)
    stdout(json.dumps(findings.to_json()) if settings.json else str(findings))
    if findings.problems:
        raise CheckError(findings.problems[0])
    return 0


def run_completion(settings: CompletionSettings) -> int:
    """Print the completion script of a shell."""
    from assay.cli.completion import completion_script

    stdout(completion_script(settings.shell))
    return 0


def _say(line: str) -> None:
    import sys

    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _figures(outcome: Any) -> str:  # noqa: ANN401  runs is imported lazily
    counters = outcome.counters
    units = format_number_of(outcome.units_total, "unit")
    published = f"{outcome.units_found + outcome.units_published:,} of {units} published"
    if not outcome.units_published:
        return published
    rate = counters.rows / outcome.seconds if outcome.seconds > 0 else 0.0
    tokens = counters.tokens / outcome.seconds if outcome.seconds > 0 else 0.0
    waste = 1 - counters.tokens / counters.padded_tokens if counters.padded_tokens else 0.0
    parts = [
        published,
        f"{format_count(counters.rows)} docs now in {format_duration(outcome.seconds)}",
        f"{format_count(rate)} docs/s, {format_count(tokens)} tokens/s, {waste:.1%} padding",
        f"first worker ready after {outcome.ready_seconds:.1f} s",
    ]
    if (idle := outcome.idle_share) is not None:
        parts.append(f"devices idle {idle:.1%} of the time")
    if counters.error_rows:
        parts.append(f"{format_number_of(counters.error_rows, 'row')} got an error code")
    if counters.duplicate_rows:
        parts.append(
            f"{format_number_of(counters.duplicate_rows, 'duplicate was', 'duplicates were')} run once"
        )
    return "; ".join(parts)


VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(
            name="quickstart",
            settings=QuickstartSettings,
            run=run_quickstart,
            summary="Fine-tune, calibrate, score, verify, merge and report on real embedded data.",
            example="example: assay quickstart my-first-run",
        ),
        Verb(
            name="tokenize",
            settings=TokenizeSettings,
            run=run_tokenize,
            summary="Turn text into token ids once, for many scoring runs.",
            example="example: assay tokenize 'corpus/*.parquet' --bundle model/ --run tokens/",
            config="flag",
        ),
        Verb(
            name="score",
            settings=ScoreSettings,
            run=run_score,
            summary="Score every row of the sources into a run; the same command again goes on.",
            example="example: assay score 'corpus/*.parquet' --bundle model/ --run run/",
            config="flag",
        ),
        Verb(
            name="status",
            settings=StatusSettings,
            run=run_status,
            summary="Say where a run stands, while it runs and from any machine.",
            example="example: assay status run/ --json",
        ),
        Verb(
            name="verify",
            settings=VerifySettings,
            run=run_verify,
            summary="Prove that every row of a run is there exactly once.",
            example="example: assay verify run/ --check-sources",
        ),
        Verb(
            name="merge",
            settings=MergeSettings,
            run=run_merge,
            summary="Put the scores back onto their sources, every id checked.",
            example="example: assay merge run/ --out scored/",
        ),
        Verb(
            name="report",
            settings=ReportSettings,
            run=run_report,
            summary="Write one HTML file about a run that a person can look at.",
            example="example: assay report run/ --out report.html --price-per-hour 2.5",
        ),
        Verb(
            name="train",
            settings=TrainSettings,
            run=run_train,
            summary="Fine-tune a classifier on labelled rows: a label a row, several, or a number.",
            example="example: assay train train.toml --out model/",
            config="positional",
        ),
        Verb(
            name="calibrate",
            settings=CalibrateSettings,
            run=run_calibrate,
            summary="Fit probabilities, thresholds or intervals of a bundle to held-out labelled rows.",
            example="example: assay calibrate model/ held-out.jsonl",
        ),
        Verb(
            name="evaluate",
            settings=EvaluateSettings,
            run=run_evaluate,
            summary="Say how good a bundle is on labelled rows, and how sure that is; compare two.",
            example="example: assay evaluate model/ test.parquet --out evaluation.html",
        ),
        Verb(
            name="bench",
            settings=BenchSettings,
            run=run_bench,
            summary="Measure a bundle on a sample of one's own documents; hours and cost of a corpus.",
            example="example: assay bench 'corpus/*.parquet' --bundle model/ --for-documents 160M",
        ),
        Verb(
            name="serve",
            settings=ServeSettings,
            run=run_serve,
            summary="Serve a bundle over HTTP: the same scores, batched and bounded; TEI clients too.",
            example="example: assay serve model/ --port 8000",
            config="flag",
        ),
        Verb(
            name="doctor",
            settings=DoctorSettings,
            run=run_doctor,
            summary="Say what this machine has, what runs where, and what is slower than it need be.",
            example="example: assay doctor --bundle model/",
        ),
        Verb(
            name="completion",
            settings=CompletionSettings,
            run=run_completion,
            summary="Print a shell's completion script.",
            example='example: eval "$(assay completion bash)"',
        ),
    )
}
