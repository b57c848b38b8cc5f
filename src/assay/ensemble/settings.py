"""What a user may set for `assay ensemble`. Imports nothing heavy: the command line is made from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from assay.engine.settings import CpuThreads, Forward, OneDevice
from assay.errors import UsageError
from assay.labelled.settings import LabelledSources
from assay.runs.settings import RunPlace
from assay.settings import COUNT, positional, within
from assay.tokenize.settings import WINDOWS, LongDocuments

_RULES = ("mean", "logit-mean", "soup")
_NOT_OF_A_BUNDLE: Mapping[str, str] = {
    "any-correct": "looks at the answers, and answers are what scoring is for",
    "rank-mean": "needs the scores of all documents to give one its own",
    "majority": "gives a label and no probability",
    "plurality": "gives a label and no probability",
}
Settled = Literal["checked", "right", "never"]
SecondOrderKind = Literal["never", "always", "unsure"]
ViewKind = Literal["shift", "digits", "symmetry"]
NUM_VIEWS: Mapping[ViewKind, int] = {
    "shift": 9,
    "digits": math.factorial(9),
    "symmetry": math.factorial(9) * 2 * 6**8,
}
"""How many views of each kind there are."""


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings(RunPlace, CpuThreads):
    """Evaluate checkpoints times permutations on puzzles."""

    data: str = field(metadata=positional("DATA"))
    """Folder of puzzles in the layout of HRM and TRM, or of one split of them."""
    checkpoints: tuple[str, ...]
    """Checkpoints with commas between them: step_N files, or folders, whose largest step counts."""
    run: str = "ensemble-run"
    """Directory or URL of the run; run the same command again to continue it."""
    split: str = "test"
    """Split of DATA."""
    permutes: int = field(default=1, metadata=COUNT)
    """Views of the puzzles for each checkpoint, the puzzles as they are among them."""
    views: ViewKind = "shift"
    """shift: digits shifted by 0, 1, ..., 9 in all; digits: drawn relabelings; symmetry: rows and columns moved too."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Seed of the views that are drawn."""
    noise: float = field(default=0.0, metadata=within(at_least=0))
    """Deviation of the noise on the latent state at each step; 0: none. The state's own is 1."""
    noise_seeds: int = field(default=1, metadata=COUNT)
    """Members of each checkpoint and view that differ in their noise."""
    settled: Settled = "checked"
    """When later members leave a puzzle out: once a grid keeps its rules and givens, once one is right, or never."""
    num_steps: int | None = field(default=None, metadata=COUNT)
    """Steps of each pass; by default as many as the checkpoint was trained for."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """fp32 or bf16; auto: bf16 on a GPU, fp32 on a CPU."""
    batch_size: int | None = field(default=None, metadata=COUNT)
    """Puzzles of a batch; by default 2323, or all where there are fewer."""
    num_batch: int | None = field(default=None, metadata=COUNT)
    """Batches to do, the first ones; by default all."""
    max_workers: int | None = field(default=None, metadata=COUNT)
    """Worker processes at the most; by default one a GPU, or one on a CPU."""
    gpu_memory_limit: float = field(default=0.9, metadata=within(above=0, at_most=1))
    """Share of a GPU's memory that its worker may take; batches are run in pieces that fit."""
    output: str | None = None
    """JSON file for the results."""
    report: str | None = None
    """HTML file that shows them."""
    retry_failed: bool = False
    """Do the batches again in which a member failed."""
    dry_run: bool = False
    """Print the plan and do nothing."""

    @property
    def checkpoint_paths(self) -> tuple[str, ...]:
        """Each checkpoint's path; one that is there as it stands keeps its commas."""
        return split_paths(self.checkpoints)

    @property
    def num_members(self) -> int:
        """Checkpoints times views times seeds of noise."""
        return len(self.checkpoint_paths) * self.permutes * self.noise_seeds

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        most = NUM_VIEWS[self.views]
        if self.permutes > most:
            other = ", or --views symmetry" if self.views != "symmetry" else ""
            raise UsageError(
                f"permutes is {self.permutes:,}; there are {most:,} views of the kind {self.views}; set {most:,} or"
                f" less{other}"
            )
        if self.noise_seeds > 1 and not self.noise:
            raise UsageError(
                f"noise_seeds is {self.noise_seeds} without noise; passes would be equal; set for example --noise 0.1"
            )
        if not self.checkpoint_paths:
            raise UsageError("checkpoints name no file; give paths with commas between them")
        for name, ending in (("output", ".json"), ("report", ".html")):
            value = getattr(self, name)
            if value is not None and not value.endswith(ending):
                raise UsageError(f"{name} is {value}; it is a {ending} file; name such a file")


@dataclass(frozen=True, kw_only=True)
class BuildSettings(LabelledSources, LongDocuments, OneDevice, Forward, CpuThreads):
    """Make one bundle of several classifiers."""

    out: str = field(metadata=positional("OUT"))
    """Folder of the bundle to write."""
    members: tuple[str, ...]
    """Folders of the classifiers with commas between them; they share labels, tokenizer and length."""
    rule: str = "mean"
    """mean: of probabilities; logit-mean: of log probabilities, sharper; soup: of weights, greedily, at one's cost."""
    weights: str | None = None
    """Weights of the members with commas between them; by default all the same."""
    validation: tuple[str, ...] = ()
    """Sources of labelled rows that no member was trained on: the pooled probabilities are calibrated on them."""
    test: tuple[str, ...] = ()
    """Sources of labelled rows to measure the members and the ensemble on, once."""
    against: tuple[str, ...] = ()
    """Other classifiers with these labels to measure on the test rows too: a larger one at the ensemble's cost."""
    report: str | None = None
    """HTML file that shows what was measured on the test rows."""
    max_loss: float | None = field(default=None, metadata=within(at_least=0))
    """Keep the fewest members whose NLL on the validation rows is at most this much above that of the best choice."""
    offsets: int = field(default=1, metadata=within(at_least=1, at_most=64))
    """Window policies: read long documents at so many offsets of their windows, each a member of its own."""
    second_order: SecondOrderKind = "never"
    """Pairs: read each with its texts swapped too (always), or where the first order does not decide (unsure)."""
    max_changed: float = field(default=0.001, metadata=within(at_least=0, at_most=1))
    """unsure: share of validation rows that may keep a label that the second order would change."""
    resamples: int = field(default=1_000, metadata=within(at_least=100))
    """Resamples of the rows behind each interval."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Seed of the resamples."""
    overwrite: bool = False
    """Replace a bundle that OUT holds."""

    @property
    def member_paths(self) -> tuple[str, ...]:
        """Each member's folder."""
        return split_paths(self.members)

    @property
    def member_weights(self) -> tuple[float, ...]:
        """The weights, adding up to 1."""
        count = len(self.member_paths)
        if self.weights is None:
            return (1.0 / count,) * count
        numbers = [float(each) for each in self.weights.split(",")]
        return tuple(number / sum(numbers) for number in numbers)

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if self.rule not in _RULES:
            reason = _NOT_OF_A_BUNDLE.get(self.rule, "is not known")
            raise UsageError(f"rule {self.rule!r} {reason}; use {', '.join(_RULES)}")
        is_soup = self.rule == "soup"
        if is_soup and (not self.validation or self.test or self.weights or self.max_loss is not None):
            raise UsageError(
                "a soup is chosen on validation rows and is one model, for assay evaluate to measure; give --validation"
                " and no --test, --weights or --max-loss"
            )
        num_paths = len(self.member_paths)
        if num_paths < 2 and not (num_paths and (self.offsets > 1 or self.second_order != "never")):
            raise UsageError(
                f"members name {num_paths} folder; an ensemble has two or more, or one with --offsets or"
                " --second-order; put commas between them"
            )
        if self.offsets > 1:
            self._check_offsets()
        if self.weights is not None:
            self._check_weights()
        if self.max_loss is not None and (not self.validation or self.weights is not None):
            raise UsageError(
                "max_loss chooses members on validation rows, all of one weight; give --validation and no --weights"
            )
        if self.second_order != "never":
            self._check_second_order()
        if self.against and not self.test:
            raise UsageError(
                f"against is {', '.join(self.against)}; it is measured on test rows; give --test, or leave it out"
            )
        if self.report is not None and not (self.report.endswith(".html") and self.test):
            raise UsageError(
                f"report is {self.report}; it is a .html file on test rows; name one, and give --test"
            )

    def _check_offsets(self) -> None:
        if self.rule == "soup":
            raise UsageError("a soup is one model and reads a document once; leave offsets out")
        if self.text_pair_column is not None or self.second_order != "never":
            raise UsageError(
                f"offsets is {self.offsets}; pairs of texts are not cut into windows; leave offsets out, or"
                " --text-pair-column and --second-order"
            )
        if self.on_long not in WINDOWS:
            raise UsageError(
                f"offsets is {self.offsets} with on_long {self.on_long}, which cuts no windows; set --on-long to"
                f" {' or '.join(WINDOWS)}"
            )

    def _check_second_order(self) -> None:
        if self.rule == "soup":
            raise UsageError("a soup is one model and reads pairs in one order; leave second_order out")
        if self.text_pair_column is None and (self.validation or self.test):
            raise UsageError(
                f"second_order is {self.second_order}; single texts have one order; give --text-pair-column"
            )
        if self.second_order == "unsure" and not self.validation:
            raise UsageError(
                "second_order is unsure; its margin is fitted on validation rows; give --validation, or set always"
            )

    def _check_weights(self) -> None:
        try:
            numbers = [float(each) for each in (self.weights or "").split(",")]
        except ValueError:
            numbers = []
        if (
            len(numbers) != len(self.member_paths)
            or not all(math.isfinite(number) and number >= 0 for number in numbers)
            or not sum(numbers)
        ):
            raise UsageError(
                f"weights are {self.weights!r} for {len(self.member_paths)} members; give as many numbers of 0 or more,"
                " with commas between"
            )


def split_paths(values: Sequence[str]) -> tuple[str, ...]:
    """The paths in values with commas between them; one that is there as it stands keeps its commas."""
    found: list[str] = []
    for value in values:
        several = [each.strip() for each in value.split(",") if each.strip()]
        found += [value] if Path(value).exists() else several
    return tuple(found)
