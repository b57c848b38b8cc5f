"""The verbs of the command line as functions, each with the settings value that the command takes.

from assay.api import ScoreSettings, merge, score, verify

score(ScoreSettings(sources=("corpus/*.parquet",), bundle="model/", run="run/"))
assert verify("run/").holds
merge("run/", "scored/")
"""

from assay.errors import AssayError
from assay.quickstart import quickstart
from assay.runs.status import Status, status
from assay.runs.verify import Proof, verify
from assay.score.classifier import Classifier, load
from assay.score.merge import merge
from assay.score.report import report
from assay.score.settings import ScoreSettings
from assay.score.verb import ScoreResult, score
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.verb import TokenizeResult, tokenize
from assay.train.settings import TrainSettings
from assay.train.train import TrainReport, train

__all__ = [
    "AssayError",
    "Classifier",
    "Proof",
    "ScoreResult",
    "ScoreSettings",
    "Status",
    "TokenizeResult",
    "TokenizeSettings",
    "TrainReport",
    "TrainSettings",
    "load",
    "merge",
    "quickstart",
    "report",
    "score",
    "status",
    "tokenize",
    "train",
    "verify",
]
