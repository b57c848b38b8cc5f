"""The process that scores: `python -m assay.score.worker RUN --device cuda:0`.

Everything it needs stands in the run's manifest; the driver adds only the place to work.
"""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable

from assay.bundle import load_bundle
from assay.engine.engine import Engine
from assay.engine.fake import FakeEngine
from assay.errors import RefusedError
from assay.runs.run import Run, open_run
from assay.runs.worker import worker_main
from assay.score.scorer import Scorer
from assay.score.work import ScoreWork
from assay.telemetry import configure_logging
from assay.tokenize.encode import Encoder


def open_score_work(
    run: Run, *, device: str, num_threads: int | None, should_stop: Callable[[], bool]
) -> tuple[ScoreWork, str]:
    """The work of a scoring run on one device, and a line that describes it.

    Raises RefusedError where the bundle on disk is no longer the one that the run was planned with,
    and CheckError where the parity gate does not hold.
    """
    identity, settings = run.manifest.identity, run.manifest.settings
    bundle = load_bundle(settings["bundle"])
    if bundle.fingerprint != identity["bundle"]:
        msg = (
            f"the bundle {bundle.path} was {identity['bundle'][:12]}... when the run was planned and is "
            f"{bundle.fingerprint[:12]}... now; put it back, or use another --run"
        )
        raise RefusedError(msg)
    encoder = Encoder.from_bundle(
        bundle.path,
        max_length=identity["max_length"],
        on_long=identity["on_long"],
        stride=identity["stride"],
    )
    is_fake = identity["engine"] == "fake"
    engine = FakeEngine(num_outputs=len(bundle.labels)) if is_fake else _load_engine(run, device, num_threads)
    scorer = Scorer(
        bundle,
        engine,
        encoder,
        max_batch_tokens=settings["max_batch_tokens"],
        deduplicate=settings["deduplicate"],
        should_stop=should_stop,
    )
    work = ScoreWork(run.manifest, scorer, encoder, worker=f"{socket.gethostname()}-{os.getpid()}-{device}")
    if not is_fake:
        _check_parity(run, work, scorer, engine, device)
    return work, engine.description()


# transformers takes seconds to import; a worker on the fake engine does without.


def _load_engine(run: Run, device: str, num_threads: int | None) -> Engine:
    from assay.engine.load import load_engine

    return load_engine(
        run.manifest.settings["bundle"],
        device=device,
        precision=run.manifest.identity["precision"],
        num_threads=num_threads,
        packed=run.manifest.identity["engine"] != "padded",
    )


def _check_parity(run: Run, work: ScoreWork, scorer: Scorer, engine: Engine, device: str) -> None:
    from assay.score.parity import check_parity

    check_parity(run, work, scorer, engine, device=device)


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    parser = argparse.ArgumentParser(prog="assay.score.worker", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    configure_logging()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    run = open_run(arguments.run)

    def open_work(should_stop: Callable[[], bool]) -> tuple[ScoreWork, str]:
        return open_score_work(
            run, device=arguments.device, num_threads=arguments.threads, should_stop=should_stop
        )

    return worker_main(run, open_work)


if __name__ == "__main__":
    sys.exit(main())
