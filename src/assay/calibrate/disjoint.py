"""The calibration rows are not rows of the training, of early stopping or of the test.

Compared by text, by id and by group, as far as each is known: a bundle keeps hashes of the rows that
made it, by role.
"""

from collections.abc import Mapping

import numpy as np

from assay.bundle.bundle import Bundle
from assay.errors import InputError
from assay.labelled.provenance import count_seen, hashes_of, packed_provenance, row_hashes
from assay.labelled.rows import LabelledRows


def refuse_seen(
    bundle: Bundle, rows: LabelledRows, *, so: str = "a calibration on them would be overconfident"
) -> tuple[str, ...]:
    """Raises `InputError` where rows were trained on or chose the checkpoint; what could not be compared.

    `so`: what would come of such rows, in words.
    """
    notes = []
    for kind, hashes in row_hashes(rows).items():
        seen = count_seen(hashes, bundle.provenance, kind)
        if not seen:
            notes.append(f"{kind}s not compared with the training: {bundle.path} does not say which it saw")
            continue
        found = ", ".join(f"{count} as {role} rows" for role, count in seen.items() if count)
        if found:
            by = "" if kind == "text" else f" by {kind}"
            raise InputError(
                f"of {rows.num_rows} rows the training of {bundle.path} has seen {found}{by};"
                f" {so}; remove them"
            )
    return tuple(notes)


def refuse_shared(rows: LabelledRows, test_rows: LabelledRows) -> None:
    """Raises `InputError` where calibration rows share a text, an id or a group with the test rows."""
    test_hashes = row_hashes(test_rows)
    for kind, hashes in row_hashes(rows).items():
        shared = int(np.isin(hashes, test_hashes[kind]).sum()) if kind in test_hashes else 0
        if shared:
            raise InputError(
                f"{shared} of {rows.num_rows} calibration rows share their {kind} with test rows; a test on"
                " rows that set the calibration is too optimistic; remove them from one side"
            )


def calibration_provenance(rows: LabelledRows) -> Mapping[str, Mapping[str, str]]:
    """The rows' hashes in the shape of a bundle's provenance, under the role `calibration`."""
    return packed_provenance(hashes_of({"calibration": rows}))
