"""`assay train`: labelled rows to a bundle."""

from assay.cli.flags import stdout
from assay.cli.verb import INTERRUPTED, Verb, say
from assay.train.settings import TrainSettings


def run(settings: TrainSettings) -> int:
    """Fine-tune a classifier, with progress on stderr, and say how it went and what comes next.

    Of the processes that a launcher started the first alone speaks.
    """
    import os

    from assay.train.checkpoints import training_folder, way_out
    from assay.train.display import TrainDisplay
    from assay.train.distributed import find_place
    from assay.train.plan import plan
    from assay.train.report import REPORT_FILE
    from assay.train.train import train

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
    stdout(
        f"next: look at {report.out / REPORT_FILE}; assay calibrate {settings.out} DATA; "
        f"assay evaluate {settings.out} DATA"
    )
    return 0


VERB = Verb(
    settings=TrainSettings,
    run=run,
    example="example: assay train train.toml --out model/",
    config="positional",
)
