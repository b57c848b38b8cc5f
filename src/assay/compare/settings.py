"""What `assay compare` and `assay style calibrate` can be told. Imports nothing heavy, so that help is quick."""

from dataclasses import dataclass, field
from typing import Literal

from assay.engine.settings import CpuThreads, OneDevice
from assay.errors import UsageError
from assay.labelled.settings import LabelledSources
from assay.settings import COUNT, positional, within
from assay.siamese.settings import DocumentRules

STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True)
class CompareSettings(DocumentRules, OneDevice, CpuThreads):
    """A comparison of two documents."""

    bundle: str
    """Folder of a Siamese model, or a cascade whose first model is one: its file, or its folder."""
    text1: str
    """File with the first text, in UTF-8; - reads standard input."""
    text2: str
    """File with the second text; - reads standard input."""
    label: str | None = None
    """Label of the model that means that two texts belong together; by default the second of two."""
    min_confidence: float = field(default=0.5, metadata=within(at_least=0.5, below=1))
    """Least confidence with which an answer is given; below it the answer is that it is not certain."""
    num_passages: int = field(default=3, metadata=within(at_least=0))
    """Pairs of passages to show that spoke most for it, and as many against it."""
    num_cross_pairs: int = field(default=32, metadata=COUNT)
    """Cascade: pairs of passages, drawn from all, that the second model reads where the first is not sure."""
    max_length: int | None = field(default=None, metadata=COUNT)
    """Most tokens of a chunk, special ones included; by default what the model was trained for."""
    calibration: str | None = None
    """File that `assay style calibrate` wrote; by default the style_calibration.json in the bundle, if there is one."""
    json: bool = False
    """Print one JSON object instead of lines for people."""

    def check(self) -> None:
        """Raise `UsageError` where both texts would come from standard input."""
        if self.text1 == self.text2 == STANDARD_INPUT:
            raise UsageError(
                "text1 and text2 are both -; standard input is one text; name a file for the other"
            )


@dataclass(frozen=True, kw_only=True)
class StyleCalibrateSettings(DocumentRules, LabelledSources, OneDevice, CpuThreads):
    """A calibration of one Siamese model on labelled pairs of documents."""

    bundle: str = field(metadata=positional("BUNDLE"))
    """Folder of the Siamese model."""
    data: tuple[str, ...] = field(metadata=positional("DATA"))
    """Sources of pairs of documents, by authors whom no part of the training has seen."""
    paths: bool = False
    """The text columns hold paths of files of text instead of texts."""
    num_chunks: tuple[str, ...] = ()
    """Chunks of a document to fit a map for, each; by default 1, 2, 4 to 32, as far as the documents have them."""
    label: str | None = None
    """Label of the model that means that two texts belong together; by default the second of two."""
    method: Literal["auto", "logistic", "isotonic"] = "auto"
    """Kind of map; auto: the better in cross-validation, by rows or by the group column."""
    select_by: Literal["brier", "ece"] = "brier"
    """What auto compares the methods by."""
    num_folds: int = field(default=5, metadata=within(at_least=2))
    """Parts of the rows in cross-validation."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Decides which rows are held out together, and which chunks of a document are taken."""
    max_length: int | None = field(default=None, metadata=COUNT)
    """Most tokens of a chunk, special ones included; by default what the model was trained for."""
    out: str | None = None
    """File to write; by default style_calibration.json in the bundle."""

    def check(self) -> None:
        """Raise `UsageError` where there is no second document, or a number of chunks is not one."""
        if self.text_pair_column is None:
            raise UsageError(
                "documents are compared in pairs; give the columns with --text-column and --text-pair-column"
            )
        for number in self.num_chunks:
            if not (number.isascii() and number.isdecimal() and int(number) >= 1):
                raise UsageError(
                    f"num_chunks has {number!r}; it must be whole numbers from 1 on, such as 1 4 8"
                )
