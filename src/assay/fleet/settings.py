"""What a user may set for commands of fleets. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field, fields
from typing import Literal

from assay.data.settings import SourceFormat, Texts
from assay.engine.precision import DeviceKind
from assay.engine.settings import CpuThreads, EngineSettings
from assay.errors import UsageError
from assay.runs.settings import RayAddress
from assay.score.pricing import Pricing
from assay.settings import AUTO_OR_COUNT, COUNT, positional, within
from assay.tokenize.settings import LongDocuments


@dataclass(frozen=True, kw_only=True)
class JoinSettings(CpuThreads, RayAddress):
    """Help with a run that another command created, until it is whole."""

    run: str = field(metadata=positional("RUN"))
    """Directory or URL of the run: bundle, settings and sources are those of its plan."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """How many GPUs, or worker processes where there are none or the run needs none."""
    executor: Literal["local", "ray"] = "local"
    """Workers here; ray: on a Ray cluster."""
    rank: int | None = field(default=None, metadata=within(at_least=0))
    """Rank of this machine, from 0, for a share of its own to begin with; by default from the environment."""
    world_size: int | None = field(default=None, metadata=COUNT)
    """How many machines there are; by default from the environment."""


@dataclass(frozen=True, kw_only=True)
class EstimateSettings(Texts, SourceFormat, LongDocuments, EngineSettings, CpuThreads, Pricing):
    """Say what a scoring run will take, from a sample of it that is run for real."""

    sources: tuple[str, ...] = field(default=(), metadata=positional("SOURCE"))
    """Files, folders, globs or URLs to score; or the run of `assay tokenize`."""
    bundle: str | None = None
    """The classifier; needed with sources."""
    run: str | None = None
    """Run to put the estimate into, whose report compares it with what came of it."""
    workers: int | None = field(default=None, metadata=within(at_least=1, at_most=10_000))
    """Devices of the run, on as many machines as it takes; by default those of this machine."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """GPUs to measure on, or worker processes where there are none."""
    measured: str | None = None
    """Take the rate from an earlier run, or from the JSON of an estimate, and measure nothing here."""
    tokens_per_second: float | None = field(default=None, metadata=within(above=0, at_most=1e12))
    """Take this rate of a device, assumed or measured elsewhere, and measure nothing."""
    sample_documents: int | None = field(default=None, metadata=COUNT)
    """Documents to score for it, 256 and 32 a worker at the least; by default about a minute's."""
    for_documents: str | None = None
    """Documents of the estimate, such as 160M, like those of the sources; by default these."""
    tokens_per_document: float | None = field(default=None, metadata=within(above=0, at_most=1e9))
    """Mean length, where there are no sources to look at."""
    input_ids_column: str | None = None
    """Column of token ids made elsewhere, special tokens included, instead of text."""
    limit_rows: int | None = field(default=None, metadata=COUNT)
    """Of a run that does only this many rows, the first ones."""
    unit_rows: int | None = field(default=None, metadata=COUNT)
    """Of a run with units of so many rows."""
    deduplicate: bool = True
    """Run equal token sequences once, as the run would."""
    plan_for: DeviceKind | None = None
    """Plan for GPUs (cuda) or CPUs (cpu), whatever this machine has; for a rate from elsewhere."""
    boot_seconds: float | None = field(default=None, metadata=within(at_least=0, at_most=86_400))
    """From asking for machines to their commands' start, on average; by default 0 here, 180 elsewhere."""
    speed_spread: float = field(default=0.05, metadata=within(at_least=0, at_most=1))
    """Standard deviation of speed among the devices of a fleet, relative; assumed."""
    hours_between_losses: float | None = field(default=None, metadata=within(at_least=0.1, at_most=1e6))
    """Of one machine, on average, where machines are taken away (spot); by default never."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Of what is sampled and simulated."""
    json: bool = False
    """Print one JSON object instead of lines for people."""

    def check(self) -> None:
        """Lengths, the number of documents and the rate are of the sources, or given."""
        if not self.sources and (self.for_documents is None or self.tokens_per_document is None):
            raise UsageError(
                "no sources; name some, or say --for-documents and --tokens-per-document, with --measured or"
                " --tokens-per-second"
            )
        if self.sources and self.bundle is None:
            raise UsageError("sources without a bundle; name the classifier with --bundle")
        if self.plan_for is not None and self.measured is None and self.tokens_per_second is None:
            raise UsageError(
                f"plan_for is {self.plan_for}, and the rate would be measured on this machine; say where one of such a"
                " device is known from, with --measured or --tokens-per-second, or leave it out"
            )
        if self.measured is not None and self.tokens_per_second is not None:
            raise UsageError("both --measured and --tokens-per-second; a rate is from one of them")
        if not self.sources and self.measured is None and self.tokens_per_second is None:
            raise UsageError(
                "no sources to measure on; name some, or say --measured RUN or --tokens-per-second"
            )
        self._refuse_unused()

    def _refuse_unused(self) -> None:
        """Raise UsageError for what nothing would read."""
        if self.sample_documents is not None and (
            self.measured is not None or self.tokens_per_second is not None
        ):
            raise UsageError(
                f"sample_documents is {self.sample_documents}, and nothing is measured here where the rate is given; "
                "leave it out, or measure without --measured and --tokens-per-second"
            )
        if self.sources:
            return
        of_sources = (Texts, SourceFormat, LongDocuments, EngineSettings, CpuThreads)
        names = {each.name for group in of_sources for each in fields(group)}
        names |= {"devices", "input_ids_column", "limit_rows", "deduplicate", "plan_for"}
        for each in fields(self):
            if each.name in names and getattr(self, each.name) != each.default:
                raise UsageError(
                    f"{each.name} is {getattr(self, each.name)!r}, and there are no sources to read and no model to "
                    "run; name sources, or leave it out"
                )
