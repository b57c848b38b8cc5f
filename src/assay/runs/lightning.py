"""A Lightning callback that streams predictions to the parts of an ordered, checked result.

Needs pytorch-lightning, which the extra `lightning` brings. Every rank writes files of its own, keyed by the row ids
that its batches carry; rank 0 puts them together (`predictions` says how). `batch_indices` is not used:
Lightning does not know it with every sampler and every number of loader workers.

Not covered: Trainers of the `lightning` package (as opposed to `pytorch_lightning`), which refuse callbacks
of the other; taking up the work of an attempt that died.
"""

import difflib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Protocol, cast
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay import errors
from assay.data.storage import open_store
from assay.errors import StorageError, UsageError, WorkError
from assay.extras import missing_line
from assay.runs.predictions.layout import PredictionLayout, RowSource, output_width
from assay.runs.predictions.publish import publish_predictions
from assay.runs.predictions.result import Predictions, claim, find_predictions
from assay.runs.predictions.staging import RowStaging

try:
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.callbacks import BasePredictionWriter
except ModuleNotFoundError as error:
    raise ImportError(missing_line("pytorch_lightning", used_by="assay.runs.lightning")) from error

Array = npt.NDArray[np.generic]

_log = logging.getLogger(__name__)


class _Tensor(Protocol):
    """As much of a torch tensor as is needed here; this room does not import torch."""

    dtype: object
    shape: Sequence[int]

    def detach(self) -> "_Tensor": ...
    def cpu(self) -> "_Tensor": ...
    def float(self) -> "_Tensor": ...
    def is_floating_point(self) -> bool: ...
    def numpy(self) -> Array: ...


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict_step` returns, for `trainer.predict(..., return_predictions=False)`.

    `predict_step` returns a mapping; `outputs` names the column that each key goes to. The row ids are
    in the batch, under the key (or attribute) `row_key`: an integer tensor [B] of positions in the
    cohort, 0 to num_rows - 1, the same on every rank. All other columns of `schema` come from `rows`:
    a table, a dataset, or a function that gives a table for an array of row ids.

    Any number of ranks, any order of rows. Half precision is cast to float32; each tensor is moved to
    the CPU once. A row that two ranks predicted (the padding of a distributed sampler) is kept from the
    lowest rank and counted; CheckError where the two lie further apart than `duplicate_tolerance`, for
    then the ids do not name one row each. All ranks see the same row once or all raise CheckError.

    `out` (folder or object-store URL) is reserved for this result: schema, outputs, rows, precision and
    `identity` (by default the model's weights, which rank 0 hashes; give something of your own where
    the weights are sharded over the ranks). Another result is refused, the same again changes nothing.
    Several nodes need an `out` that all of them reach.
    """

    result: Predictions | None
    """The whole result, on every rank, once `trainer.predict` has returned."""

    def __init__(
        self,
        out: str | PathLike[str],
        *,
        schema: pa.Schema,
        outputs: Mapping[str, str],
        rows: RowSource | None = None,
        num_rows: int | None = None,
        row_key: str = "row",
        identity: Mapping[str, object] | None = None,
        duplicate_tolerance: float = 0.05,
    ) -> None:
        super().__init__(write_interval="batch")
        self.layout = PredictionLayout(
            schema=schema,
            outputs=outputs,
            rows=rows,
            num_rows=num_rows,
            row_key=row_key,
            duplicate_tolerance=duplicate_tolerance,
        )
        self.result = None
        self._store = open_store(out)
        self._identity = identity
        self._run_id: str | None = None
        self._staging: RowStaging | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier `predict` of the same callback."""
        super().setup(trainer, pl_module, stage)
        self.result, self._run_id, self._staging = None, None, None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reserve `out` (rank 0), or refuse on every rank what lies there."""
        self._begin(trainer, pl_module)

    def write_on_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002  the hook's signature
        pl_module: LightningModule,  # noqa: ARG002
        prediction: object,
        batch_indices: Sequence[int] | None,  # noqa: ARG002
        batch: object,
        batch_idx: int,
        dataloader_idx: int,  # noqa: ARG002
    ) -> None:
        """Stage one batch of this rank."""
        if self._staging is None:
            return  # the result was there before
        rows = self._row_ids(batch)
        if not isinstance(prediction, Mapping):
            kind = type(prediction).__name__
            raise UsageError(
                f"predict_step returned {kind} for batch {batch_idx}; it must return a mapping with "
                f"{', '.join(self.layout.outputs)}"
            )
        self._staging.add(
            rows,
            {column: self._output(prediction, key, len(rows)) for key, column in self.layout.outputs.items()},
        )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Publish the result, once every rank has closed its files."""
        self._finish(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Publish an empty result where there was no batch: Lightning skips the other hooks then."""
        if stage == "predict" and self._run_id is None:
            self._begin(trainer, pl_module)
            self._finish(trainer)

    def on_exception(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Close this rank's files, so that what was predicted can be read; publish nothing."""
        staging, self._staging = self._staging, None
        if staging is None:
            return
        try:
            staging.abort()
        except StorageError as error:
            _log.warning("the last staged rows are lost: %s", error)
        else:
            _log.warning(
                "predict failed; rows predicted so far are in %s: %s", self._store.url, staging.files
            )

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def reserve() -> dict[str, object]:
            model = {"weights": weights_checksum(pl_module)} if self._identity is None else self._identity
            given = {"precision": str(trainer.precision), **model}
            run_id = claim(self._store, {**self.layout.identity(), **given})
            return {
                "run_id": run_id,
                "attempt": uuid4().hex[:12],
                "finished": find_predictions(self._store) is not None,
            }

        begun = _from_rank(trainer, 0, reserve)
        self._run_id = str(begun["run_id"])
        if not begun["finished"]:
            self._staging = RowStaging(
                self._store, self.layout, attempt=str(begun["attempt"]), rank=trainer.global_rank
            )

    def _finish(self, trainer: Trainer) -> None:
        staging = self._staging
        report: dict[str, object] = {"files": [], "num_repeats": 0}
        if staging is not None:
            closed = [_from_rank(trainer, rank, staging.close) for rank in range(trainer.world_size)]
            report = {
                "files": [name for each in closed for name in cast("list[str]", each["files"])],
                "num_repeats": sum(cast("int", each["num_repeats"]) for each in closed),
            }
        run_id = self._run_id
        assert run_id is not None

        def publish() -> dict[str, object]:
            done = publish_predictions(
                self._store, self.layout, run_id=run_id, report=report, world_size=trainer.world_size
            )
            return done.to_json()

        self.result = Predictions.from_json(_from_rank(trainer, 0, publish))
        self._staging = None

    def _row_ids(self, batch: object) -> npt.NDArray[np.int64]:
        key = self.layout.row_key
        value = batch.get(key) if isinstance(batch, Mapping) else getattr(batch, key, None)
        if value is None:
            known = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise UsageError(
                f"the batch has no {key!r} ({known}); put the row ids into it as an integer tensor, "
                "or set row_key"
            )
        rows = _to_array(value)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise UsageError(
                f"row ids {key!r} are {rows.dtype} of shape {rows.shape}; they must be integers of shape [B]"
            )
        return rows.astype(np.int64, copy=False)

    def _output(
        self, prediction: Mapping[object, object], key: str, num_rows: int
    ) -> npt.NDArray[np.float32]:
        if key not in prediction:
            close = difflib.get_close_matches(key, map(str, prediction), 3)
            near = f" (nearest: {', '.join(close)})" if close else ""
            raise UsageError(f"predict_step returned no {key!r}{near}; fix it, or the keys of outputs")
        values = _to_array(prediction[key]).astype(np.float32, copy=False)
        column = self.layout.outputs[key]
        width = output_width(self.layout.schema.field(column).type, column)
        if width is None and values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        wanted = (num_rows,) if width is None else (num_rows, width)
        if values.shape != wanted:
            raise UsageError(
                f"predict_step returned {key!r} of shape {values.shape}; for {num_rows} row ids and column "
                f"{column!r} it must be {wanted}"
            )
        return values


def weights_checksum(module: LightningModule) -> str:
    """SHA-256 over the names, types, shapes and values of all parameters and buffers, 64 hex digits.

    Takes about a second a gigabyte; the weights are read one by one. Not for weights that are sharded.
    """
    checksum = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        checksum.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        checksum.update(np.ascontiguousarray(_to_array(tensor)).data)
    return checksum.hexdigest()


def _to_array(value: object) -> Array:
    """A tensor or anything numpy takes, in memory of its own: a model may write into its outputs again."""
    if not hasattr(value, "detach"):
        return np.array(value)
    tensor = cast("_Tensor", value).detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    return np.array(tensor.numpy())


def _from_rank(trainer: Trainer, rank: int, make: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What `make` gives on `rank`, on every rank; if it fails there, every rank fails alike.

    To be called by all ranks in the same order, like a barrier.
    """
    message, failure = "", None
    if trainer.global_rank == rank:
        try:
            message = json.dumps({"value": make()})
        except Exception as caught:  # noqa: BLE001  the other ranks are waiting, whatever came of it
            failure = caught
            kind = errors.kind_of(caught)
            message = json.dumps(
                {"kind": kind, "message": str(caught) if kind else f"{type(caught).__name__}: {caught}"}
            )
    answer = json.loads(trainer.strategy.broadcast(message, src=rank))
    if failure is not None:
        raise failure
    if "value" not in answer:
        if answer["kind"] is None:
            raise WorkError(f"rank {rank} failed: {answer['message']}")
        raise errors.KINDS[answer["kind"]](answer["message"])
    value: dict[str, object] = answer["value"]
    return value
