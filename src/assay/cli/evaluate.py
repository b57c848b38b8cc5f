"""`assay evaluate`: how good a bundle is on labelled rows."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.evaluate.settings import EvaluateSettings


def run(settings: EvaluateSettings) -> int:
    """Evaluate a bundle, or several, and print the metrics."""
    from assay.evaluate.display import EvaluateDisplay
    from assay.evaluate.evaluate import evaluate
    from assay.evaluate.findings import to_json_text

    with EvaluateDisplay("evaluate") as display:
        report = evaluate(settings, on_progress=display.update)
    stdout(to_json_text(report) if settings.json else str(report))
    return 0


VERB = Verb(
    settings=EvaluateSettings,
    run=run,
    example="example: assay evaluate model/ test.parquet --out evaluation.html",
)
