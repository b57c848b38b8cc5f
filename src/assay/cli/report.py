"""`assay report`: one HTML file about a run."""

from dataclasses import dataclass, field

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.score.pricing import Pricing
from assay.settings import positional


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Pricing):
    """Which run to report on."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    out: str | None = None
    """The HTML file; by default report.html in the run."""


def run(settings: ReportSettings) -> int:
    """Write the HTML report."""
    from assay.score.report.report import report

    stdout(str(report(settings.run, out=settings.out, price_per_hour=settings.price_per_hour)))
    return 0


VERB = Verb(
    settings=ReportSettings,
    run=run,
    example="example: assay report run/ --out report.html --price-per-hour 2.5",
)
