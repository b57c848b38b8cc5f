"""Whether a model holds in fp16: the largest of its weights and of its activations, with a margin. Imports no torch.

fp16 has three more bits than bf16 and ends at 65,504, bf16 where fp32 does. The answer is measured once for a
checkpoint, on the CPU in fp32, so that every machine and every command gives the same, and noted on this machine; it
depends on no corpus. A run's parity gate looks at its sample too, and a run that `auto` began in fp16 is planned again
where that is too large. What a corpus brings beyond its sample costs time, not numbers: `run_sequences` runs a document
whose outputs are not finite again in fp32.
"""

import importlib.metadata
import math
from collections.abc import Iterable, Mapping
from typing import Any

from assay.model.checkpoint import Checkpoint
from assay.proofs import Note

LARGEST = 65_504.0
"""The largest number of fp16."""
MARGIN = 4.0
"""How far below that the largest number that was seen must stay: other documents have larger ones."""


def why_not_fp16(checkpoint: Checkpoint, *, headless: bool = False) -> str | None:
    """Return why a checkpoint does not run in fp16, in a clause; None where it holds.

    The first time on a machine it is loaded and run on the CPU, which takes seconds. `headless` looks at its encoder
    alone. Raises what loading it raises.
    """
    note = _note(checkpoint, headless=headless)
    found = note.read()
    if found is None:
        from assay.engine.ranges import measure_ranges

        with note.turn():
            found = note.read() or measure_ranges(checkpoint, headless=headless)
            note.write(found)
    return out_of_range(found)


def is_noted(checkpoint: Checkpoint, *, headless: bool = False) -> bool:
    """Return whether `why_not_fp16` has its answer already on this machine, so that it takes no time."""
    return _note(checkpoint, headless=headless).read() is not None


def _note(checkpoint: Checkpoint, *, headless: bool) -> Note:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    return Note.of("fp16 range", checkpoint.state, headless, *versions)


def first_reason(checkpoints: Iterable[Checkpoint], *, headless: bool = False) -> str | None:
    """Return why one of several models that compute together does not run in fp16; None where all hold."""
    reasons = (why_not_fp16(checkpoint, headless=headless) for checkpoint in checkpoints)
    return next((reason for reason in reasons if reason is not None), None)


def out_of_range(largest: dict[str, float | None]) -> str | None:
    """[pure] Return which of these numbers are too large for fp16, in a clause; None where all hold.

    `largest` has the largest absolute value by what it is of ("weights"), None or NaN where that is not known.
    """
    for name, value in largest.items():
        if value is None or not math.isfinite(value):
            return f"its {name} are not finite, or could not be measured"
        if value > LARGEST / MARGIN:
            return f"its {name} reach {value:,.0f}, and fp16 ends at {LARGEST:,.0f} (a margin of {MARGIN:g} is kept)"
    return None


def why_too_large(figures: Mapping[str, Any]) -> str | None:
    """[pure] Return why the documents of a gate's figures are too large for fp16, in a clause; None where they hold."""
    largest = figures.get("largest_activation")
    reason = None if largest is None else out_of_range({"activations": largest})
    return None if reason is None else f"on {figures['num_documents']} documents of the corpus {reason}"
