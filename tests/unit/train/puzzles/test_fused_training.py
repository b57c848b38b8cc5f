"""A training step's forward by fused kernels: losses and gradients are those of plain torch."""

import pytest
import torch
from support.hrm import random_network, small_config
from support.interpreter import DEVICE, WHY_NOT

from assay.model.hrm.halting import Draws, Puzzles, empty_places, supervised_step

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def test_losses_and_gradients_are_those_of_plain_torch(monkeypatch):
    """Two steps in float32 with an update of the weights between them; compiling is left out."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    from assay.train.puzzles.fused import FusedTraining

    config = small_config(hidden_size=64, puzzle_emb_ndim=64, seq_len=5, H_cycles=1, halt_max_steps=3)
    cells = torch.randint(1, 6, (1, 5), dtype=torch.int32, device=DEVICE)
    ids = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    puzzles = Puzzles(inputs_BS=cells, labels_BS=cells, identifiers_B=ids)
    draws = Draws(uniform_B=ids.float(), min_steps_B=ids + 3)
    results = []
    for is_fused in (True, False):
        network = random_network(config).to(DEVICE)
        step = FusedTraining(network, torch.float32) if is_fused else None
        places = empty_places(network, 1, 5, torch.float32)
        found = []
        for _ in range(2):
            network.zero_grad()
            seen = supervised_step(network, places, puzzles, draws, step=step)
            seen.losses.total.backward()
            found += [seen.losses.total.detach(), seen.target_q_continue_B, seen.puzzle_vectors_BW.grad]
            found += [each.grad for each in network.parameters()]
            places = seen.places
            with torch.no_grad():
                for each in network.parameters():
                    each.mul_(0.9)
            if step is not None:
                step.refresh()
        results.append(found)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
