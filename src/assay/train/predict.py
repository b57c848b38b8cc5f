"""The outputs of a classifier in training on rows that it is measured on. Axes: N rows, C outputs."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from assay.errors import WorkError
from assay.train import distributed
from assay.train.batches import IndexArray, passes, rank_rows
from assay.train.inputs import EncodedRows, TrainBatch, host_batch
from assay.train.model import TrainableClassifier
from assay.train.world import World

_EVALUATION_TOKENS = {"cpu": 4_096, "cuda": 65_536}


@torch.no_grad()
def predict(
    classifier: TrainableClassifier, rows: EncodedRows, *, world: World, max_batch_tokens: int | None = None
) -> NDArray[np.float32]:
    """Logits [N, C] of all rows, in their order, on every rank; each row is run on one of them.

    Raises WorkError where the device has no room for a pass.
    """
    module = cast("torch.nn.Module", classifier)
    was_training = module.training
    module.eval()
    lengths = rows.lengths
    budget = _EVALUATION_TOKENS[world.device.type]
    budget = budget if max_batch_tokens is None else min(budget, max_batch_tokens)

    def share_of(rank: int) -> IndexArray:
        return rank_rows(np.arange(rows.num_rows), lengths, rank=rank, world_size=world.world_size)

    def cut(share: IndexArray) -> list[IndexArray]:
        return [share[each] for each in passes(lengths[share], max_rows=4_096, max_tokens=budget)]

    share = share_of(world.rank)
    mine = cut(share)
    # a sharded model is put together in each pass: ranks take part in as many, with a row that does not count
    num_idle = max(len(cut(share_of(rank))) for rank in range(world.world_size)) - len(mine)
    shortest = np.argsort(lengths, kind="stable")[:1]
    seed = torch.zeros(1, dtype=torch.int64, device=world.device)
    found = []
    for chosen in [*mine, *[shortest] * num_idle]:
        batch = host_batch(rows, chosen, classifier.layout, total_weight=1.0)
        try:
            found.append(classifier(batch.to(world.device), seed).float())
        except torch.OutOfMemoryError as error:
            raise too_large(batch) from error
    module.train(was_training)
    none = np.zeros((0, classifier.num_outputs), dtype=np.float32)
    values = torch.cat(found[: len(mine)]).cpu().numpy() if mine else none
    # within a batch documents lie longest first, as they do in the share
    return distributed.gather_rows(world, share, values, num_rows=rows.num_rows)


def too_large(batch: TrainBatch) -> WorkError:
    """What to say when the device has no room for a pass: the budget to try, or a shorter document."""
    num_tokens, longest = batch.shape.num_tokens, batch.shape.max_seqlen
    if num_tokens <= longest:
        way_out = f"it is one document; set max_length={max(1, longest // 2)}, or gradient_checkpointing"
    else:
        budget = max(longest, num_tokens // 2)
        way_out = f"set max_batch_tokens={budget} (the steps stay the same), or gradient_checkpointing"
    return WorkError(f"a pass of {num_tokens:,} tokens does not fit into the device's memory; {way_out}")
