"""`assay.load(path).predict(texts)`: the same engine and the same numbers as a run, in a notebook.

classifier = assay.load("bundle/")
classifier.predict("one text")
classifier.predict(frame["text"])              # pandas, Polars, Arrow, list
classifier.predict(frame, text_column="text")
classifier.predict(questions, answers)         # pair models
classifier.predict([("a question", "an answer")])
"""

import logging
import os
from collections.abc import Iterable
from functools import partial

import pyarrow as pa

from assay.bundle.bundle import Bundle
from assay.bundle.texts import refuse_other_texts
from assay.data.rows import SourceRows
from assay.errors import InputError
from assay.garbage import not_collecting
from assay.score.bundles import engine_of, open_bundle, open_scorer, parse_precision, refuse_lengths
from assay.score.schema import bundle_fields
from assay.score.scorer import Scorer
from assay.score.texts import GivenTexts, read_texts
from assay.tokenize.settings import LongDocuments, OnLong

_log = logging.getLogger(__name__)

BATCH_ROWS = 2_048
SHOWN_LABELS = 10
"""Labels that a repr names."""


class Classifier:
    """A loaded bundle. Not thread-safe: one forward pass at a time."""

    def __init__(self, bundle: Bundle, scorer: Scorer, *, device: str) -> None:
        """Use `load`."""
        self.bundle = bundle
        """What was loaded: labels, task, calibration, fingerprints."""
        self.engine = scorer.engine
        """What computes; of a cascade that of the second model."""
        self.device = device
        """Where the forward pass runs."""
        self._scorer = scorer

    def __repr__(self) -> str:
        """Model, task, labels, engine and device, on one line."""
        shown = ", ".join(self.labels[:SHOWN_LABELS])
        if len(self.labels) > SHOWN_LABELS:
            shown += f", ... {len(self.labels)} in all"
        return (
            f"<Classifier {self.bundle.path}: {self.bundle.task} of {shown};"
            f" engine {self.engine.name} on {self.device}>"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the columns."""
        return self.bundle.labels

    def predict(
        self,
        texts: object,
        text_pairs: object = None,
        *,
        text_column: str | None = None,
        text_pair_column: str | None = None,
    ) -> pa.Table:
        """A row for each text: `num_tokens`, `truncated`, `error`, then the task's score columns.

        Takes one string, or a list, tuple, iterator, NumPy array, pandas or Polars series, Arrow array or
        chunked array of strings; `text_pairs` likewise for pair models, which also take one list of pairs.
        A data frame (pandas, Polars, an Arrow table, anything with `__arrow_c_stream__`) is read by
        `text_column`, and `text_pair_column` for pair models. A null or a value that is not a string becomes
        a row with an error code and null scores, as in a run. Columns are those of a scored part (regression
        `prediction`; single-label `prediction`, `probability`, `prob_<label>`; multi-label `labels`,
        `prob_<label>`; of a cascade also `stage`, `bi_probability`, `bi_confidence`, `cross_probability`,
        `cross_confidence`, `final_probability`, `same_book`), calibrated where the bundle is. The table has
        `to_pandas()`; Polars takes it with `pl.from_arrow`. Raises InputError for what is not texts, and for pairs
        where the model takes single texts or the other way round.
        """
        given = read_texts(texts, text_pairs, text_column=text_column, text_pair_column=text_pair_column)
        refuse_other_texts(
            self.bundle,
            are_pairs=given.second is not None,
            setting="text_pairs" if text_column is None else "text_pair_column",
            single_texts="pass a list of strings" if text_column is None and text_pairs is None else None,
            error=InputError,
        )
        schema = pa.schema(bundle_fields(self.bundle))
        try:
            scored = [self._scorer.score(chunk).columns for chunk in self._scorer.chunks(_batches(given))]
        finally:
            self._scorer.forget()
        batches = [
            pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
            for columns in scored
        ]
        return pa.Table.from_batches(batches, schema)


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str = "auto",
    max_length: int | None = None,
    on_long: OnLong = "truncate",
    stride: int = 0,
    num_threads: int | None = None,
) -> Classifier:
    """The classifier in a bundle directory, or in any transformers sequence classification directory.

    A Siamese model's directory is loaded too, and a cascade: the file of `assay cascade tune`, or its folder.
    `device` is `cpu`, `cuda` or `cuda:K`; `max_length`, `on_long` and `stride` are as in `assay score`;
    `num_threads` counts CPU threads, by default OMP_NUM_THREADS or the usable cores. Raises BundleError for a
    directory that cannot be loaded or must not be, UsageError for a setting out of range. What the user should
    hear of the bundle (`bundle.notes`: tokenizer files that disagree, weights that are not read) is logged as
    warnings, which Python shows on stderr.
    """
    bundle = open_bundle(path)
    for note in bundle.notes:
        _log.warning("%s", note)
    documents = LongDocuments(max_length=max_length, on_long=on_long, stride=stride)
    refuse_lengths(bundle, documents)
    chosen = parse_precision(precision, bundle, device=device)
    make_engine = partial(engine_of, device=device, precision=chosen, num_threads=num_threads)
    with not_collecting():
        scorer = open_scorer(bundle, documents, make_engine, device=device)
    return Classifier(bundle, scorer, device=device)


def _batches(given: GivenTexts) -> Iterable[SourceRows]:
    for start in range(0, len(given.first), BATCH_ROWS):
        texts = given.first.slice(start, BATCH_ROWS)
        stop = start + len(texts)
        yield SourceRows(
            start=start,
            num_rows=len(texts),
            texts=texts,
            text_pairs=None if given.second is None else given.second.slice(start, BATCH_ROWS),
            errors={row - start: code for row, code in given.errors.items() if start <= row < stop},
        )
