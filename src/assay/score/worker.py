"""The process that scores: `python -m assay.score.worker RUN --device cuda:0`.

Everything it needs stands in the run's manifest; the driver adds only the place to work. torch and
transformers take seconds to import, so that only `load_scorer` does.
"""

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from assay.bundle.bundle import Bundle
from assay.embed.engine_work import EngineWork, engine_worker_command
from assay.errors import RefusedError
from assay.runs.gate import Gate
from assay.runs.protocol import Phase
from assay.runs.run import Run
from assay.score.bundles import (
    engine_of,
    num_outputs,
    open_bundle,
    open_scorer,
    read_chunks,
    why_not_fp16,
)
from assay.score.kind import SCORE

if TYPE_CHECKING:
    from assay.embed.evidence import Evidence
    from assay.engine.engine import Engine
    from assay.score.scorer import Scorer


def open_score_work(
    run: Run,
    *,
    device: str,
    num_threads: int | None,
    should_stop: Callable[[], bool] = lambda: False,
    say_phase: Callable[[Phase], None] = lambda _: None,
) -> EngineWork:
    """The work of a scoring run on one device; its `load` loads the engine.

    Raises RefusedError where the bundle on disk is no longer the one that the run was planned with;
    its gate fails with CheckError where the scores are not the reference's.
    """
    identity, settings = run.manifest.read(SCORE)
    gate = Gate(should_stop, lambda: say_phase("parity"))
    bundle = open_bundle(settings.bundle)
    if bundle.fingerprint != identity.bundle:
        msg = (
            f"the bundle {bundle.path} was {identity.bundle[:12]}... when the run was planned and is "
            f"{bundle.fingerprint[:12]}... now; put it back, or use another --run"
        )
        raise RefusedError(msg)
    if bundle.tokenizer_fingerprint != identity.tokenizer:
        msg = f"the tokenizer in {bundle.path} changed since the run was planned; put it back, or use another --run"
        raise RefusedError(msg)
    read = read_chunks(bundle, identity, deduplicate=settings.deduplicate)

    def load() -> "Scorer":
        return load_scorer(
            run,
            bundle,
            device=device,
            num_threads=num_threads,
            should_stop=should_stop,
            gate=gate,
        )

    def open_evidence(scorer: "Scorer") -> "Evidence":
        from assay.score.parity import evidence_of

        return evidence_of(run, scorer, gate, device=device)

    worker = f"{socket.gethostname()}-{os.getpid()}-{device}"
    return EngineWork(
        run.manifest,
        read,
        load,
        strict=settings.strict,
        gate=gate,
        worker=worker,
        open_evidence=open_evidence if identity.parity_share else None,
    )


def load_scorer(
    run: Run,
    bundle: Bundle,
    *,
    device: str,
    num_threads: int | None,
    should_stop: Callable[[], bool],
    gate: Gate,
) -> "Scorer":
    """The scorer of a run on one device; takes seconds, and closes the gate for what is left to prove."""
    identity, settings = run.manifest.read(SCORE)
    is_fake = identity.engine == "fake"
    scorer = open_scorer(
        bundle,
        identity,
        _fake_engine if is_fake else lambda single: _load_engine(run, single, device, num_threads),
        device=device,
        max_batch_tokens=settings.max_batch_tokens,
        deduplicate=settings.deduplicate,
        should_stop=should_stop,
    )
    if not is_fake:
        from assay.embed.gate import range_steps
        from assay.score.parity import parity_steps

        in_range = range_steps(
            lambda: why_not_fp16(bundle), identity.precision, is_auto=settings.precision_why is not None
        )
        gate.close([*in_range, *parity_steps(run, scorer, gate, device=device)])
    return scorer


# A worker on the fake engine does without transformers, which takes seconds more.


def _fake_engine(bundle: Bundle) -> "Engine":
    from assay.engine.fake import FakeEngine

    return FakeEngine(output_shape=(num_outputs(bundle),))


def _load_engine(run: Run, bundle: Bundle, device: str, num_threads: int | None) -> "Engine":
    from assay.engine.devices import stay_near

    stay_near(device, num_threads)
    identity, _ = run.manifest.read(SCORE)
    return engine_of(
        bundle,
        device=device,
        precision=identity.precision,
        num_threads=num_threads,
        packed=identity.engine != "padded",
        deterministic=identity.deterministic,
    )


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    return engine_worker_command(__doc__, open_score_work)


if __name__ == "__main__":
    sys.exit(main())
