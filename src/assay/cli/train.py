"""`assay train`: labelled rows to a bundle."""

import shlex
from dataclasses import fields

from assay.cli.flags import stdout
from assay.cli.verb import Verb, say
from assay.exits import INTERRUPTED
from assay.garbage import not_collecting
from assay.labelled.settings import LabelledSources
from assay.train.settings import TrainSettings


def run(settings: TrainSettings) -> int:
    """Fine-tune a classifier, with progress on stderr, and say how it went and what comes next.

    Of the processes that a launcher started the first alone speaks.
    """
    import os

    from assay.data.arrow_alone import leave_pandas_out

    leave_pandas_out()
    with not_collecting():
        from assay.fleet.training import plan, train
        from assay.train.checkpoints import training_folder, way_out
        from assay.train.display import TrainDisplay
        from assay.train.report import REPORT_FILE
        from assay.train.world import find_place

    place = find_place(os.environ)
    if settings.dry_run:
        if place is None or place.rank == 0:
            stdout(str(plan(settings)))
        return 0
    if place is not None and place.rank > 0:
        train(settings)
        return 0
    try:
        with TrainDisplay(settings.chosen_by) as display:
            report = train(settings, on_progress=display.update, on_message=say, on_phase=display.phase)
    except KeyboardInterrupt:
        say(f"interrupted: {way_out(training_folder(settings.out))}")
        return INTERRUPTED
    stdout(str(report))
    further = f"{settings.out} DATA{row_flags(settings)}"
    stdout(f"next: look at {report.out / REPORT_FILE}; assay calibrate {further}; assay evaluate {further}")
    return 0


def row_flags(settings: TrainSettings) -> str:
    """The flags by which other commands read rows like those of the training; empty where the defaults do."""
    given = {
        field.name.replace("_", "-"): getattr(settings, field.name)
        for field in fields(LabelledSources)
        if getattr(settings, field.name) != field.default
    }
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items())


VERB = Verb(
    settings=TrainSettings,
    run=run,
    example="example: assay train train.toml --out model/",
    config="positional",
)
