"""The parity gate of a run: before any part, a sample of the corpus on the reference path too.

The reference is transformers' own, from the text on: its tokenizer must give the same ids, its model in fp32
the same logits within the tolerance. The figures go to `parity.json` in the run and name what they were
measured of; a worker whose engine, device or versions are others measures again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from assay.bundle.ensemble import Ensemble
from assay.embed.evidence import Evidence
from assay.embed.gate import Subject, gate_step, refuse_failed, refuse_too_large
from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.parity import (
    TOLERANCES,
    Floats,
    ParityReport,
    Tolerance,
    document_differences,
    engine_outputs,
    judge,
    load_reference,
    reference_outputs,
)
from assay.engine.ranges import Watch
from assay.engine.several import SeveralEngines
from assay.model.checkpoint import refuse_changed
from assay.runs.gate import Gate, Step
from assay.runs.run import Run
from assay.score.bundles import in_orders
from assay.score.cascade.scorer import CascadeScorer
from assay.score.kind import SCORE
from assay.score.pairs import PairScorer, reference_logits
from assay.score.scorer import Scorer
from assay.siamese.pairs import vector_head
from assay.tokenize.sample import ParitySample


def parity_steps(run: Run, scorer: Scorer, gate: Gate, *, device: str) -> Sequence[Step]:
    """What is left to measure before a part of the run may be published; nothing where it is known to agree.

    Runs the scorer on a sample of the corpus. Raises CheckError, at once or from a step, unless its path agrees with
    the reference there. Both models of a cascade are compared, each on all of the sample.
    """
    if isinstance(scorer, CascadeScorer):
        both = (scorer.first, scorer.second)
        return [step for single in both for step in parity_steps(run, single, gate, device=device)]
    identity, settings = run.manifest.read(SCORE)
    if not settings.parity_documents:
        return []
    bundle = scorer.bundle
    tolerance = _tolerance(run)
    members = bundle.members if isinstance(bundle, Ensemble) else ()
    step = gate_step(
        run,
        scorer.engine,
        scorer.encoder,
        Subject(
            identity={
                "bundle": bundle.fingerprint,
                "tokenizer": bundle.tokenizer_fingerprint,
                "precision": identity.precision,
            },
            folders=[bundle.path, *(member.path for member in members)],
            tolerance=tolerance,
            num_documents=settings.parity_documents,
            apart=isinstance(scorer, PairScorer),
        ),
        device=device,
        begin=partial(
            _begin, scorer, gate, devices.parse_device(device), tolerance, identity.precision == "fp16"
        ),
        conclude=partial(_refuse_failed, run),
    )
    return [] if step is None else [step]


def evidence_of(run: Run, scorer: Scorer, gate: Gate, *, device: str) -> Evidence:
    """What runs a sample of each unit of the run in fp32 too, within the gate's tolerance.

    A document's difference is the largest of its probabilities; of a regression that of its prediction, as a share of
    fp32's where that is above 1.
    """
    identity, _ = run.manifest.read(SCORE)
    task, tolerance = scorer.bundle.task, _tolerance(run)

    def compare(found: Floats, exact: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        return document_differences(scorer.decider.logits(found), scorer.decider.logits(exact), task=task)

    return Evidence(
        scorer.forwarder,
        compare,
        gate,
        share=identity.parity_share,
        allowed=tolerance.probability if task.is_classifier else tolerance.logit,
        device=devices.parse_device(device),
    )


def _tolerance(run: Run) -> Tolerance:
    identity, settings = run.manifest.read(SCORE)
    asked = settings.parity_tolerance
    if asked is None:
        return TOLERANCES[identity.precision]
    return Tolerance(probability=asked, logit=asked * 10)


def _begin(
    scorer: Scorer,
    gate: Gate,
    device: torch.device,
    tolerance: Tolerance,
    is_fp16: bool,  # noqa: FBT001 - bound by position
    sample: ParitySample,
) -> Callable[[], ParityReport]:
    """Run the scorer on the sample; what it returns runs the reference and compares."""
    pairs = list(zip(sample.texts, sample.text_pairs or (), strict=False))
    if isinstance(scorer, PairScorer):
        found = scorer.model.logits(pairs)
    else:
        found = _logits_of_sequences(scorer, engine_outputs(scorer.engine, sample.sequences))

    def compare() -> ParityReport:
        watch = Watch() if is_fp16 else None
        make_reference = _load_plain(scorer, watch)
        with gate.turn(), devices.current(device):
            reference = make_reference(device)
            if isinstance(scorer, PairScorer):
                expected = reference_logits(scorer, reference, pairs, device=str(device))
            else:
                expected = _logits_of_sequences(scorer, reference_outputs(reference, sample.sequences))
        report = judge(found, expected, task=scorer.bundle.task, tolerance=tolerance)
        return report if watch is None else replace(report, largest_activation=watch.largest())

    return compare


def _logits_of_sequences(scorer: Scorer, outputs_SC: Floats) -> Floats:
    """The logits of sequences as of documents that are no longer: windows of these are the same at every offset."""
    bundle = scorer.bundle
    num_offsets = bundle.num_offsets if isinstance(bundle, Ensemble) else 1
    return scorer.decider.logits(np.tile(outputs_SC, num_offsets))


def _load_plain(scorer: Scorer, watch: Watch | None) -> Callable[[torch.device], Engine]:
    """What makes the fp32 reference of a scorer's model on a device: of an ensemble all members, side by side."""
    bundle = scorer.bundle
    singles = bundle.members if isinstance(bundle, Ensemble) else (bundle,)
    head = vector_head(scorer.model.bundle) if isinstance(scorer, PairScorer) else None
    loaded = [load_reference(single.path, head=head, watch=watch) for single in singles]
    for single in singles:
        refuse_changed(single.checkpoint)
    if not isinstance(bundle, Ensemble):
        return loaded[0]
    return lambda device: in_orders(
        bundle, SeveralEngines([make(device) for make in loaded], bundle.label_orders)
    )


def _refuse_failed(run: Run, found: dict[str, Any]) -> None:
    identity, settings = run.manifest.read(SCORE)
    refuse_too_large(found, identity.precision, is_auto=settings.precision_why is not None)
    difference = (
        f"probabilities differ from fp32 by up to {found['max_abs_probability_difference']:.4g} (allowed "
        f"{found['tolerance']['probability']:g}), logits by {found['max_abs_difference']:.4g}, and "
        f"{found['label_agreement']:.1%} keep their label"
    )
    refuse_failed(found, run.url, is_finite=math.isfinite(found["max_abs_difference"]), difference=difference)
