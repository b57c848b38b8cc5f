"""One optimizer step: passes forward and backward, gradients summed over ranks, an update.

On a GPU a pass of a shape met before is replayed from a CUDA graph, and so is the update: at 32
documents a step the host would otherwise be the limit. Gradients lie in a few flat buffers. In the
last pass of a step each is summed over ranks as soon as its last gradient is there, beside the rest
of the backward pass, as `DistributedDataParallel` does it; recorded passes hold these sums. The
table of token embeddings, a third of DistilBERT and most of XLM-RoBERTa, is last to get its gradient
and has one in few rows: ranks know each other's tokens and sum those rows alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from assay.engine.graphs import recording
from assay.train.inputs import Shape, TrainBatch, tensors_of
from assay.train.model import Classifier
from assay.train.objective import Objective
from assay.train.sharded import ShardedGradients

BUCKET_BYTES = (8 << 20, 64 << 20)
"""The least and the most of gradients that are summed at a time."""


class Gradients:
    """The gradients of parameters in flat buffers, summed over ranks during the backward pass."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, world_size: int, table: nn.Parameter | None = None
    ) -> None:
        """Give each parameter a gradient of zeros; later parameters, whose gradients come first, go first.

        `table`: the one of them of which a step reads few rows, [V, H]; `sum_table` sums it.
        """
        self.buckets: list[torch.Tensor] = []
        self._is_last_pass = True
        self._is_alone = world_size == 1
        self._missing: list[int] = []
        self._next_to_sum = 0
        self._sizes: list[int] = []
        self._works: list[dist.Work] = []
        for members in _buckets([each for each in reversed(parameters) if each is not table]):
            bucket = self._bucket_of(members)
            self._sizes.append(len(members))
            if not self._is_alone:
                for parameter in members:
                    parameter.register_post_accumulate_grad_hook(self._hook(len(self.buckets)))
            self.buckets.append(bucket)
        self._missing = list(self._sizes)
        self._table_VH: torch.Tensor | None = None
        if table is not None:
            self.buckets.append(self._bucket_of([table]))
            self._table_VH = self.buckets[-1].view_as(table)

    @staticmethod
    def _bucket_of(members: Sequence[nn.Parameter]) -> torch.Tensor:
        bucket = torch.zeros(sum(each.numel() for each in members), device=members[0].device)
        start = 0
        for parameter in members:
            parameter.grad = bucket[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        return bucket

    def begin_pass(self, *, is_last: bool) -> None:
        """Say whether gradients are whole after this pass, and are to be summed over ranks."""
        self._is_last_pass = is_last

    def zero(self) -> None:
        """Begin a new step."""
        for bucket in self.buckets:
            bucket.zero_()

    def clip(self, max_norm: float, optimizer: torch.optim.AdamW) -> torch.Tensor:
        """Have the optimizer scale gradients of a larger norm down to `max_norm`; the norm, float32 []."""
        norms = torch.stack([torch.linalg.vector_norm(bucket) for bucket in self.buckets])
        total: torch.Tensor = torch.linalg.vector_norm(norms)
        # the fused step divides by the scale, as torch's own gradient scaler has it; 1 changes nothing
        untyped: Any = optimizer
        untyped.grad_scale = (total / max_norm).clamp(min=1.0)
        untyped.found_inf = torch.zeros_like(total)
        return total

    def finish_pass(self) -> None:
        """Wait (on a GPU: have its stream wait) for the sums over ranks; what never came is summed now."""
        if self._is_last_pass and not self._is_alone:
            for index in range(self._next_to_sum, len(self._sizes)):
                self._sum(index)
            for work in self._works:
                work.wait()
            self._works.clear()
        self._missing = list(self._sizes)
        self._next_to_sum = 0

    def sum_table(self, token_ids: torch.Tensor | None) -> None:
        """Sum the table's gradient over ranks, after the last pass of a step.

        `token_ids`: its rows that any rank has looked up in the step, each once and the same on all ranks,
        int64; None: any row.
        """
        if self._table_VH is None or self._is_alone:
            return
        if token_ids is None or 2 * len(token_ids) > len(self._table_VH):
            dist.all_reduce(self._table_VH)
            return
        rows_U = token_ids.to(self._table_VH.device, non_blocking=True)
        summed_UH = self._table_VH.index_select(0, rows_U)
        dist.all_reduce(summed_UH)
        self._table_VH.index_copy_(0, rows_U, summed_UH)

    def _hook(self, index: int) -> Callable[[torch.Tensor], None]:
        def arrived(_: torch.Tensor) -> None:
            self._missing[index] -= 1
            # in the order of the buckets: ranks must sum the same ones together, whatever comes first on each
            while self._is_last_pass and self._next_to_sum < len(self._sizes):
                if self._missing[self._next_to_sum]:
                    break
                self._sum(self._next_to_sum)
                self._next_to_sum += 1

        return arrived

    def _sum(self, index: int) -> None:
        work = dist.all_reduce(self.buckets[index], async_op=True)
        if work is not None:
            self._works.append(work)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: TrainBatch
    """The buffers that the graph reads."""


class Stepper:
    """Trains a classifier, a pass and an update at a time. Losses stay on the device until asked for."""

    def __init__(
        self,
        classifier: Classifier,
        optimizer: torch.optim.AdamW,
        objective: Objective,
        *,
        device: torch.device,
        max_gradient_norm: float,
        world_size: int = 1,
        is_sharded: bool = False,
        records: bool = True,
    ) -> None:
        """`records`: whether passes may be replayed from graphs; only packed ones on a GPU are.

        A classifier that `is_sharded` sums gradients over ranks by itself.
        """
        self._classifier = classifier
        self._optimizer = optimizer
        self._objective = objective
        self._device = device
        self._max_norm = max_gradient_norm
        self._is_alone = world_size == 1
        self._on_gpu = device.type == "cuda"
        self.records = records and self._on_gpu and classifier.can_fill and not is_sharded
        """Whether passes want one of few shapes."""
        trained = {id(each) for group in optimizer.param_groups for each in group["params"]}
        module = cast("nn.Module", classifier)
        # as the model has them, lowest first; groups of the optimizer may begin with the head
        parameters = [each for each in module.parameters() if id(each) in trained]
        table = None if is_sharded else classifier.token_table
        table = table if id(table) in trained else None
        self.wants_token_ids = table is not None and not self._is_alone
        """Whether ranks sum the rows of a step's tokens."""
        self._gradients: Gradients | ShardedGradients
        if is_sharded:
            self._gradients = ShardedGradients(module, parameters)
        else:
            self._gradients = Gradients(parameters, world_size=world_size, table=table)
        self._seed = torch.zeros(1, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._norm = torch.zeros((), device=device)
        self._recorded: dict[tuple[Shape, bool], _Recorded | None] = {}
        """By shape, and whether the pass sums over ranks; None for one met once."""
        self._update_graph: torch.cuda.CUDAGraph | None = None
        self._has_updated = False
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        self._pool = torch.cuda.graph_pool_handle() if self.records else None

    @contextmanager
    def stream(self) -> Iterator[None]:
        """What passes and updates are to run within: one stream, so that recorded ones follow the others."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def run_pass(self, batch: TrainBatch, *, seed: int, is_last: bool) -> None:
        """Add the gradients and the loss of a batch on the host; `seed` decides on its dropout.

        With `is_last` all gradients but the token table's are summed over ranks.
        """
        torch.manual_seed(seed)
        self._seed.fill_(seed)
        if self.records:
            self._replay(batch, is_last=is_last)
        else:
            self._pass(batch.to(self._device), is_last=is_last)

    def _replay(self, batch: TrainBatch, *, is_last: bool) -> None:
        """Run a batch of a shape met for the first time as it is, record the second, replay all later ones."""
        key = (batch.shape, is_last and not self._is_alone)
        if key not in self._recorded:
            self._recorded[key] = None
            self._pass(batch.to(self._device), is_last=is_last)
            return
        found = self._recorded[key]
        if found is None:
            found = self._recorded[key] = self._record(batch.to(self._device), is_last=is_last)
        for own, given in zip(tensors_of(found.batch), tensors_of(batch), strict=True):
            own.copy_(given, non_blocking=True)
        found.graph.replay()

    def update(self, token_ids: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Clip, update and begin anew; the step's loss on this rank and gradient norm, on the device.

        `token_ids`: of all tokens of the step on all ranks, each once, int64 on the host; None: not known.
        """
        self._gradients.sum_table(token_ids)
        if not self.records or not self._has_updated:
            self._update()
        else:
            if self._update_graph is None:
                self._update_graph = torch.cuda.CUDAGraph()
                with recording(self._update_graph, pool=self._pool, stream=self._stream):
                    self._update()
            self._update_graph.replay()
        self._has_updated = True
        figures = (self._loss.clone(), self._norm.clone())
        self._loss.zero_()
        return figures

    def end(self) -> None:
        """Let go of what was recorded; NCCL's group cannot end before the recorded sums."""
        for recorded in self._recorded.values():
            if recorded is not None:
                recorded.graph.reset()
        self._recorded.clear()

    def _pass(self, batch: TrainBatch, *, is_last: bool) -> None:
        self._gradients.begin_pass(is_last=is_last)
        logits_SC = self._classifier(batch, self._seed)
        losses_S = self._objective(logits_SC, batch.targets)
        loss = torch.dot(losses_S, batch.weights_S)
        loss.backward()
        self._gradients.finish_pass()
        self._loss.add_(loss.detach())

    def _update(self) -> None:
        self._norm.copy_(self._gradients.clip(self._max_norm, self._optimizer))
        self._optimizer.step()
        self._gradients.zero()

    def _record(self, batch: TrainBatch, *, is_last: bool) -> _Recorded:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        with recording(graph, pool=self._pool, stream=self._stream):
            self._pass(batch, is_last=is_last)
        return _Recorded(graph=graph, batch=batch)


def _buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Each half of what is left: large ones are summed faster, and the last is waited for."""
    least, most = BUCKET_BYTES
    left = sum(each.nbytes for each in parameters)
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if room <= 0:
            buckets.append([])
            room = min(max(left // 2, least), most)
        buckets[-1].append(parameter)
        room -= parameter.nbytes
        left -= parameter.nbytes
    return buckets
