"""The parallel batch inference script for HRM, built again in plain torch: a thread a task, all on one GPU.

What it does is kept, what is wrong with its results is not: a task that fails is counted as failed, not as wrong.
A task is a checkpoint and a cyclic shift of the digits. It loads the whole files of puzzles, shifts its batch, runs
all steps with the losses of the official code, waits for the device at each step to read the loss, keeps the carry,
the logits and the grid of every step, compares the last grid, and empties the allocator's cache. Models are loaded
once and shared by the threads. Weights are float32 and cast at each use.

`alone` is what the same members cost one after the other without all that: no losses, nothing kept, no waiting.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.model.hrm.losses import losses_of
from assay.model.hrm.network import Carry, Network
from assay.sudoku.views import cyclic


@dataclass(kw_only=True)
class Ran:
    """What a run of all tasks came to."""

    seconds: float
    right_NM: NDArray[np.bool_]
    """Whether a member's last grid is the solution, members by checkpoint and then by shift."""
    failures: list[str] = field(default_factory=list)


def evaluation_step(
    network: Network,
    carry: Carry,
    fresh_B: torch.Tensor,
    steps_B: torch.Tensor,
    inputs_BS: torch.Tensor,
    labels_BS: torch.Tensor,
    identifiers_B: torch.Tensor,
) -> tuple[Carry, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step with its losses, as the official model is called where it is evaluated."""
    config = network.config
    carry = network.reset(carry, fresh_B)
    steps_B = torch.where(fresh_B, 0, steps_B) + 1
    carry, outputs = network(carry, inputs_BS, network.puzzle_vectors(identifiers_B))
    losses = losses_of(
        outputs.logits_BSV, outputs.q_halt_B, outputs.q_continue_B, labels_BS,
        target_q_continue_B=None, loss_type=config.loss_type,
    )  # fmt: skip
    return carry, steps_B >= config.halt_max_steps, steps_B, losses.total, outputs.logits_BSV


class Threaded:
    """Checkpoints and the files of their puzzles, ready to run."""

    def __init__(
        self, networks: list[Network], split: Path, *, permutes: int, batch_size: int, compiles: bool
    ) -> None:
        """`split`: folder of the arrays; `compiles`: whether each model runs under `torch.compile`, shapes fixed."""
        self._networks, self._split = networks, split
        self._permutes, self._batch_size = permutes, batch_size
        self.device = networks[0].H_init.device
        self._dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._step: Any = torch.compile(evaluation_step, dynamic=False) if compiles else evaluation_step
        self._plain: Any = torch.compile(Network.forward, dynamic=False) if compiles else Network.forward

    @property
    def num_tasks(self) -> int:
        """Checkpoints times shifts."""
        return len(self._networks) * self._permutes

    def warm_up(self, *, alone: bool) -> float:
        """Run a step of each model in this thread, so that nothing is compiled in another; seconds that it took."""
        began = time.perf_counter()
        for number in range(len(self._networks)):
            (self._alone if alone else self._task)(number * self._permutes, 1)
        self._wait()
        return time.perf_counter() - began

    def run(self, num_workers: int, num_steps: int | None = None) -> Ran:
        """All tasks in so many threads; `num_steps`: of each, by default all."""
        failures: list[str] = []
        right_NM = np.zeros((self._batch_size, self.num_tasks), dtype=np.bool_)

        def one(number: int) -> None:
            try:
                right_NM[:, number] = self._task(number, num_steps)
            except Exception as error:  # noqa: BLE001 - the script goes on whatever a task dies of
                failures.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")

        began = time.perf_counter()
        with ThreadPoolExecutor(num_workers) as threads:
            for waited in [threads.submit(one, number) for number in range(self.num_tasks)]:
                waited.result()
        self._wait()
        return Ran(seconds=time.perf_counter() - began, right_NM=right_NM, failures=failures)

    def alone(self) -> Ran:
        """All members one after the other, with nothing but their steps."""
        began = time.perf_counter()
        columns = [self._alone(number, None) for number in range(self.num_tasks)]
        return Ran(seconds=time.perf_counter() - began, right_NM=np.stack(columns, axis=1))

    def _batch(self, number: int) -> tuple[Network, torch.Tensor, torch.Tensor]:
        """The model of a task, and its inputs and labels as it sees them."""
        view = cyclic(number % self._permutes)
        shown = []
        for name in ("inputs", "labels"):
            rows = np.load(self._split / f"all__{name}.npy")[: self._batch_size]
            shown.append(torch.from_numpy(view.show(rows).astype(np.int32)).to(self.device))
        return self._networks[number // self._permutes], *shown

    @torch.inference_mode()
    def _task(self, number: int, num_steps: int | None) -> NDArray[np.bool_]:
        network, inputs_BS, labels_BS = self._batch(number)
        size, device = len(inputs_BS), self.device
        carry = network.first_carry(size, inputs_BS.shape[1], self._dtype)
        halted_B = torch.ones(size, dtype=torch.bool, device=device)
        steps_B = torch.zeros(size, dtype=torch.int32, device=device)
        identifiers_B = torch.zeros(size, dtype=torch.int64, device=device)
        kept: list[Any] = []
        for _ in range(num_steps or network.config.halt_max_steps):
            carry, halted_B, steps_B, loss, logits_BSV = self._step(
                network, carry, halted_B, steps_B, inputs_BS, labels_BS, identifiers_B
            )
            kept.append((float(loss), carry, logits_BSV, logits_BSV.argmax(-1)))
            if bool(halted_B.all()):
                break
        right_B = (kept[-1][-1].cpu() == labels_BS.cpu()).all(1).numpy()
        del kept, carry, logits_BSV
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return np.asarray(right_B)

    @torch.inference_mode()
    def _alone(self, number: int, num_steps: int | None) -> NDArray[np.bool_]:
        network, inputs_BS, labels_BS = self._batch(number)
        vectors = network.puzzle_vectors(torch.zeros(len(inputs_BS), dtype=torch.int64, device=self.device))
        carry = network.first_carry(len(inputs_BS), inputs_BS.shape[1], self._dtype)
        for _ in range(num_steps or network.config.halt_max_steps):
            carry, outputs = self._plain(network, carry, inputs_BS, vectors)
        return np.asarray((outputs.logits_BSV.argmax(-1) == labels_BS).all(1).cpu().numpy())

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
