"""What a teacher says of the training rows: the logits of a classifier of pairs, once, before the first step.

Axes: N rows, C outputs.
"""

from dataclasses import replace

import numpy as np

from assay.bundle.load import load_bundle
from assay.bundle.texts import refuse_other_texts
from assay.engine.load import load_engine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.errors import UsageError
from assay.tokenize.encode import Encoder
from assay.train import distributed
from assay.train.batches import rank_rows
from assay.train.datasets import Prepared
from assay.train.inputs import EncodedSplit, tokens_of
from assay.train.world import World


def with_teacher(rows: EncodedSplit, teacher: str, prepared: Prepared, world: World) -> EncodedSplit:
    """The rows, those of training with the teacher's logits in the order of our labels; each rank asks for a share.

    Each pair is tokenized as the teacher was trained, whatever the student's lengths are. Raises `BundleError`
    for a folder that is not a classifier, UsageError for one of single texts or of other labels.
    """
    bundle = load_bundle(teacher)
    refuse_other_texts(bundle, are_pairs=True, setting="text_pair_column")
    if sorted(bundle.labels) != sorted(prepared.names):
        raise UsageError(
            f"teacher={teacher}: its labels are {', '.join(bundle.labels)} and those of the rows"
            f" {', '.join(prepared.names)}; both must have the same; choose another teacher"
        )
    encoder = Encoder.from_bundle(bundle.path, max_length=bundle.default_max_length, on_long="truncate")
    lengths = rows.train.lengths
    share = rank_rows(np.arange(rows.train.num_rows), lengths, rank=world.rank, world_size=world.world_size)
    tokens = tokens_of(encoder, prepared.train.take(share.tolist()))
    logits, _ = run_sequences(
        load_engine(bundle.checkpoint, device=str(world.device)),
        Sequences(flat_ids=tokens.flat_ids, offsets=tokens.offsets, second_starts=tokens.second_starts),
    )
    order = [bundle.labels.index(name) for name in prepared.names]
    logits_NC = distributed.gather_rows(world, share, logits[:, order], num_rows=rows.train.num_rows)
    return replace(rows, train=replace(rows.train, teacher=logits_NC))
