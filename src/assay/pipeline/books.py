"""`assay pipeline books`: the steps in order.

    books -> pairs -> cross-encoder (rounds of it, each on harder negatives) -> Siamese model -> both calibrated
    -> tuned cascade -> the test rows, once -> a page

Each step is that of its own command: `prepare books`, `train`, `calibrate`, `style calibrate`, `cascade tune`,
`evaluate`. What is done is in `ledger.py`; here is what a step reads and what it makes.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.calibrate.calibrate import calibrate
from assay.calibrate.settings import CalibrateSettings
from assay.cascade.tune import cascade_tune
from assay.compare.settings import StyleCalibrateSettings
from assay.compare.style_calibrate import style_calibrate
from assay.data.storage import replace_file
from assay.embed.place import find_gpus
from assay.engine.devices import parse_device
from assay.errors import InputError
from assay.evaluate.evaluate import evaluate
from assay.extras import need_packages
from assay.model.checkpoint import read_checkpoint
from assay.pipeline.disjoint import check_disjoint
from assay.pipeline.figures import cascade_figures, figures_of, has_languages, write_answers
from assay.pipeline.ledger import Facts, Ledger, Step, open_ledger, refuse_others, steps_done
from assay.pipeline.plan import SPLITS, Plan, make_plan
from assay.pipeline.report import PipelineReport, render
from assay.pipeline.settings import PipelineSettings
from assay.prepare.books import Watch, describe_books, prepare_books, unwatched
from assay.prepare.listing import list_books
from assay.prepare.report import BooksReport
from assay.prepare.settings import BooksSettings
from assay.prepare.splits import MIN_AUTHORS, author_keys
from assay.score.bundles import open_bundle
from assay.settings import Settings
from assay.telemetry import Progress, ProgressDisplay, format_number_of
from assay.tokenize.counting import open_encoder
from assay.train.checkpoints import training_folder
from assay.train.display import TrainDisplay
from assay.train.keeper import decisive
from assay.train.settings import STEP_OF, TrainSettings
from assay.train.train import train

_PLACES = frozenset(
    {"out", "data", "validation_data", "test_data", "bundle", "against", "first", "second", "teacher", "base"}
    | {
        "device",
        "devices",
        "num_threads",
        "source",
        "unit_rows",
        "dry_run",
        "catalogue",
        "mine_with",
        "embed_with",
    }
)
"""Settings that say where something is or runs; of what is there, inputs have the identity."""
MOST_FOLDS = 5
Say = Callable[[str], None]


def pipeline_books(
    settings: PipelineSettings, *, on_message: Say | None = None, show_progress: bool = False
) -> PipelineReport:
    """All from a folder of books to a tuned cascade, or what of it is not done yet; returns what came of it.

    `show_progress`: show on stderr how far each step is, as its own command does. Raises what the commands of the
    steps raise, before any of them where settings are wrong; InputError for too few authors; RefusedError where
    something was made with other settings or of other books.
    """
    need_packages("sklearn", used_by="assay pipeline books")
    said = on_message or (lambda _: None)
    plan = make_plan(settings, device=_device(settings))
    with open_ledger(plan.folder, overwrite=settings.overwrite, say=said) as ledger:
        if ledger.done:
            said(f"done before: {', '.join(ledger.done)}; going on")
        for line in plan.ignored:
            said(line)
        steps = _Steps(plan=plan, ledger=ledger, say=said, show_progress=show_progress)
        made = steps.all()
        report = PipelineReport(
            plan=plan,
            made=made,
            looks_at_test=ledger.looks_at_test,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        replace_file(str(plan.report), render(report))
    return report


def describe_pipeline(settings: PipelineSettings) -> str:
    """The books, the steps and which of them are done, for `--dry-run`; nothing is written."""
    plan = make_plan(settings, device=_device(settings))
    refuse_others(plan.folder)
    done = steps_done(plan.folder)
    names = _names(plan)
    lines = [
        describe_books(plan.books_of(1)),
        *plan.ignored,
        *(f"{'done before' if name in done else 'to do':12}{name}" for name in names),
    ]
    return "\n".join(lines)


def _names(plan: Plan) -> list[str]:
    """The steps, in order."""
    rounds = range(1, plan.settings.rounds + 1)
    trained = [path.name for number in rounds for path in (plan.pairs(number), plan.cross_model(number))]
    if plan.settings.chunks_per_document:
        trained.insert(1, plan.documents.name)
    after = [f"calibrate {plan.cross_model().name}", "calibrate siamese"]
    after += ["calibrate documents"] if plan.settings.chunks_per_document else []
    return [*trained, "siamese", *after, "cascade", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Steps:
    """The steps; each gives what it made, now or before."""

    plan: Plan
    ledger: Ledger
    say: Say
    show_progress: bool

    def all(self) -> dict[str, Facts]:
        """What each step made, by its name."""
        plan, rounds = self.plan, self.plan.settings.rounds
        books = self._list()
        made = {"pairs": self._prepare(plan.books_of(1), plan.pairs(), {"books": books})}
        if plan.settings.chunks_per_document:
            made["documents"] = self._prepare(plan.books_of_documents(), plan.documents, {"books": books})
        made["splits"] = self._check(made)
        self.say(made["splits"]["said"])
        made["cross"] = self._train(plan.cross_of(1), made["pairs"], made["pairs"])
        for number in range(2, rounds + 1):
            pairs, cross = plan.pairs(number).name, plan.cross_model(number).name
            mined = {"books": books, "mined by": made[plan.cross_model(number - 1).name]["id"]}
            made[pairs] = self._prepare(plan.books_of(number), plan.pairs(number), mined)
            made["splits"] = self._check(made)
            made[cross] = self._train(plan.cross_of(number), made[pairs], made["pairs"])
        pairs, cross = plan.pairs(rounds).name, plan.cross_model().name
        teacher = made[cross]["id"] if plan.settings.distil else None
        made["siamese"] = self._train(plan.siamese_training(), made[pairs], made["pairs"], teacher=teacher)
        folds = _num_folds(made["splits"])
        for name, model in ((cross, plan.cross_model()), ("siamese", plan.siamese_model)):
            step, settings = f"calibrate {name}", plan.calibration_of(model, num_folds=folds)
            made[step] = self._calibrate(step, settings, made[name], made["pairs"])
        if plan.settings.chunks_per_document:
            style = plan.style_calibration(num_folds=folds)
            made["calibrate documents"] = self._calibrate_documents(
                style, made["calibrate siamese"], made["documents"]
            )
        both = {"first": made["calibrate siamese"]["id"], "second": made[f"calibrate {cross}"]["id"]}
        made["cascade"] = self._tune(both, made["pairs"])
        made["test"] = self._test({**both, "cascade": made["cascade"]["id"]}, made["pairs"])
        return made

    def _check(self, made: Mapping[str, Facts]) -> Facts:
        """How many authors and books each split has; raises CheckError where two splits share one."""
        return check_disjoint(
            {name: Path(facts["folder"]) for name, facts in made.items() if "files" in facts}
        )

    def _list(self) -> str:
        """The identity of the books; raises InputError where their authors are too few."""
        plan = self.plan
        plan.shared.mkdir(parents=True, exist_ok=True)
        listing = list_books(plan.books.source, plan.books.catalogue, plan.shared / "books.arrow")
        _refuse_few_authors(set(listing.table.column("author_key").to_pylist()) - {None})
        return file_identity(listing.path)

    def _prepare(self, settings: BooksSettings, folder: Path, read: Mapping[str, object]) -> Facts:
        """Pairs of the books."""
        models = {
            name: open_encoder(path).fingerprint
            for name, path in (("tokenizer", settings.bundle), ("embedded with", settings.embed_with))
            if path is not None
        }

        def work() -> Facts:
            report = prepare_books(settings, watch=self._watch(), say=self.say, shared=self.plan.shared)
            _refuse_one_label(report)
            files = {split: file_identity(folder / f"{split}.parquet") for split in settings.shares()}
            return {
                "id": report.runs["pairs"],
                "folder": str(folder),
                "files": files,
                "said": str(report),
                "splits": {name: asdict(each) for name, each in report.splits.items()},
                "books": report.books,
                "authors": report.authors,
                "chunks": report.chunks,
            }

        outputs = [folder / "report.json", *(folder / f"{split}.parquet" for split in settings.shares())]
        return self.ledger.do(
            Step(
                name=folder.name,
                title=f"{folder.name}: assay prepare books",
                inputs={**read, **models, **_deciding(settings)},
                outputs=outputs,
                work=work,
            )
        )

    def _train(
        self, settings: TrainSettings, pairs: Facts, first: Facts, *, teacher: str | None = None
    ) -> Facts:
        """A model of pairs, on those of a round; those of the first choose its checkpoint."""
        out = Path(settings.out)

        def work() -> Facts:
            facts: Facts = {}
            if not out.exists():  # else it was published as the pipeline was killed
                with TrainDisplay(settings.chosen_by) if self.show_progress else nullcontext() as display:
                    report = train(
                        replace(settings, resume=training_folder(settings.out).exists()),
                        on_progress=display.update if display else None,
                        on_message=self.say,
                        on_phase=display.phase if display else None,
                    )
                facts = {"said": str(report)}
            bundle = open_bundle(out)
            kept = {
                name: bundle.provenance.get(name) for name in ("best_step", "num_steps", "num_train_rows")
            }
            chosen = [each for each in _validations(bundle.provenance) if each["step"] == kept["best_step"]]
            return {
                **facts,
                **kept,
                "id": bundle.fingerprint,
                "validation": chosen[0]["metrics"] if chosen else {},
                "chosen_by": settings.chosen_by,
            }

        numbers = {name: value for name, value in decisive(settings).items() if name not in _PLACES}
        read = {
            "base": base_identity(settings.base),
            "training rows": pairs["files"]["train"],
            "validation rows": first["files"]["validation"],
            **({} if teacher is None else {"teacher": teacher}),
        }
        return self.ledger.do(
            Step(
                name=out.name,
                title=f"{out.name}: assay train",
                inputs={**read, **numbers, **{name: getattr(settings, name) for name in STEP_OF}},
                outputs=[out],
                leftovers=[training_folder(settings.out)],
                work=work,
            )
        )

    def _calibrate(self, name: str, settings: CalibrateSettings, model: Facts, pairs: Facts) -> Facts:
        """Honest probabilities of pairs."""
        folder = Path(settings.bundle)

        def work() -> Facts:
            report = calibrate(settings)
            return {
                "id": open_bundle(folder).fingerprint,
                "said": str(report),
                "before": dict(report.before),
                "cross_validated": dict(report.cross_validated),
                "notes": list(report.notes),
            }

        read = {"model": model["id"], "rows": pairs["files"]["calibration"]}
        return self.ledger.do(
            Step(
                name=name,
                title=f"{folder.name}: assay calibrate",
                inputs={**read, **_deciding(settings)},
                outputs=[folder / "calibration.json"],
                work=work,
            )
        )

    def _calibrate_documents(self, settings: StyleCalibrateSettings, model: Facts, documents: Facts) -> Facts:
        """Honest probabilities of documents, for each number of chunks."""

        def work() -> Facts:
            report = style_calibrate(settings, say=self.say)
            maps = [
                {"chunks": each.num_chunks, "pairs": each.num_pairs, **each.cross_validated}
                for each in report.calibration.maps
            ]
            return {"id": file_identity(report.file), "said": str(report), "maps": maps}

        return self.ledger.do(
            Step(
                name="calibrate documents",
                title="documents: assay style calibrate",
                inputs={
                    "model": model["id"],
                    "rows": documents["files"]["calibration"],
                    **_deciding(settings),
                },
                outputs=[Path(settings.bundle) / "style_calibration.json"],
                work=work,
            )
        )

    def _tune(self, models: Mapping[str, object], pairs: Facts) -> Facts:
        """The thresholds of the two."""
        settings = self.plan.tuning()

        def work() -> Facts:
            report = cascade_tune(settings)
            return {
                "id": file_identity(Path(settings.out)),
                "said": str(report),
                "share": report.point.share,
                "cost": report.point.cost,
                "recall_bound": report.point.chosen.recall_bound,
                "notes": list(report.notes),
            }

        return self.ledger.do(
            Step(
                name="cascade",
                title="cascade: assay cascade tune",
                inputs={**models, "rows": pairs["files"]["tuning"], **_deciding(settings)},
                outputs=[Path(settings.out), Path(settings.out).with_suffix(".html")],
                work=work,
            )
        )

    def _test(self, made: Mapping[str, object], pairs: Facts) -> Facts:
        """What the test rows say of both models and the cascade; the only step that looks at them."""
        rows = self.plan.rows("test")
        settings = self.plan.evaluation_settings(by_language=has_languages(rows))

        def work() -> Facts:
            self.ledger.look_at_test(str(made["cascade"]))
            report = evaluate(settings)
            write_answers(self.plan)
            cascade = cascade_figures(self.plan.answers, rows, settings)
            of_models = {each.name: figures_of(report, each) for each in report.slices}
            languages = {
                name: {
                    "num_pairs": each["num_pairs"],
                    "models": {**of_models[name], "cascade": each["figures"]},
                }
                for name, each in cascade["languages"].items()
            }
            return {
                "id": pairs["files"]["test"],
                "models": {**figures_of(report, report.parts[0]), "cascade": cascade["figures"]},
                "languages": languages,
                "share": cascade["share"],
                "recall": cascade["recall"],
                "num_pairs": report.num_rows,
                "num_authors": report.num_groups,
                "notes": list(report.warnings),
            }

        return self.ledger.do(
            Step(
                name="test",
                title="test: assay evaluate, the cascade's answers",
                inputs={**made, "rows": pairs["files"]["test"], **_deciding(settings)},
                outputs=[self.plan.evaluation, self.plan.answers],
                work=work,
            )
        )

    def _watch(self) -> Watch:
        return _displayed if self.show_progress else unwatched


@contextmanager
def _displayed(step: str) -> Iterator[Callable[[Progress], None] | None]:
    """A progress display of a step."""
    with ProgressDisplay(step) as display:
        yield display.update


def _device(settings: PipelineSettings) -> str:
    if settings.device != "auto":
        parse_device(settings.device)
        return settings.device
    return "cuda" if find_gpus() else "cpu"


def _deciding(settings: Settings) -> dict[str, object]:
    """The settings that can change what comes out."""
    return {name: value for name, value in asdict(settings).items() if name not in _PLACES}


def _validations(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = provenance.get("validations", [])
    return found


def file_identity(file: Path) -> str:
    """A hash of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def base_identity(base: str) -> str:
    """A hash of an encoder's files."""
    digest = hashlib.blake2b(digest_size=16)
    checkpoint = read_checkpoint(base)
    for file in (*checkpoint.files, checkpoint.path / "config.json", checkpoint.path / "tokenizer.json"):
        digest.update(file_identity(file).encode())
    return digest.hexdigest()


def _num_folds(splits: Facts) -> int:
    """Of a cross-validation by author of the calibration split, which may have few."""
    num_authors: int = splits["counts"]["calibration"]["authors"]
    return max(2, min(MOST_FOLDS, num_authors))


def _refuse_few_authors(keys: set[str]) -> None:
    num_authors = len({author for key in keys for author in author_keys(key)})
    needed = MIN_AUTHORS * len(SPLITS)
    if num_authors < needed:
        raise InputError(
            f"books of {format_number_of(num_authors, 'author')}; {', '.join(SPLITS)} take {MIN_AUTHORS} authors each"
            f" at the least, so {needed}; add books by others"
        )


def _refuse_one_label(report: BooksReport) -> None:
    for name, each in report.splits.items():
        if not 0 < each.positives < each.pairs:
            raise InputError(
                f"{name} has {each.positives:,} positive and {each.pairs - each.positives:,} negative pairs, and needs"
                f" both; give {name}_share more, another seed, or more books"
            )
