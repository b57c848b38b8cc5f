"""The verbs of the command line as functions, each with the settings value that the command takes.

from assay.api import ScoreSettings, merge, score, verify

score(ScoreSettings(sources=("corpus/*.parquet",), bundle="model/", run="run/"))
assert verify("run/").holds
merge("run/", "scored/")
"""

from assay.calibrate.calibrate import calibrate
from assay.calibrate.report import CalibrateReport
from assay.calibrate.settings import CalibrateSettings
from assay.cascade.findings import CascadeReport
from assay.cascade.settings import CascadeTuneSettings
from assay.cascade.tune import cascade_tune
from assay.clean.clean import CleanReport, clean
from assay.clean.settings import CleanSettings
from assay.compare.compare import compare
from assay.compare.comparison import Comparison
from assay.compare.settings import CompareSettings, StyleCalibrateSettings
from assay.compare.style_calibrate import StyleReport, style_calibrate
from assay.embed import verb as _embedding
from assay.embed.drive import EngineRunResult
from assay.embed.settings import EmbedSettings
from assay.ensemble import verb as _ensembles
from assay.ensemble.build import BuildResult, ensemble_build
from assay.ensemble.settings import BuildSettings, EnsembleSettings
from assay.ensemble.verb import EnsembleResult
from assay.errors import AssayError
from assay.evaluate.evaluate import evaluate
from assay.evaluate.findings import EvaluateReport
from assay.evaluate.settings import EvaluateSettings
from assay.fleet import join as _joining
from assay.fleet.books import prepare_books
from assay.fleet.estimate import estimate
from assay.fleet.executors import on_executor
from assay.fleet.join import JoinResult
from assay.fleet.serving import serve
from assay.fleet.settings import EstimateSettings, JoinSettings
from assay.fleet.training import train
from assay.mine import verb as _mining
from assay.mine.settings import MineSettings
from assay.mine.verb import MineResult
from assay.pipeline.books import pipeline_books
from assay.pipeline.report import PipelineReport
from assay.pipeline.settings import PipelineSettings
from assay.prepare.labelled.prepare import PrepareResult, prepare_labelled
from assay.prepare.labelled.settings import LabelledSettings
from assay.prepare.report import BooksReport
from assay.prepare.settings import BooksSettings
from assay.quickstart import QuickstartResult, quickstart
from assay.runs.status import Status, status
from assay.runs.verify import Proof, verify
from assay.score import verb as _scoring
from assay.score.bench.bench import bench
from assay.score.bench.report import BenchReport
from assay.score.bench.settings import BenchSettings
from assay.score.classifier import Classifier, load
from assay.score.estimate.record import EstimateRecord
from assay.score.merge.merge import MergeReport, merge
from assay.score.report.report import report
from assay.score.report.summary import ReportSummary
from assay.score.settings import ScoreSettings
from assay.serve.settings import ServeSettings
from assay.siamese.pairs import SiameseModel, load_siamese
from assay.sudoku.build import sudoku_build
from assay.sudoku.findings import SudokuBuildReport
from assay.sudoku.settings import SudokuBuildSettings
from assay.tokenize import verb as _tokenizing
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.verb import TokenizeResult
from assay.train.puzzles.settings import PuzzleTraining
from assay.train.puzzles.train import PuzzleReport, sudoku_train
from assay.train.settings import TrainSettings
from assay.train.train import TrainReport

embed = on_executor(_embedding.embed)
ensemble = on_executor(_ensembles.ensemble)
join = on_executor(_joining.join)
mine = on_executor(_mining.mine)
score = on_executor(_scoring.score)
tokenize = on_executor(_tokenizing.tokenize)

__all__ = [
    "AssayError",
    "BenchReport",
    "BenchSettings",
    "BooksReport",
    "BooksSettings",
    "BuildResult",
    "BuildSettings",
    "CalibrateReport",
    "CalibrateSettings",
    "CascadeReport",
    "CascadeTuneSettings",
    "Classifier",
    "CleanReport",
    "CleanSettings",
    "CompareSettings",
    "Comparison",
    "EmbedSettings",
    "EngineRunResult",
    "EnsembleResult",
    "EnsembleSettings",
    "EstimateRecord",
    "EstimateSettings",
    "EvaluateReport",
    "EvaluateSettings",
    "JoinResult",
    "JoinSettings",
    "LabelledSettings",
    "MergeReport",
    "MineResult",
    "MineSettings",
    "PipelineReport",
    "PipelineSettings",
    "PrepareResult",
    "Proof",
    "PuzzleReport",
    "PuzzleTraining",
    "QuickstartResult",
    "ReportSummary",
    "ScoreSettings",
    "ServeSettings",
    "SiameseModel",
    "Status",
    "StyleCalibrateSettings",
    "StyleReport",
    "SudokuBuildReport",
    "SudokuBuildSettings",
    "TokenizeResult",
    "TokenizeSettings",
    "TrainReport",
    "TrainSettings",
    "bench",
    "calibrate",
    "cascade_tune",
    "clean",
    "compare",
    "embed",
    "ensemble",
    "ensemble_build",
    "estimate",
    "evaluate",
    "join",
    "load",
    "load_siamese",
    "merge",
    "mine",
    "pipeline_books",
    "prepare_books",
    "prepare_labelled",
    "quickstart",
    "report",
    "score",
    "serve",
    "status",
    "style_calibrate",
    "sudoku_build",
    "sudoku_train",
    "tokenize",
    "train",
    "verify",
]
