"""What a user may set for `assay tokenize`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.data.settings import SourceFormat, Texts
from assay.engine.settings import CpuThreads
from assay.runs.settings import RunSettings
from assay.settings import AUTO_OR_COUNT, COUNT, Settings, positional, within

OnLong = Literal["truncate", "head-tail", "window-mean", "window-max", "error"]
WINDOWS: dict[OnLong, Literal["mean", "max"]] = {"window-mean": "mean", "window-max": "max"}
"""The policies that cut long documents into windows, and how these become one score."""

ONE_PIECE: frozenset[OnLong] = frozenset({"truncate", "error"})
"""The policies that keep what fits of a text in one piece: those for pairs, and for cuts on the left."""


@dataclass(frozen=True, kw_only=True)
class LongDocuments(Settings):
    """How long a document may be, and what happens to longer ones."""

    max_length: int | None = field(default=None, metadata=COUNT)
    """Most tokens of a document; by default what the model was trained for."""
    on_long: OnLong = "truncate"
    """What happens to longer documents."""
    stride: int = field(default=0, metadata=within(at_least=0))
    """Tokens that neighbouring windows share, for the window policies."""


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings(RunSettings, Texts, SourceFormat, LongDocuments, CpuThreads):
    """Turn the text of the sources into token ids, once, for `assay score` to take."""

    sources: tuple[str, ...] = field(metadata=positional("SOURCE"))
    """Files, folders, globs or URLs to tokenize."""
    bundle: str
    """Directory whose tokenizer is used."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """Worker processes; auto is one with all cores."""
