"""Which test rows were seen when a bundle was made: by text, by id, by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from assay.labelled.provenance import HashKind, row_hashes, seen_hashes
from assay.labelled.rows import LabelledRows
from assay.metrics import BoolArray


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenRows:
    """Test rows that training, the choice of the checkpoint or calibration has seen."""

    is_known: bool
    """Whether the bundle says what it has seen; a plain transformers folder does not."""
    counts: Mapping[str, Mapping[str, int]]
    """Rows by what was compared (`text`, `id`, `group`) and role (`train`, `validation`, `calibration`)."""
    row_N: BoolArray
    """Whether the row itself was seen, by its text or its id."""
    group_N: BoolArray
    """Whether the row was seen, or another row of its group."""


def find_seen(rows: LabelledRows, provenances: Sequence[Mapping[str, object]]) -> SeenRows:
    """What the provenances (a bundle's and its calibration's) say of these rows."""
    counts: dict[str, dict[str, int]] = {}
    masks: dict[HashKind, BoolArray] = {}
    is_known = False
    for kind, hashes in row_hashes(rows).items():
        met_N = np.zeros(rows.num_rows, dtype=np.bool_)
        for provenance in provenances:
            for role, seen in seen_hashes(provenance, kind).items():
                is_known = True
                found_N = np.isin(hashes, seen)
                counts.setdefault(kind, {})[role] = int(found_N.sum())
                met_N |= found_N
        masks[kind] = met_N
    nothing_N = np.zeros(rows.num_rows, dtype=np.bool_)
    row_N = masks["text"] | masks.get("id", nothing_N)
    return SeenRows(
        is_known=is_known, counts=counts, row_N=row_N, group_N=row_N | masks.get("group", nothing_N)
    )
