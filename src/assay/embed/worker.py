"""The process that embeds: `python -m assay.embed.worker RUN --device cuda:0`.

Everything it needs stands in the run's manifest; the driver adds only the place to work. torch and
transformers take seconds to import, so that only `load_vectors` does.
"""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from assay.bundle.embedder import Embedder, load_embedder
from assay.embed.engine_work import EngineWork, engine_worker_command
from assay.embed.kind import EMBED
from assay.embed.plan import make_encoder
from assay.errors import RefusedError
from assay.runs.gate import Gate
from assay.runs.protocol import Phase
from assay.runs.run import Run
from assay.tokenize.chunks import read_with
from assay.tokenize.encode import Encoder

if TYPE_CHECKING:
    from assay.embed.evidence import Evidence
    from assay.embed.forward import RunSequences
    from assay.embed.vectors import Vectors
    from assay.engine.engine import Engine

MOST_CHUNK_ROWS = 16_384
"""Vectors are wider than scores: some chunks of 1,024 dimensions are held at once, 64 MB each."""


def open_embed_work(
    run: Run,
    *,
    device: str,
    num_threads: int | None,
    should_stop: Callable[[], bool] = lambda: False,
    say_phase: Callable[[Phase], None] = lambda _: None,
) -> EngineWork:
    """The work of an embed run on one device; its `load` loads the engine.

    Raises RefusedError where the encoder on disk is no longer the one that the run was planned with;
    its gate fails with CheckError where the engine is not the reference's equal.
    """
    identity, settings = run.manifest.read(EMBED)
    gate = Gate(should_stop, lambda: say_phase("parity"))
    embedder = load_embedder(settings.bundle)
    if (embedder.fingerprint, embedder.tokenizer_fingerprint) != (identity.bundle, identity.tokenizer):
        msg = (
            f"the model {embedder.path} was {identity.bundle[:12]}... when the run was planned and is "
            f"{embedder.fingerprint[:12]}... now, or its tokenizer changed; put it back, or use another --run"
        )
        raise RefusedError(msg)
    encoder = make_encoder(
        embedder, max_length=identity.max_length, on_long=identity.on_long, stride=identity.stride
    )

    def load() -> "Vectors":
        return load_vectors(
            run,
            embedder,
            encoder,
            device=device,
            num_threads=num_threads,
            should_stop=should_stop,
            gate=gate,
        )

    def open_evidence(vectors: "Vectors") -> "Evidence":
        from assay.embed.parity import evidence_of

        return evidence_of(run, vectors, gate, device=device)

    return EngineWork(
        run.manifest,
        read_with(encoder),
        load,
        strict=settings.strict,
        gate=gate,
        worker=f"{socket.gethostname()}-{os.getpid()}-{device}",
        most_chunk_rows=MOST_CHUNK_ROWS,
        open_evidence=open_evidence if identity.parity_share else None,
    )


def load_vectors(
    run: Run,
    embedder: Embedder,
    encoder: Encoder,
    *,
    device: str,
    num_threads: int | None,
    should_stop: Callable[[], bool],
    gate: Gate,
) -> "Vectors":
    """What makes the vectors of a run on one device; takes seconds, and closes the gate for what is left to prove.

    A cache of vectors takes none before the gate has passed.
    """
    from assay.embed.forward import Forwarder
    from assay.embed.vectors import Vectors

    identity, settings = run.manifest.read(EMBED)

    def cached(run_sequences: "RunSequences") -> "RunSequences":
        if settings.cache is None:
            return run_sequences
        from assay.embed.cache import VectorCache

        return VectorCache(Path(settings.cache), identity, dimension=settings.dimension).around(run_sequences)

    def vectors(engine: "Engine") -> Vectors:
        forwarder = Forwarder(
            engine,
            encoder,
            max_batch_tokens=settings.max_batch_tokens,
            deduplicate=settings.deduplicate,
            should_stop=should_stop,
        )
        return Vectors(
            forwarder, normalized=identity.normalized, dtype=identity.dtype, run=cached(forwarder.run)
        )

    if identity.engine == "fake":
        from assay.engine.fake import FakeEngine

        return vectors(FakeEngine(output_shape=(settings.dimension,)))
    from assay.embed.gate import range_steps
    from assay.embed.parity import parity_steps
    from assay.engine.devices import stay_near
    from assay.engine.half import why_not_fp16
    from assay.engine.load import load_engine
    from assay.model.embedding import embedding_head

    head = embedding_head(
        embedder.checkpoint, embedder.files, pooling=identity.pooling, normalized=identity.normalized
    )
    stay_near(device, num_threads)
    engine = load_engine(
        embedder.checkpoint,
        device=device,
        precision=identity.precision,
        num_threads=num_threads,
        packed=identity.engine != "padded",
        deterministic=identity.deterministic,
        head=head,
    )
    in_range = range_steps(
        lambda: why_not_fp16(embedder.checkpoint, headless=True),
        identity.precision,
        is_auto=settings.precision_why is not None,
    )
    parity = parity_steps(run, engine, encoder, head, gate, embedder=embedder, device=device)
    gate.close([*in_range, *parity])
    if settings.cache is not None:
        gate.wait()
    return vectors(engine)


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    return engine_worker_command(__doc__, open_embed_work)


if __name__ == "__main__":
    sys.exit(main())
