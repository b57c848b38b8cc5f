"""One optimizer step: passes forward and backward, gradients summed over ranks, an update.

Where the objective compares the rows of a step with each other, one that is cut into passes is run twice, as
GradCache has it (Gao et al. 2021): without gradients for the outputs, from which the loss and its gradient with
respect to each, and again with them, dropout drawn alike. Gradients are summed over ranks once, in the last pass.

On a GPU a pass of a shape met before is replayed from a CUDA graph, and so is the update: at 32
documents a step the host would otherwise be the limit. Both hold what passes between ranks meanwhile;
see gradients.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from assay.engine.graphs import recording
from assay.train import distributed
from assay.train.gradients import Gradients
from assay.train.inputs import Shape, TrainBatch, tensors_of
from assay.train.learner import Learner
from assay.train.optimizer import set_learning_rate
from assay.train.world import World


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    batch: TrainBatch
    """The buffers that the graph reads."""


class Objective(Protocol):
    """What training makes small: a loss of the outputs and targets of documents.

    The weights of a step's documents say how much each counts; the loss grows with them in proportion. A
    document of weight 0 fills a batch up: it must not change the loss.
    """

    @property
    def needs_whole_step(self) -> bool:
        """Whether documents of a step are compared with each other, as in-batch negatives are.

        It is then given the outputs of all passes and ranks, in no order that counts.
        """
        ...

    def __call__(
        self, outputs_SC: torch.Tensor, targets: torch.Tensor, weights_S: torch.Tensor, /
    ) -> torch.Tensor:
        """Return the loss of the documents together, a scalar."""
        ...


@runtime_checkable
class CountsNegatives(Protocol):
    """An objective that says how many documents of a step are held against one, for the figures of the step."""

    def num_negatives(self, targets: torch.Tensor, weights_S: torch.Tensor, /) -> torch.Tensor:
        """Return the mean over the documents that others are held against, a scalar."""
        ...


class PassStepper:
    """Trains a classifier, a pass and an update at a time. Losses stay on the device until asked for."""

    def __init__(
        self,
        learner: Learner,
        objective: Objective,
        *,
        world: World,
        max_gradient_norm: float,
        records: bool = True,
    ) -> None:
        """`records`: whether passes may be replayed from graphs.

        Only packed ones on a GPU are, and none whose loss is that of all ranks.
        """
        self._classifier, self._gradients = learner.classifier, learner.gradients
        self._optimizer = learner.optimizer
        self._objective = objective
        self._world = world
        self._device = device = world.device
        self._max_norm = max_gradient_norm
        self._on_gpu = device.type == "cuda"
        self.can_cut = not objective.needs_whole_step or isinstance(self._gradients, Gradients)
        self.records = (
            records
            and self._on_gpu
            and self._classifier.can_fill
            and self._gradients.can_record
            and not objective.needs_whole_step
        )
        self.wants_token_ids = self._gradients.wants_token_ids
        self._seed = torch.zeros(1, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._norm = torch.zeros((), device=device)
        self._negatives: torch.Tensor | None = None
        """Where the objective counts them."""
        self._held: list[tuple[TrainBatch, int]] = []
        """Passes of a step that is needed whole, and their seeds, until the last is there."""
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

    def set_learning_rate(self, learning_rate: float) -> None:
        """Have the next updates take steps of this size, each parameter's by its share."""
        set_learning_rate(self._optimizer, learning_rate)

    def run_pass(self, batch: TrainBatch, *, seed: int, is_last: bool) -> None:
        """Add the gradients and the loss of a batch on the host; `seed` decides on its dropout.

        With `is_last` all gradients but the token table's are summed over ranks.
        """
        if self._objective.needs_whole_step:
            self._held.append((batch, seed))
            if is_last:
                self._whole_step()
            return
        self._draw(seed)
        if self.records:
            self._replay(batch, is_last=is_last)
        else:
            self._pass(batch.to(self._device), is_last=is_last)

    def _draw(self, seed: int) -> None:
        """Have the next pass draw its dropout by this seed."""
        torch.manual_seed(seed)
        self._seed.fill_(seed)

    def _replay(self, batch: TrainBatch, *, is_last: bool) -> None:
        """Run a batch of a shape met for the first time as it is, record the second, replay all later ones."""
        key = (batch.shape, is_last and self._gradients.has_others)
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

    def update(self, token_ids: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Clip, update and start the next step; the step's loss on this rank and gradient norm, on the device.

        Where the objective counts them the mean number of negatives comes third.

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
        figures: tuple[torch.Tensor, ...] = (self._loss.clone(), self._norm.clone())
        if self._negatives is not None:
            figures = (*figures, self._negatives)
        self._loss.zero_()
        return figures

    def end(self) -> None:
        """Let go of what was recorded; NCCL's group cannot end before the recorded sums."""
        graphs = [each.graph for each in self._recorded.values() if each is not None]
        for graph in (*graphs, *([self._update_graph] if self._update_graph else [])):
            graph.reset()
        self._recorded.clear()
        self._update_graph = None

    def _pass(self, batch: TrainBatch, *, is_last: bool) -> None:
        self._gradients.begin_pass(is_last=is_last)
        outputs_SC = self._classifier(batch, self._seed)
        loss = self._objective(outputs_SC, batch.targets, batch.weights_S)
        loss.backward()
        self._gradients.finish_pass()
        self._loss.add_(loss.detach())

    def _whole_step(self) -> None:
        """The passes of a step whose rows are compared with each other."""
        held = [(batch.to(self._device), seed) for batch, seed in self._held]
        self._held.clear()
        targets = torch.cat([batch.targets for batch, _ in held])
        weights_S = torch.cat([batch.weights_S for batch, _ in held])
        if len(held) == 1:
            ((batch, seed),) = held
            self._draw(seed)
            self._gradients.begin_pass(is_last=True)
            self._loss_of_step(self._classifier(batch, self._seed), targets, weights_S).backward()
            self._gradients.finish_pass()
            return
        found = []
        with torch.no_grad():
            for batch, seed in held:
                self._draw(seed)
                found.append(self._classifier(batch, self._seed))
        outputs_SC = torch.cat(found).requires_grad_()
        self._loss_of_step(outputs_SC, targets, weights_S).backward()
        assert outputs_SC.grad is not None, "the loss depends on the outputs"
        gradients = outputs_SC.grad.split([len(outputs) for outputs in found])
        for number, ((batch, seed), gradient_SC) in enumerate(zip(held, gradients, strict=True)):
            self._draw(seed)
            self._gradients.begin_pass(is_last=number == len(held) - 1)
            self._classifier(batch, self._seed).backward(gradient_SC)
            self._gradients.finish_pass()

    def _loss_of_step(
        self, outputs_SC: torch.Tensor, targets: torch.Tensor, weights_S: torch.Tensor
    ) -> torch.Tensor:
        """The loss whose gradients, summed over ranks, are those of the step.

        Every rank computes all of it, and has gradients of its own outputs alone: nothing is to be scaled.
        """
        whole = [distributed.gather_tensor(self._world, each) for each in (outputs_SC, targets, weights_S)]
        loss = self._objective(*whole)
        self._loss.add_(loss.detach() / self._world.world_size)
        if isinstance(self._objective, CountsNegatives):
            self._negatives = self._objective.num_negatives(*whole[1:])
        return loss

    def _update(self) -> None:
        self._norm.copy_(self._gradients.clip(self._max_norm, self._optimizer))
        self._gradients.update(self._optimizer)

    def _record(self, batch: TrainBatch, *, is_last: bool) -> _Recorded:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        with recording(graph, pool=self._pool, stream=self._stream):
            self._pass(batch, is_last=is_last)
        return _Recorded(graph=graph, batch=batch)
