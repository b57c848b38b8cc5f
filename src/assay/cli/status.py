"""`assay status`: where a run stands."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.errors import UsageError
from assay.exits import INTERRUPTED
from assay.garbage import not_collecting
from assay.score.pricing import Pricing
from assay.settings import positional, within

if TYPE_CHECKING:
    from assay.runs.status import Status

EVERY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class StatusSettings(Pricing):
    """Which run to look at, and how."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run."""
    json: bool = False
    """Print one JSON object instead of a line for people; with --watch one a look."""
    watch: bool = False
    """Look again and again, and show more, until the run is complete or Ctrl-C is pressed."""
    every_seconds: float | None = field(default=None, metadata=within(at_least=0.1, at_most=86_400))
    """Between two looks of --watch, by default 5; more where a look takes long."""
    html: str | None = None
    """Write a page to this file; with --watch again at each look, and a browser reloads it."""

    def check(self) -> None:
        """A price has to be shown somewhere, and one look has no other after it."""
        if self.every_seconds is not None and not self.watch:
            raise UsageError("every_seconds is for --watch; add it, or leave it out")
        if self.price_per_hour is not None and not (self.watch or self.html):
            raise UsageError("price_per_hour is shown by --watch and --html alone; add one, or leave it out")

    @property
    def seconds_between(self) -> float:
        """Between two looks."""
        return EVERY_SECONDS if self.every_seconds is None else self.every_seconds


def run(settings: StatusSettings) -> int:
    """Print where a run stands, once or until it is complete."""
    if settings.html is not None:
        from assay.runs.pages import refuse_own_file

        refuse_own_file(settings.run, settings.html, "html")
    return _watch(settings) if settings.watch else _look(settings)


def _look(settings: StatusSettings) -> int:
    from assay.runs.status import status

    with not_collecting():  # of 100,000 units and parts nothing is garbage before the end
        found = status(settings.run)
        stdout(json.dumps(found.to_json()) if settings.json else str(found))
        _write(settings, found)
    return 0


def _watch(settings: StatusSettings) -> int:
    from assay.runs.watch.watch import terminal, watch

    try:
        shown = (
            nullcontext(_print_json) if settings.json else terminal(price_per_hour=settings.price_per_hour)
        )
        with shown as draw:

            def show(found: "Status | None", problem: str) -> None:
                draw(found, problem)
                if found is not None and not problem:
                    _write(settings, found)

            watch(settings.run, every_seconds=settings.seconds_between, show=show)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _print_json(found: "Status | None", problem: str) -> None:
    stdout(json.dumps({"problem": problem} if problem or found is None else found.to_json()))


def _write(settings: StatusSettings, found: "Status") -> None:
    if settings.html is not None:
        from assay.runs.watch.watch import write_page

        write_page(
            found,
            settings.run,
            settings.html,
            price_per_hour=settings.price_per_hour,
            refresh_seconds=settings.seconds_between if settings.watch else None,
        )


VERB = Verb(
    settings=StatusSettings, run=run, example="example: assay status run/ --watch --price-per-hour 0.7"
)
