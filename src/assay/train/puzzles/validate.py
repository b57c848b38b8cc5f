"""How many held-out puzzles a model in training solves."""

import numpy as np
import torch

from assay.model.hrm.halting import StepFunction
from assay.model.hrm.network import Network
from assay.sudoku.puzzles import PuzzleSplit
from assay.train.puzzles.feed import puzzles_of


@torch.no_grad()
def validate(
    network: Network,
    split: PuzzleSplit,
    *,
    num_rows: int,
    batch_size: int,
    dtype: torch.dtype,
    step: StepFunction | None = None,
) -> dict[str, float]:
    """Share of grids and of cells that are right after the last step, and how often q_halt knows it.

    The first `num_rows` rows are run, `batch_size` at a time, the last batch filled up with blanks that do not
    count; `step` is a faster forward of the network's weights.
    """
    run = step or network
    device, num_rows = network.H_init.device, min(num_rows, split.num_rows)
    owner = np.searchsorted(split.puzzle_indices, np.arange(num_rows), side="right") - 1
    right = cells = asked = known = 0
    for start in range(0, num_rows, batch_size):
        rows = np.arange(start, min(start + batch_size, num_rows))
        puzzles = puzzles_of(split, split.inputs[rows], split.labels[rows], owner[rows])
        missing = batch_size - len(rows)
        inputs = torch.nn.functional.pad(puzzles.inputs_BS, (0, 0, 0, missing)).to(device)
        ids = torch.nn.functional.pad(puzzles.identifiers_B, (0, missing)).to(device)
        carry = network.first_carry(batch_size, inputs.shape[1], dtype)
        vectors = network.puzzle_vectors(ids)
        for _ in range(network.config.halt_max_steps):
            carry, outputs = run(carry, inputs, vectors)
        found = outputs.logits_BSV[: len(rows)].argmax(-1).cpu()
        counted = puzzles.labels_BS >= 0
        same = (found == puzzles.labels_BS) & counted
        is_right = same.sum(1) == counted.sum(1)
        right += int(is_right.sum())
        cells += int(same.sum())
        asked += int(counted.sum())
        known += int(((outputs.q_halt_B[: len(rows)].cpu() > 0) == is_right).sum())
    return {
        "accuracy": right / max(num_rows, 1),
        "cell_accuracy": cells / max(asked, 1),
        "q_halt_accuracy": known / max(num_rows, 1),
    }
