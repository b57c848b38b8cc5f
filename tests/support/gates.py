"""Works whose gate has passed."""

from assay.runs.pipeline import UnfitError


def past_gate(work):
    """The work, loaded and past its gate, and a line that describes it; raises what the gate failed of."""
    description = work.load()
    try:
        work.gate.wait()
    except UnfitError as unfit:
        raise unfit.cause from None
    return work, description
