"""The parity gate of a run: before any unit, a sample of the corpus on the reference path too.

The reference is transformers' own, from the text on: its tokenizer must give the same ids, its model in fp32
the same logits within the tolerance. The figures go to `parity.json` in the run and name what they were
measured of; a worker whose engine, device or versions are others measures again.
"""

import math

from assay.bundle.ensemble import read_ensemble
from assay.bundle.folders import is_ensemble
from assay.embed.gate import gate_figures, refuse_failed
from assay.engine.engine import Engine
from assay.engine.parity import TOLERANCES, ParityReport, Tolerance, compare, judge, reference_engine
from assay.engine.several import SeveralEngines
from assay.runs.run import Run
from assay.score.cascade.scorer import CascadeScorer
from assay.score.kind import SCORE
from assay.score.pairs import PairScorer, reference_logits
from assay.score.scorer import Scorer
from assay.siamese.pairs import vector_head
from assay.tokenize.sample import ParitySample


def plain_engine(folder: str, *, device: str) -> Engine:
    """The fp32 reference of a classifier or, all side by side, of an ensemble's members."""
    if not is_ensemble(folder):
        return reference_engine(folder, device=device)
    bundle = read_ensemble(folder)
    engines = [reference_engine(member.path, device=device) for member in bundle.members]
    return SeveralEngines(engines, bundle.label_orders)


def check_parity(run: Run, scorer: Scorer, *, device: str) -> None:
    """Raise CheckError unless the scorer's path agrees with the reference on a sample of the corpus.

    Both models of a cascade are compared, each on all of the sample.
    """
    if isinstance(scorer, CascadeScorer):
        for single in (scorer.first, scorer.second):
            check_parity(run, single, device=device)
        return
    identity, settings = run.manifest.read(SCORE)
    if not settings.parity_documents:
        return
    bundle = scorer.bundle
    tolerance = TOLERANCES[identity.precision]
    if settings.parity_tolerance is not None:
        tolerance = Tolerance(probability=settings.parity_tolerance, logit=settings.parity_tolerance * 10)

    def compare_logits(sample: ParitySample) -> ParityReport:
        if isinstance(scorer, PairScorer):
            plain = reference_engine(bundle.path, device=device, head=vector_head(scorer.model.bundle))
            found, expected = reference_logits(
                scorer, plain, sample.texts, sample.text_pairs or (), device=device
            )
            return judge(found, expected, task=bundle.task, tolerance=tolerance)
        reference = plain_engine(str(bundle.path), device=device)
        return compare(
            scorer.engine,
            reference,
            sample.sequences,
            task=bundle.task,
            tolerance=tolerance,
            logits_of=scorer.decider.logits,
        )

    found = gate_figures(
        run,
        scorer.engine,
        scorer.encoder,
        bundle=str(bundle.path),
        num_documents=settings.parity_documents,
        device=device,
        identity={
            "bundle": bundle.fingerprint,
            "tokenizer": bundle.tokenizer_fingerprint,
            "precision": identity.precision,
        },
        compare=compare_logits,
        apart=isinstance(scorer, PairScorer),
    )
    difference = (
        f"probabilities differ from fp32 by up to {found['max_abs_probability_difference']:.4g} (allowed "
        f"{found['tolerance']['probability']:g}), logits by {found['max_abs_difference']:.4g}, and "
        f"{found['label_agreement']:.1%} keep their label"
    )
    refuse_failed(found, run.url, is_finite=math.isfinite(found["max_abs_difference"]), difference=difference)
