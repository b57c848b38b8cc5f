"""Rows as token ids and targets, and the packed batch of one pass, laid out on the host.

Documents lie end to end, longest first. Where the device replays recorded work, a batch has one of few
shapes: tokens are filled up with documents of no weight, and documents with empty ones.

Axes: N rows, T tokens of a batch, S documents of a batch, C outputs.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from assay.engine.positions import positions_without_pads, token_positions
from assay.errors import BundleError, InputError
from assay.labelled.labels import Targets, to_targets
from assay.labelled.rows import LabelledRows
from assay.siamese.settings import SiameseTraining
from assay.siamese.style import Features, StyleScale
from assay.tasks import Task
from assay.tokenize.encode import Encoder
from assay.tokenize.tokens import Tokens
from assay.train.batches import IndexArray
from assay.train.datasets import Prepared
from assay.train.objective import balanced_weights
from assay.train.settings import TrainSettings

Pooling = Literal["first", "mean", "attention"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedRows:
    """Rows as a model takes them."""

    flat_ids: NDArray[np.integer]
    """Token ids of all rows end to end, special tokens included."""
    offsets: IndexArray
    """Row k is flat_ids[offsets[k]:offsets[k + 1]]; [N + 1]."""
    second_starts: NDArray[np.int32] | None
    """Pairs: where the second text begins within its row, 0 for nowhere; [N]."""
    targets: Targets
    """int64 [N], float32 [N, C] or float32 [N]."""
    weights: NDArray[np.float32]
    """How much a row counts in the loss; [N]."""
    num_truncated: int
    """Rows that were cut."""
    style: NDArray[np.float32] | None = None
    """Siamese: style features of the first and of the second text, end to end; [N, 2F]."""
    teacher: NDArray[np.float32] | None = None
    """Siamese: logits of a teacher, [N, C]."""
    keys: IndexArray | None = None
    """Siamese: numbers of the two texts, of their books and of their authors, -1 where not known; [N, 6]."""

    @property
    def num_rows(self) -> int:
        """N, the number of rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IndexArray:
        """Tokens of each row, [N]."""
        return np.diff(self.offsets)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedSplit:
    """What is trained on, and what chooses the weights."""

    train: EncodedRows
    validation: EncodedRows
    style: StyleScale | None = None
    """Siamese: the style features of the rows, and their spread over the training texts."""


def tokens_of(encoder: Encoder, rows: LabelledRows) -> Tokens:
    """The rows as token ids; raises `InputError` for what has no tokens."""
    pairs = None if rows.text_pairs is None else pa.array(rows.text_pairs, type=pa.large_string())
    tokens = encoder.encode(pa.array(rows.texts, type=pa.large_string()), pairs)
    if tokens.errors:
        row, code = min(tokens.errors.items())
        raise InputError(
            f"{len(tokens.errors)} of {rows.num_rows} rows cannot be tokenized, the first is row {row} ({code}); "
            "fix or drop them"
        )
    return tokens


def encode_rows(encoder: Encoder, rows: LabelledRows, task: Task, names: tuple[str, ...]) -> EncodedRows:
    """The rows as token ids and targets, each of weight 1; raises `InputError` for what has no tokens."""
    tokens = tokens_of(encoder, rows)
    return EncodedRows(
        flat_ids=tokens.flat_ids,
        offsets=tokens.offsets.astype(np.int64),
        second_starts=tokens.second_starts,
        targets=to_targets(rows.labels, task, names),
        weights=np.ones(rows.num_rows, dtype=np.float32),
        num_truncated=int(tokens.truncated.sum()),
    )


def encode_sides(
    encoder: Encoder,
    rows: LabelledRows,
    names: tuple[str, ...],
    style: StyleScale,
    settings: SiameseTraining,
) -> EncodedRows:
    """The rows of pairs with each text as a sequence of its own, the second behind the first.

    Raises `InputError` for rows of single texts.
    """
    if rows.text_pairs is None:
        raise InputError(
            "rows of single texts; a Siamese model is trained on pairs; name the column of the second text with"
            " text_pair_column"
        )
    numbers: dict[str, int] = {}
    for text in (*rows.texts, *rows.text_pairs):
        numbers.setdefault(text, len(numbers))
    distinct = tuple(numbers)
    keys_N2 = np.array(
        [
            [numbers[first], numbers[second]]
            for first, second in zip(rows.texts, rows.text_pairs, strict=True)
        ],
        dtype=np.int64,
    ).reshape(-1, 2)
    tokens = tokens_of(encoder, LabelledRows(texts=distinct, labels=("",) * len(distinct)))
    offsets = tokens.offsets.astype(np.int64)
    lengths_N2 = np.diff(offsets)[keys_N2]
    bounds = np.concatenate([[0], np.cumsum(lengths_N2.ravel())])
    flat_ids = tokens.flat_ids[
        np.repeat(offsets[keys_N2.ravel()] - bounds[:-1], lengths_N2.ravel()) + np.arange(bounds[-1])
    ]
    features: Features = style(distinct)[keys_N2].reshape(rows.num_rows, -1)
    return EncodedRows(
        flat_ids=flat_ids,
        offsets=bounds[::2].astype(np.int64),
        second_starts=lengths_N2[:, 0].astype(np.int32),
        targets=to_targets(rows.labels, Task.SINGLE_LABEL, names),
        weights=np.ones(rows.num_rows, dtype=np.float32),
        num_truncated=int(tokens.truncated[keys_N2].any(axis=1).sum()),
        style=features,
        keys=np.column_stack(
            [
                keys_N2,
                _numbered(rows, settings.book_columns, "book_columns"),
                _numbered(rows, settings.author_columns, "author_columns"),
            ]
        ),
    )


def _numbered(rows: LabelledRows, columns: tuple[str, ...], setting: str) -> IndexArray:
    """A number of each value of two columns, -1 where it is null or there are no such columns; [N, 2]."""
    found = np.full((rows.num_rows, 2), -1, dtype=np.int64)
    numbers: dict[str, int] = {}
    for side, name in enumerate(columns):
        if name not in rows.keys:
            raise InputError(
                f"{setting} names {name!r}; the rows have no such column; hand it in, or leave it out"
            )
        for row, value in enumerate(rows.keys[name]):
            if value is not None:
                found[row, side] = numbers.setdefault(value, len(numbers))
    return found


def encode_split(settings: TrainSettings, prepared: Prepared, vocab_size: int) -> EncodedSplit:
    """Both sides as token ids and targets, weighted as the settings say; `vocab_size` is the model's.

    Raises `BundleError` for a tokenizer of another model.
    """
    encoder = Encoder.from_bundle(settings.base, max_length=settings.max_length, on_long="truncate")
    style = None
    sides = prepared.train, prepared.validation
    if settings.is_siamese:
        texts = dict.fromkeys((*prepared.train.texts, *(prepared.train.text_pairs or ())))
        style = StyleScale.fit(tuple(texts), settings.style, settings.language)
        train_rows, validation_rows = (
            encode_sides(encoder, rows, prepared.names, style, settings) for rows in sides
        )
    else:
        train_rows, validation_rows = (
            encode_rows(encoder, rows, settings.predicts, prepared.names) for rows in sides
        )
    most = max(int(side.flat_ids.max()) for side in (train_rows, validation_rows))
    if most >= vocab_size:
        raise BundleError(
            f"{settings.base}: tokenizer.json gives token id {most} and the model's vocabulary has {vocab_size:,};"
            " the two are of different models; copy the tokenizer that belongs to the weights"
        )
    if settings.class_weights == "balanced" and settings.predicts is Task.SINGLE_LABEL:
        weights = balanced_weights(train_rows.targets, len(prepared.names))
        train_rows = replace(train_rows, weights=weights)
    return EncodedSplit(train=train_rows, validation=validation_rows, style=style)


# ---------------------------------------------------------------- the batch of one pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What a model needs to be told of its tokens, beyond ids."""

    has_types: bool
    """Whether segments are told apart."""
    pooling: Pooling
    """What the head sees."""
    pad_token_id: int | None = None
    """RoBERTa: the id that is not counted among positions."""
    pad_row: int = 0
    """RoBERTa: the row of the position table for such an id."""
    has_sides: bool = False
    """Siamese: whether the two texts of a row are sequences of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a batch; batches of one shape run the same recorded work."""

    num_tokens: int
    """T, those that fill up counted."""
    num_documents: int
    """S, those of no weight counted."""
    max_seqlen: int
    """The longest that any document of such a batch may be."""


def filled_shape(
    num_tokens: int, *, num_documents: int, max_seqlen: int, most_tokens: int | None = None
) -> Shape:
    """The shape, one of few, that a batch of so many tokens and at most so many documents is filled up to.

    `most_tokens`: of the batches that the ranks have at a time. Where that is little more it is the shape of
    all, so that none waits while another records.
    """
    step = _shape_step(num_tokens)
    if most_tokens is not None and most_tokens - num_tokens <= step // 2:
        num_tokens, step = most_tokens, _shape_step(most_tokens)
    # what fills up is less than two steps, and cut into documents of at most max_seqlen tokens
    fillers = -(-2 * step // max_seqlen)
    return Shape(
        num_tokens=-(-max(num_tokens, 1) // step) * step,
        num_documents=num_documents + fillers,
        max_seqlen=max_seqlen,
    )


def _shape_step(num_tokens: int) -> int:
    """By how many tokens shapes of about so many differ: a sixteenth at most from 1,024 on."""
    return max(64, 1 << max(0, num_tokens.bit_length() - 5))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBatch:
    """One pass: a packed batch with targets, all tensors on one device."""

    shape: Shape
    input_ids_T: torch.Tensor
    """int32"""
    positions_T: torch.Tensor
    """Row of the position table of each token, int32; its place in its document where they are rotary."""
    token_types_T: torch.Tensor | None
    """int32; None where the model does not tell segments apart."""
    documents_T: torch.Tensor | None
    """Document of each token, int32; None unless the head sees a mean."""
    cu_seqlens: torch.Tensor
    """Document k is tokens[cu_seqlens[k]:cu_seqlens[k + 1]], int32 [S + 1]."""
    firsts_S: torch.Tensor
    """First token of each document, int32; a token of no consequence for an empty one."""
    targets: torch.Tensor
    """int32 [S], float32 [S, C] or float32 [S]."""
    weights_S: torch.Tensor
    """Share of the step's loss that is the document's, float32; 0 for one that fills up."""
    sides_R2: torch.Tensor | None = None
    """Siamese: which documents the first and the second text of each row are, int64; rows are then R = S / 2."""
    style_RX: torch.Tensor | None = None
    """Siamese: style features of both texts, float32."""
    teacher_RC: torch.Tensor | None = None
    """Siamese: logits of a teacher, float32."""
    lengths: tuple[int, ...] | None = None
    """Tokens of each document, longest first, where nothing was filled up."""

    def to(self, device: torch.device) -> "TrainBatch":
        """Return the batch on a device; copies from pinned memory do not wait."""
        if device.type == "cpu":
            return self
        return with_tensors(self, tuple(each.to(device, non_blocking=True) for each in tensors_of(self)))


def host_batch(
    rows: EncodedRows,
    chosen: IndexArray,
    layout: Layout,
    *,
    total_weight: float,
    shape: Shape | None = None,
) -> TrainBatch:
    """The chosen rows, longest first, as a batch on the CPU; `shape` is what it is filled up to.

    A document's weight is its row's over `total_weight`, which is that of the whole step on all ranks.
    """
    starts, lengths = _documents(rows, chosen, layout)
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    sides = None
    if layout.has_sides:
        assert shape is None, "passes of pairs are not filled up"
        sides = np.empty(len(order), dtype=np.int64)
        sides[order] = np.arange(len(order))
    else:
        chosen = chosen[order]
    num_tokens = int(lengths.sum())
    given = shape is not None
    if shape is None:
        shape = Shape(
            num_tokens=num_tokens, num_documents=len(lengths), max_seqlen=int(lengths.max(initial=1))
        )
    bounds = np.zeros(shape.num_documents + 1, dtype=np.int32)
    np.cumsum(lengths, out=bounds[1 : len(lengths) + 1])
    spare = np.arange(1, shape.num_documents - len(lengths) + 1) * shape.max_seqlen
    bounds[len(lengths) + 1 :] = np.minimum(num_tokens + spare, shape.num_tokens)
    assert bounds[-1] == shape.num_tokens, "the shape has room for what fills it up"
    ids = np.zeros(shape.num_tokens, dtype=np.int32)
    real = bounds[: len(lengths) + 1]
    within = token_positions(real)
    ids[:num_tokens] = rows.flat_ids[np.repeat(starts, lengths) + within]
    positions = np.zeros(shape.num_tokens, dtype=np.int32)
    counted = None
    if layout.pad_token_id is not None:
        counted = positions_without_pads(ids[:num_tokens], real, layout.pad_token_id, layout.pad_row)
    positions[:num_tokens] = within if counted is None else counted
    types = None
    if layout.has_types:
        types = np.zeros(shape.num_tokens, dtype=np.int32)
        if rows.second_starts is not None and sides is None:
            seconds = rows.second_starts[chosen]
            begins = np.where(seconds > 0, seconds, lengths)
            types[:num_tokens] = within >= np.repeat(begins, lengths)
    documents = None
    if layout.pooling != "first":
        documents = np.repeat(np.arange(shape.num_documents, dtype=np.int32), np.diff(bounds))
    num_rows = shape.num_documents if sides is None else len(chosen)
    own_targets: NDArray[np.generic] = rows.targets[chosen]
    if rows.keys is not None:
        own_targets = np.column_stack([own_targets, rows.keys[chosen]])
    targets = np.zeros((num_rows, *own_targets.shape[1:]), dtype=_target_type(rows.targets))
    targets[: len(chosen)] = own_targets
    weights = np.zeros(num_rows, dtype=np.float32)
    weights[: len(chosen)] = rows.weights[chosen] / total_weight
    return TrainBatch(
        shape=shape,
        input_ids_T=torch.from_numpy(ids),
        positions_T=torch.from_numpy(positions),
        token_types_T=None if types is None else torch.from_numpy(types),
        documents_T=None if documents is None else torch.from_numpy(documents),
        cu_seqlens=torch.from_numpy(bounds),
        firsts_S=torch.from_numpy(np.minimum(bounds[:-1], max(0, shape.num_tokens - 1))),
        targets=torch.from_numpy(targets),
        weights_S=torch.from_numpy(weights),
        sides_R2=None if sides is None else torch.from_numpy(sides.reshape(-1, 2)),
        style_RX=None if sides is None or rows.style is None else torch.from_numpy(rows.style[chosen]),
        teacher_RC=None if rows.teacher is None else torch.from_numpy(rows.teacher[chosen]),
        lengths=None if given else tuple(lengths.tolist()),
    )


def _documents(rows: EncodedRows, chosen: IndexArray, layout: Layout) -> tuple[IndexArray, IndexArray]:
    """Where the documents of the chosen rows begin among the ids, and how long they are; two of each with sides."""
    starts, stops = rows.offsets[chosen], rows.offsets[chosen + 1]
    if not layout.has_sides:
        return starts, stops - starts
    assert rows.second_starts is not None, "rows of pairs say where the second text begins"
    middles = starts + rows.second_starts[chosen]
    return np.column_stack([starts, middles]).ravel(), np.column_stack(
        [middles - starts, stops - middles]
    ).ravel()


def tensors_of(batch: TrainBatch) -> tuple[torch.Tensor, ...]:
    """The tensors that the batch has, in one order."""
    held = (
        batch.input_ids_T, batch.positions_T, batch.token_types_T, batch.documents_T,
        batch.cu_seqlens, batch.firsts_S, batch.targets, batch.weights_S, batch.sides_R2, batch.style_RX,
        batch.teacher_RC,
    )  # fmt: skip
    return tuple(each for each in held if each is not None)


def with_tensors(batch: TrainBatch, tensors: tuple[torch.Tensor, ...]) -> TrainBatch:
    """The batch with other tensors, in the order of `tensors_of`."""
    left = iter(tensors)
    return replace(
        batch,
        input_ids_T=next(left),
        positions_T=next(left),
        token_types_T=None if batch.token_types_T is None else next(left),
        documents_T=None if batch.documents_T is None else next(left),
        cu_seqlens=next(left),
        firsts_S=next(left),
        targets=next(left),
        weights_S=next(left),
        sides_R2=None if batch.sides_R2 is None else next(left),
        style_RX=None if batch.style_RX is None else next(left),
        teacher_RC=None if batch.teacher_RC is None else next(left),
    )


def pinned(batch: TrainBatch) -> TrainBatch:
    """The batch in pinned memory, from which a GPU copies by itself."""
    return with_tensors(batch, tuple(each.pin_memory() for each in tensors_of(batch)))


def _target_type(targets: Targets) -> type[np.int32] | type[np.float32]:
    return np.int32 if targets.dtype.kind == "i" else np.float32
