"""The parity gate of an embed run: before any unit, a sample of the corpus on the reference path too.

The reference is transformers' own, from the text on: its tokenizer must give the same ids, its model in fp32,
pooled a document at a time, the same vectors within the tolerance. The figures go to `parity.json` in the run and
name what they were measured of; a worker whose engine, device or versions are others measures again.
"""

import math
from typing import Any

from assay.embed.gate import gate_figures, refuse_failed
from assay.embed.kind import EMBED
from assay.engine.engine import Engine
from assay.engine.parity import VECTOR_TOLERANCES, VectorParityReport, compare_vectors, reference_engine
from assay.model.heads import EmbeddingHead
from assay.runs.run import Run
from assay.tokenize.encode import Encoder
from assay.tokenize.sample import ParitySample


def check_parity(run: Run, engine: Engine, encoder: Encoder, head: EmbeddingHead, *, device: str) -> None:
    """Raise CheckError unless the engine's vectors agree with the reference's on a sample of the corpus."""
    identity, settings = run.manifest.read(EMBED)
    if not settings.parity_documents:
        return
    allowed = settings.parity_tolerance
    tolerance = VECTOR_TOLERANCES[identity.precision] if allowed is None else allowed

    def compare(sample: ParitySample) -> VectorParityReport:
        reference = reference_engine(settings.bundle, device=device, head=head)
        return compare_vectors(engine, reference, sample.sequences, tolerance=tolerance)

    found = gate_figures(
        run,
        engine,
        encoder,
        bundle=settings.bundle,
        num_documents=settings.parity_documents,
        device=device,
        identity=identity.model_dump(include={"bundle", "tokenizer", "pooling", "normalized", "precision"}),
        compare=compare,
    )
    difference = (
        f"vectors differ from fp32 by up to {found['max_distance']:.4g} of their length (allowed "
        f"{found['tolerance']:g}), the least cosine is {found['least_cosine']:.6f}"
    )
    refuse_failed(found, run.url, is_finite=math.isfinite(found["max_distance"]), difference=difference)


def describe_figures(figures: dict[str, Any]) -> str:
    """The gate's figures on one line, for people."""
    return (
        f"parity: {figures['num_documents']} documents beside transformers in fp32: cosine at least "
        f"{figures['least_cosine']:.6f}, distance at most {figures['max_distance']:.2g} "
        f"(allowed {figures['tolerance']:g})"
    )
