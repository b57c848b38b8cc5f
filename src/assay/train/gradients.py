"""Gradients of a model that every rank holds whole, summed over ranks; and the share that each rank updates.

Parameters and their gradients lie in a few flat buckets. In the last pass of a step each bucket is summed
as soon as its last gradient is there, beside the rest of the backward pass, as `DistributedDataParallel`
does it, but so that each rank gets the sum of its own share alone. It updates that share, holds the
optimizer's state of no other, and the ranks then gather what each has updated (Rajbhandari et al. 2020,
"ZeRO", stage 1): as many bytes as whole sums are, of which half travel beside the update, and a fraction
of the update. Gradients stay whole in memory.

The table of token embeddings, a third of DistilBERT and most of XLM-RoBERTa, is last to get its gradient,
which has few rows: ranks know each other's tokens, sum those rows alone, and update all of it each,
while the shares are gathered.

Axes: V rows of the table, U tokens of a step, each once, H hidden.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from assay.train.optimizer import load_state
from assay.train.world import World

BUCKET_BYTES = (16 << 20, 128 << 20)
"""The least and the most of gradients that are summed at a time."""
_ALIGNED = 64
"""Elements at a multiple of which each parameter and each share begins: kernels read several at once."""

# torch renames both; the releases supported know one name or the other
_untyped: Any = dist
_reduce_scatter = getattr(_untyped, "reduce_scatter_single", None) or _untyped.reduce_scatter_tensor
_all_gather = getattr(_untyped, "all_gather_single", None) or _untyped.all_gather_into_tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    """A parameter in its bucket."""

    name: str
    parameter: nn.Parameter
    start: int
    """Where it begins in the bucket, in elements."""
    own: nn.Parameter
    """What of it this rank updates: itself, or a flat view of some elements or none."""
    first: int
    """The first of these, of the parameter's elements."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bucket:
    """Flat buffers of as many elements for each rank."""

    members: Sequence[_Member]
    gradients: torch.Tensor
    values: torch.Tensor | None
    """The parameters; None where each lies by itself, because no other rank has a share."""
    share: slice
    """What this rank sums and updates."""

    def whole(self, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put tensors that lie as the own parts of the members, by name, together from all ranks.

        On the device, which needs room for a bucket.
        """
        if self.values is None:
            return dict(parts)
        flat = torch.zeros_like(self.values)
        for each in self.members:
            begin = each.start + each.first
            flat[begin : begin + each.own.numel()] = parts[each.name]
        _all_gather(flat, flat[self.share])
        return {
            each.name: flat[each.start : each.start + each.parameter.numel()].view_as(each.parameter)
            for each in self.members
        }


class Gradients:
    """The gradients of parameters in flat buckets, and the update of this rank's share of them."""

    can_record = True
    """Whether passes and updates may be recorded."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], *, world: World, table: nn.Parameter | None = None
    ) -> None:
        """Give each parameter a gradient of zeros; later parameters, whose gradients come first, go first.

        `parameters`: float32, by name, as the model has them, lowest first. Where there are several ranks,
        the memory of their values becomes a part of a bucket's. `table`: one of which a step reads few rows,
        [V, H], where it is among them; `sum_table` sums it, and every rank updates all of it.
        """
        self._world = world
        self.has_others = world.world_size > 1
        """Whether there are other ranks to sum with."""
        self._table = table if any(each is table for each in parameters.values()) else None
        self._is_last_pass = True
        self._next_to_sum = 0
        self._works: list[dist.Work] = []
        named = [(name, each) for name, each in parameters.items() if each is not self._table]
        self._shared = [self._bucket(members) for members in _buckets(named[::-1])]
        self._whole = [
            self._bucket([(name, each)]) for name, each in parameters.items() if each is self._table
        ]
        self._missing = [len(bucket.members) for bucket in self._shared]
        if self.has_others:
            for index, bucket in enumerate(self._shared):
                for each in bucket.members:
                    each.parameter.register_post_accumulate_grad_hook(self._hook(index))
        self._owns = {
            id(each.parameter): each.own
            for bucket in (*self._shared, *self._whole)
            for each in bucket.members
        }
        self.wants_token_ids = self._table is not None and self.has_others
        """Whether `sum_table` has a use for the tokens of a step."""

    def _bucket(self, named: Sequence[tuple[str, nn.Parameter]]) -> _Bucket:
        """Move parameters into buffers."""
        rank, num_shares = self._world.rank, self._world.world_size
        if named[0][1] is self._table:
            rank, num_shares = 0, 1
        starts = [0]
        for _, parameter in named:
            starts.append(_aligned(starts[-1] + parameter.numel(), _ALIGNED))
        size = _aligned(starts[-1], num_shares * _ALIGNED)
        share = slice(rank * size // num_shares, (rank + 1) * size // num_shares)
        gradients = torch.zeros(size, device=named[0][1].device)
        values = None if num_shares == 1 else torch.zeros_like(gradients)
        members = []
        for (name, parameter), start in zip(named, starts, strict=False):
            stop = start + parameter.numel()
            parameter.grad = gradients[start:stop].view_as(parameter)
            own, first = parameter, 0
            if values is not None:
                values[start:stop] = parameter.detach().flatten()
                parameter.data = values[start:stop].view_as(parameter)
                begin = min(max(share.start, start), stop)
                end = max(begin, min(share.stop, stop))
                own, first = nn.Parameter(values[begin:end]), begin - start
                own.grad = gradients[begin:end]
            members.append(_Member(name=name, parameter=parameter, start=start, own=own, first=first))
        return _Bucket(members=members, gradients=gradients, values=values, share=share)

    def own(self, parameter: nn.Parameter) -> nn.Parameter:
        """What an optimizer of this rank is to update of a parameter: a view of it, or itself."""
        return self._owns[id(parameter)]

    def begin_pass(self, *, is_last: bool) -> None:
        """Say whether gradients are whole after this pass, and are to be summed over ranks."""
        self._is_last_pass = is_last

    def finish_pass(self) -> None:
        """Wait (on a GPU: have its stream wait) for the sums over ranks; what never came is summed now."""
        if self._is_last_pass and self.has_others:
            for bucket in self._shared[self._next_to_sum :]:
                self._sum(bucket)
            self._wait()
        self._missing = [len(bucket.members) for bucket in self._shared]
        self._next_to_sum = 0

    def sum_table(self, token_ids: torch.Tensor | None) -> None:
        """Sum the table's gradient over ranks, after the last pass of a step.

        `token_ids`: its rows that any rank has looked up in the step, each once and the same on all ranks,
        int64; None: any row.
        """
        if self._table is None or not self.has_others:
            return
        summed_VH = self._table.grad
        assert summed_VH is not None, "each parameter was given one"
        if token_ids is None or 2 * len(token_ids) > len(summed_VH):
            dist.all_reduce(summed_VH)
            return
        rows_U = token_ids.to(summed_VH.device, non_blocking=True)
        summed_UH = summed_VH.index_select(0, rows_U)
        dist.all_reduce(summed_UH)
        summed_VH.index_copy_(0, rows_U, summed_UH)

    def clip(self, max_norm: float, optimizer: torch.optim.AdamW) -> torch.Tensor:
        """Have the optimizer scale gradients of a larger norm down to `max_norm`; the norm, float32 []."""
        norms = [torch.linalg.vector_norm(each.gradients[each.share]) for each in self._shared]
        if self.has_others:
            squared = torch.stack(norms).square().sum()
            dist.all_reduce(squared)
            norms = [squared.sqrt()]
        norms += [torch.linalg.vector_norm(each.gradients) for each in self._whole]
        total: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
        # the fused step divides by the scale, as torch's own gradient scaler has it; 1 changes nothing
        untyped: Any = optimizer
        untyped.grad_scale = (total / max_norm).clamp(min=1.0)
        untyped.found_inf = torch.zeros_like(total)
        return total

    def update(self, optimizer: torch.optim.AdamW) -> None:
        """Update this rank's shares, gather the others', and begin a new step."""
        if self.has_others:
            self._update_shares(optimizer)
        else:
            optimizer.step()
        for bucket in (*self._shared, *self._whole):
            bucket.gradients.zero_()
        self._wait()

    def _update_shares(self, optimizer: torch.optim.AdamW) -> None:
        groups = optimizer.param_groups
        try:
            # each bucket is gathered beside the update of the next, the last ones beside the table's
            for bucket in (*self._shared, *self._whole):
                optimizer.param_groups = _only(groups, bucket)
                optimizer.step()
                if bucket.values is not None:
                    self._note(_all_gather(bucket.values, bucket.values[bucket.share], async_op=True))
        finally:
            optimizer.param_groups = groups

    def state_of(self, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
        """Copies of the optimizer's whole state on the CPU, by `<parameter>.<kind>`; {} on all ranks but 0.

        Every rank must ask.
        """
        found: dict[str, torch.Tensor] = {}
        for bucket in (*self._shared, *self._whole):
            for kind in optimizer.state[bucket.members[0].own]:
                held = {each.name: optimizer.state[each.own][kind] for each in bucket.members}
                held = held if kind == "step" else bucket.whole(held)
                if self._world.rank == 0:
                    found |= {f"{name}.{kind}": each.to("cpu", copy=True) for name, each in held.items()}
        return found

    def load_state(self, optimizer: torch.optim.AdamW, tensors: Mapping[str, torch.Tensor]) -> None:
        """Have the optimizer go on from what `state_of` gave, on whatever number of ranks."""
        members = {each.name: each for bucket in (*self._shared, *self._whole) for each in bucket.members}

        def part(name: str, tensor: torch.Tensor) -> torch.Tensor:
            own, first = members[name].own, members[name].first
            # a copy, or the part would hold on to the whole
            return tensor.flatten()[first : first + own.numel()].view_as(own).clone()

        load_state(optimizer, tensors, {name: each.own for name, each in members.items()}, part)

    def _hook(self, index: int) -> Callable[[torch.Tensor], None]:
        def arrived(_: torch.Tensor) -> None:
            self._missing[index] -= 1
            # in the order of the buckets: ranks must sum the same ones together, whatever comes first on each
            while self._is_last_pass and self._next_to_sum < len(self._shared):
                if self._missing[self._next_to_sum]:
                    break
                self._sum(self._shared[self._next_to_sum])
                self._next_to_sum += 1

        return arrived

    def _sum(self, bucket: _Bucket) -> None:
        self._note(_reduce_scatter(bucket.gradients[bucket.share], bucket.gradients, async_op=True))

    def _note(self, work: dist.Work | None) -> None:
        if work is not None:
            self._works.append(work)

    def _wait(self) -> None:
        for work in self._works:
            work.wait()
        self._works.clear()


def _only(groups: Sequence[dict[str, Any]], bucket: _Bucket) -> list[dict[str, Any]]:
    """An optimizer's groups, of the members of a bucket alone."""
    owns = {id(each.own) for each in bucket.members}
    return [{**group, "params": [each for each in group["params"] if id(each) in owns]} for group in groups]


def _aligned(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _buckets(named: Sequence[tuple[str, nn.Parameter]]) -> list[list[tuple[str, nn.Parameter]]]:
    """Each half of what is left: large ones are summed faster, and the last is waited for."""
    least, most = BUCKET_BYTES
    left = sum(each.nbytes for _, each in named)
    buckets: list[list[tuple[str, nn.Parameter]]] = []
    room = 0
    for name, parameter in named:
        if room <= 0:
            buckets.append([])
            room = min(max(left // 2, least), most)
        buckets[-1].append((name, parameter))
        room -= parameter.nbytes
        left -= parameter.nbytes
    return buckets
