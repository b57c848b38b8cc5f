"""Chunks of pairs to the answers of a cascade: all to the first model, to the second what that leaves open.

Axes: N rows of a chunk.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.data.rows import SourceRows
from assay.embed.forward import FinishedChunk, ForwardedChunk, row_columns, with_not_finite
from assay.engine.sequences import ForwardStats
from assay.metrics import FloatArray
from assay.score.cascade.bundle import Cascade
from assay.score.cascade.columns import cascade_arrays
from assay.score.cascade.decide import Answers, answer, combined, decisions_of, logits_of
from assay.score.cascade.reading import CascadeChunk, CascadeReader
from assay.score.schema import score_arrays
from assay.score.scorer import Scorer
from assay.tokenize.chunks import TEXT_BATCH_ROWS, EncodedChunk


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeForwarded(ForwardedChunk):
    """A chunk and what both models gave for it."""

    answers: Answers
    errors: Mapping[int, str]
    """Error code by row, of rows that the second model could not read."""


class CascadeScorer(Scorer):
    """Scores chunks of pairs with two scorers; `engine` and `encoder` are the second's."""

    def __init__(self, bundle: Cascade, first: Scorer, second: Scorer) -> None:
        super().__init__(bundle, second.engine, second.encoder)
        self.first, self.second = first, second
        """Of the two models."""
        self._cascade = bundle
        self._reader = CascadeReader(lambda rows, _: first.chunks(rows))

    def description(self) -> str:
        """Both engines."""
        return f"first {self.first.description()}; second {self.second.description()}"

    def forget(self) -> None:
        """Forget the texts that a model has met."""
        self.first.forget()
        self.second.forget()

    def chunks(self, rows: Iterable[SourceRows]) -> Iterator[EncodedChunk]:
        """Rows of pairs as chunks for the first model, with their texts."""
        return self._reader.chunks(rows)

    def forward(self, chunk: EncodedChunk) -> ForwardedChunk:
        """The answers for a chunk's rows; raises Stopped where either model is told to stop."""
        assert isinstance(chunk, CascadeChunk), "chunks are those of CascadeReader"
        label = self._cascade.labels[1]
        first = self.first.forward(chunk.inner)
        stats, errors = [first.stats], dict[int, str]()
        fp32_rows = [first.fp32_rows]

        def ask_second(rows: npt.NDArray[np.int64]) -> FloatArray:
            found_M = np.full(len(rows), np.nan)
            for part in self.second.chunks(_rows_of(chunk, rows)):
                forwarded = self.second.forward(part)
                stats.append(forwarded.stats)
                fp32_rows.append(rows[part.start + forwarded.fp32_rows])
                found_M[part.start : part.start + part.num_rows] = _probability(self.second, forwarded, label)
                errors.update({int(rows[part.start + row]): code for row, code in part.errors.items()})
            return found_M

        answers = answer(
            self._cascade.thresholds,
            _probability(self.first, first, label),
            ask_second,
            lambda one_M, two_M, _: combined(self._cascade.combination, one_M, two_M),
        )
        rows = np.arange(chunk.num_rows, dtype=np.int64)
        return CascadeForwarded(
            chunk=chunk,
            outputs_SC=logits_of(answers.final_M),
            row_S=rows,
            view_S=np.zeros_like(rows),
            stats=_sum(stats),
            fp32_rows=np.unique(np.concatenate(fp32_rows)),
            answers=answers,
            errors=errors,
        )

    def logits(self, forwarded: ForwardedChunk) -> npt.NDArray[np.float32]:
        """The logits [N, 2] that stand for the cascade's probability; NaN for a row without one."""
        return forwarded.outputs_SC

    def finish(self, forwarded: ForwardedChunk) -> FinishedChunk:
        """The answers for a chunk's rows, in order."""
        assert isinstance(forwarded, CascadeForwarded), "what is finished was forwarded here"
        answers = forwarded.answers
        decisions = decisions_of(answers, self._cascade.labels)
        codes = {**forwarded.errors, **forwarded.chunk.errors}
        errors = with_not_finite(codes, decisions.is_finite_N)
        columns, is_bad_N = row_columns(forwarded.chunk, errors)
        return FinishedChunk(
            columns={
                **columns,
                **score_arrays(self.decider, decisions, is_bad_N),
                **cascade_arrays(answers, is_bad_N),
            },
            errors=errors,
            stats=forwarded.stats,
        )


def _probability(scorer: Scorer, forwarded: ForwardedChunk, label: str) -> FloatArray:
    """The calibrated probability of a label for each row, NaN where there is none: that of the model's own column."""
    values_NC = scorer.decider.decide(scorer.logits(forwarded)).values_NC
    found_N: FloatArray = values_NC[:, scorer.decider.labels.index(label)].astype(np.float64)
    return found_N


def _rows_of(chunk: CascadeChunk, rows: npt.NDArray[np.int64]) -> Iterator[SourceRows]:
    for start in range(0, len(rows), TEXT_BATCH_ROWS):
        picked = rows[start : start + TEXT_BATCH_ROWS]
        yield SourceRows(
            start=start,
            num_rows=len(picked),
            texts=chunk.texts.take(picked),
            text_pairs=chunk.text_pairs.take(picked),
        )


def _sum(stats: list[ForwardStats]) -> ForwardStats:
    return ForwardStats(
        num_forward_tokens=sum(each.num_forward_tokens for each in stats),
        num_padded_tokens=sum(each.num_padded_tokens for each in stats),
        num_duplicates=sum(each.num_duplicates for each in stats),
        num_batches=sum(each.num_batches for each in stats),
        seconds=sum(each.seconds for each in stats),
        forward_seconds=sum(each.forward_seconds for each in stats),
        num_cached=sum(each.num_cached for each in stats),
    )
