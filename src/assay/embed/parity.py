"""The parity gate of an embed run: before any part, a sample of the corpus on the reference path too.

The reference is transformers' own, from the text on: its tokenizer must give the same ids, its model in fp32,
pooled a document at a time, the same vectors within the tolerance. The figures go to `parity.json` in the run and
name what they were measured of; a worker whose engine, device or versions are others measures again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.bundle.embedder import Embedder
from assay.embed.evidence import Evidence
from assay.embed.gate import Subject, gate_step, refuse_failed, refuse_too_large
from assay.embed.kind import EMBED
from assay.embed.vectors import Vectors
from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.parity import (
    VECTOR_TOLERANCES,
    Floats,
    VectorParityReport,
    engine_outputs,
    judge_vectors,
    load_reference,
    reference_outputs,
    vector_differences,
)
from assay.engine.ranges import Watch
from assay.model.checkpoint import refuse_changed
from assay.model.heads import EmbeddingHead
from assay.runs.gate import Gate, Step
from assay.runs.run import Run
from assay.tokenize.encode import Encoder
from assay.tokenize.sample import ParitySample


def parity_steps(
    run: Run,
    engine: Engine,
    encoder: Encoder,
    head: EmbeddingHead,
    gate: Gate,
    *,
    embedder: Embedder,
    device: str,
) -> Sequence[Step]:
    """What is left to measure before a part of the run may be published; nothing where it is known to agree.

    Runs the engine on a sample of the corpus. Raises CheckError, at once or from a step, unless its vectors agree
    with the reference's there.
    """
    identity, settings = run.manifest.read(EMBED)
    if not settings.parity_documents:
        return []
    tolerance = _tolerance(run)
    place = devices.parse_device(device)

    def begin(sample: ParitySample) -> Callable[[], VectorParityReport]:
        found = engine_outputs(engine, sample.sequences)

        def compare() -> VectorParityReport:
            watch = Watch() if identity.precision == "fp16" else None
            make_reference = load_reference(embedder.path, head=head, watch=watch)
            refuse_changed(embedder.checkpoint)
            with gate.turn(), devices.current(place):
                expected = reference_outputs(make_reference(place), sample.sequences)
            report = judge_vectors(found, expected, tolerance=tolerance)
            return report if watch is None else replace(report, largest_activation=watch.largest())

        return compare

    def conclude(found: dict[str, Any]) -> None:
        refuse_too_large(found, identity.precision, is_auto=settings.precision_why is not None)
        difference = (
            f"vectors differ from fp32 by up to {found['max_distance']:.4g} of their length (allowed "
            f"{found['tolerance']:g}), the least cosine is {found['least_cosine']:.6f}"
        )
        refuse_failed(found, run.url, is_finite=math.isfinite(found["max_distance"]), difference=difference)

    step = gate_step(
        run,
        engine,
        encoder,
        Subject(
            identity=identity.model_dump(
                include={"bundle", "tokenizer", "pooling", "normalized", "precision"}
            ),
            folders=[embedder.path],
            tolerance=tolerance,
            num_documents=settings.parity_documents,
        ),
        device=device,
        begin=begin,
        conclude=conclude,
    )
    return [] if step is None else [step]


def evidence_of(run: Run, vectors: Vectors, gate: Gate, *, device: str) -> Evidence:
    """What runs a sample of each unit of the run in fp32 too, within the gate's tolerance.

    A document's difference is the distance of its vector to fp32's, as a share of that one's length, before the type
    of a part rounds it.
    """
    identity, _ = run.manifest.read(EMBED)

    def compare(found: Floats, exact: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        return vector_differences(vectors.whole(found), vectors.whole(exact))

    return Evidence(
        vectors.forwarder,
        compare,
        gate,
        share=identity.parity_share,
        allowed=_tolerance(run),
        device=devices.parse_device(device),
    )


def _tolerance(run: Run) -> float:
    identity, settings = run.manifest.read(EMBED)
    asked = settings.parity_tolerance
    return VECTOR_TOLERANCES[identity.precision] if asked is None else asked


def describe_figures(figures: dict[str, Any]) -> str:
    """The gate's figures on one line, for people."""
    return (
        f"parity: {figures['num_documents']} documents beside transformers in fp32: cosine at least "
        f"{figures['least_cosine']:.6f}, distance at most {figures['max_distance']:.2g} "
        f"(allowed {figures['tolerance']:g})"
    )
