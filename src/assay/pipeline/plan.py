"""The settings of every step, from those of the pipeline and its files. No step is taken here."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from assay.calibrate.settings import CalibrateSettings
from assay.cascade.settings import CascadeTuneSettings
from assay.compare.settings import StyleCalibrateSettings
from assay.configs import read_config
from assay.errors import UsageError
from assay.evaluate.settings import EvaluateSettings
from assay.model.checkpoint import read_checkpoint
from assay.pipeline.settings import PipelineSettings
from assay.prepare.settings import SPECIAL_TOKENS, BooksSettings
from assay.settings import Settings
from assay.siamese.settings import SiameseTraining
from assay.train.settings import TrainSettings

S = TypeVar("S", bound=Settings)

SPLITS = {
    "train": "teaches both models",
    "validation": "chooses their checkpoints",
    "calibration": "makes probabilities honest",
    "tuning": "sets the thresholds of the cascade",
    "test": "measures, once",
}
"""What each split is for; no author is in two."""
SHARES = {"validation_share": 0.1, "calibration_share": 0.1, "tuning_share": 0.1, "test_share": 0.15}
"""Where the file of `prepare` does not say otherwise."""
MAX_LENGTH = 512
SIDES: Mapping[str, Any] = {"text_column": "text1", "text_pair_column": "text2"}
AUTHORS = ("author1", "author2")
LANGUAGE = "language"
GROUP = "author1"
"""Column of the authors whom calibration holds out together."""
_BOOKS_OF_PIPELINE = ("source", "out", "split_by", "mine_with", "mine_label", "chunks_per_side", "dry_run")
_TRAINING_OF_PIPELINE = (
    "out", "data", "validation_data", "task", "text_column", "text_pair_column", "label_column", "group_column",
    "id_column", "architecture", "book_columns", "author_columns", "teacher", "resume", "overwrite", "dry_run",
)  # fmt: skip
"""What the pipeline says, whatever a file says."""
_OF_SIAMESE = {field.name for field in fields(SiameseTraining)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Where everything lies, and the settings of each step."""

    settings: PipelineSettings
    books: BooksSettings
    """Of the first round."""
    cross: Mapping[str, Any]
    """Settings of `assay train`, without places."""
    siamese: Mapping[str, Any]
    mined_weight: float | None
    """Weight of mined negatives from the second round on; by default that of `assay prepare books`."""
    device: str
    ignored: tuple[str, ...]
    """What files say and the pipeline says otherwise, a line each."""

    @property
    def folder(self) -> Path:
        """All that is made."""
        return Path(self.settings.out).absolute()

    @property
    def shared(self) -> Path:
        """The list of books and their chunks, which all data sets of pairs have in common."""
        return self.folder / "books"

    def pairs(self, number: int = 1) -> Path:
        """The data set of a round, from 1 on."""
        return self.folder / ("pairs" if number == 1 else f"pairs-{number}")

    @property
    def documents(self) -> Path:
        """Pairs of documents of many chunks."""
        return self.folder / "documents"

    def cross_model(self, number: int | None = None) -> Path:
        """The cross-encoder of a round, by default the last."""
        number = self.settings.rounds if number is None else number
        return self.folder / ("cross" if number == 1 else f"cross-{number}")

    @property
    def siamese_model(self) -> Path:
        """The Siamese model."""
        return self.folder / "siamese"

    @property
    def cascade(self) -> Path:
        """The cascade's file."""
        return self.folder / "cascade.json"

    @property
    def evaluation(self) -> Path:
        """The page of both models on the test rows."""
        return self.folder / "evaluation.html"

    @property
    def answers(self) -> Path:
        """What the cascade says of the test rows."""
        return self.folder / "answers.parquet"

    @property
    def report(self) -> Path:
        """The page of the whole."""
        return self.folder / "report.html"

    def rows(self, split: str) -> str:
        """Pairs of a split of the first round."""
        return str(self.pairs() / f"{split}.parquet")

    def books_of(self, number: int) -> BooksSettings:
        """Of the pairs of a round; from the second on with the cross-encoder of the round before."""
        out = str(self.pairs(number))
        if number == 1:
            return replace(self.books, out=out)
        mine_with = str(self.cross_model(number - 1))
        return replace(self.books, out=out, mine_with=mine_with, weight_model_mined=self.mined_weight)

    def books_of_documents(self) -> BooksSettings:
        """Of the pairs of documents: sides of many chunks, of the same books in the same splits."""
        return replace(
            self.books,
            out=str(self.documents),
            chunks_per_side=self.settings.chunks_per_document,
            chunk_tokens=self.books.chunk_rules().chunk_tokens,
            embed_with=None,
            weight_embedding=None,
        )

    def cross_of(self, number: int) -> TrainSettings:
        """Of the cross-encoder of a round."""
        return self._training(
            self.cross, out=str(self.cross_model(number)), data=(str(self.pairs(number) / "train.parquet"),)
        )

    def siamese_training(self) -> TrainSettings:
        """Of the Siamese model."""
        return self._training(
            self.siamese,
            out=str(self.siamese_model),
            data=(str(self.pairs(self.settings.rounds) / "train.parquet"),),
            architecture="siamese",
            book_columns=("book1", "book2"),
            author_columns=AUTHORS,
            teacher=str(self.cross_model()) if self.settings.distil else None,
        )

    def _training(self, values: Mapping[str, Any], **places: Any) -> TrainSettings:  # noqa: ANN401
        return TrainSettings(
            **{
                **values,
                **SIDES,
                **places,
                "validation_data": (self.rows("validation"),),
                "group_column": GROUP,
            }
        )

    def calibration_of(self, model: Path, *, num_folds: int) -> CalibrateSettings:
        """Of either model, on pairs."""
        return CalibrateSettings(
            bundle=str(model),
            data=(self.rows("calibration"),),
            test_data=(self.rows("test"),),
            method="auto",
            num_folds=num_folds,
            group_column=GROUP,
            device=self.device,
            num_threads=self.settings.num_threads,
            **SIDES,
        )

    def style_calibration(self, *, num_folds: int) -> StyleCalibrateSettings:
        """Of the Siamese model, on documents."""
        return StyleCalibrateSettings(
            bundle=str(self.siamese_model),
            data=(str(self.documents / "calibration.parquet"),),
            num_folds=num_folds,
            group_column=GROUP,
            typography=self.books.typography,
            mask_names=self.books.mask_names,
            device=self.device,
            num_threads=self.settings.num_threads,
            **SIDES,
        )

    def tuning(self) -> CascadeTuneSettings:
        """Of the cascade."""
        return CascadeTuneSettings(
            first=str(self.siamese_model),
            second=str(self.cross_model()),
            data=(self.rows("tuning"),),
            out=str(self.cascade),
            recall=self.settings.recall,
            two_sided=self.settings.two_sided,
            author_columns=AUTHORS,
            device=self.device,
            num_threads=self.settings.num_threads,
        )

    def evaluation_settings(self, *, by_language: bool) -> EvaluateSettings:
        """Of both models on the test rows, of each language too where they are of several."""
        return EvaluateSettings(
            bundle=str(self.cross_model()),
            against=(str(self.siamese_model),),
            data=(self.rows("test"),),
            group_columns=AUTHORS,
            group_column=LANGUAGE if by_language else None,
            out=str(self.evaluation),
            device=self.device,
            num_threads=self.settings.num_threads,
            **SIDES,
        )


def make_plan(settings: PipelineSettings, *, device: str) -> Plan:
    """The settings of every step, all of them checked; raises UsageError for what cannot be."""
    given = {
        name: _values(getattr(settings, name), kind)
        for name, kind in (("prepare", BooksSettings), ("cross", TrainSettings), ("siamese", TrainSettings))
    }
    ignored = [
        *_ignored(settings.prepare, given["prepare"], _BOOKS_OF_PIPELINE),
        *_ignored(settings.cross, given["cross"], _TRAINING_OF_PIPELINE),
        *_ignored(settings.siamese, given["siamese"], _TRAINING_OF_PIPELINE),
    ]
    mined_weight = given["prepare"].pop("weight_model_mined", None)
    given["cross"] = {name: value for name, value in given["cross"].items() if name not in _OF_SIAMESE}
    bases = {name: _base(settings, name, given[name]) for name in ("cross", "siamese")}
    limit = min(read_checkpoint(base).max_length for base in bases.values())
    books = _books(settings, given["prepare"], bases["cross"], limit)
    budget = books.chunk_rules().chunk_tokens
    lengths = {
        "cross": books.max_length,
        "siamese": books.max_length if budget is None else budget + SPECIAL_TOKENS,
    }
    trainings = {
        name: {
            "best_by": "auc",
            "max_length": min(lengths[name], limit),
            "num_threads": settings.num_threads,
            **given[name],
            "base": bases[name],
        }
        for name in ("cross", "siamese")
    }
    plan = Plan(
        settings=settings,
        books=books,
        cross=trainings["cross"],
        siamese=trainings["siamese"],
        mined_weight=mined_weight,
        device=device,
        ignored=tuple(ignored),
    )
    _check(plan)
    return plan


def _values(file: str | None, kind: type[Settings]) -> dict[str, Any]:
    values = {} if file is None else read_config(file, kind)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _ignored(file: str | None, values: dict[str, Any], decided: tuple[str, ...]) -> list[str]:
    """Take what the pipeline decides out of the values of a file; a line where there is some."""
    names = [name for name in decided if values.pop(name, None) is not None]
    return [f"{file}: the pipeline itself says {', '.join(names)}"] if names else []


def _base(settings: PipelineSettings, name: str, values: Mapping[str, Any]) -> str:
    base = settings.base or values.get("base")
    if base is None:
        raise UsageError(
            f"no encoder for the {name} model; name its folder with --base, or as base in the file of --{name}"
        )
    return str(base)


def _books(settings: PipelineSettings, values: Mapping[str, Any], base: str, limit: int) -> BooksSettings:
    shares = {**SHARES, **values}
    missing = [name for name in SHARES if not shares[name]]
    if missing:
        raise UsageError(
            f"{missing[0]} is 0; early stopping, calibration, the cascade and the test need authors of their own; give"
            " each a share"
        )
    return BooksSettings(
        **{
            "bundle": base,
            "max_length": min(MAX_LENGTH, limit),
            **shares,
            "source": settings.source,
            "out": settings.out,
            "split_by": "author",
        }
    )


def _check(plan: Plan) -> None:
    """Make the settings of every step once, so that what is wrong with them is said before hours of work."""
    for name, values in (("cross", plan.cross), ("siamese", plan.siamese)):
        limit = read_checkpoint(values["base"]).max_length
        if values["max_length"] > limit:
            raise UsageError(
                f"max_length={values['max_length']} for the {name} model; {values['base']} takes {limit:,} tokens; set"
                f" max_length={limit}"
            )
    for number in range(1, plan.settings.rounds + 1):
        plan.books_of(number)
        plan.cross_of(number)
    plan.siamese_training()
    if plan.settings.chunks_per_document:
        plan.books_of_documents()
