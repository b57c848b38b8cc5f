"""The parity gate of a run: before any unit, a sample of the corpus on the reference path too.

The reference is transformers' own, from the text on: its tokenizer must give the same ids, its model in fp32
the same logits within the tolerance. The figures go to `parity.json` in the run and name what they were
measured of; a worker whose engine, device or versions are others measures again.
"""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.parity import TOLERANCES, ParityReport, Tolerance, compare, reference_engine
from assay.engine.proofs import circumstances
from assay.engine.sequences import Sequences
from assay.errors import CheckError
from assay.runs.figures import PARITY_PATH, figures_of, write_figures
from assay.runs.run import Run
from assay.score.kind import SCORE
from assay.score.scorer import Scorer
from assay.tokenize.compare import SAVE_TOKENIZER, Compared, compare_tokens
from assay.tokenize.encode import Encoder
from assay.tokenize.sample import ParitySample, take_sample


def check_parity(run: Run, scorer: Scorer, *, device: str) -> None:
    """Raise CheckError unless the scorer's path agrees with the reference on a sample of the corpus."""
    _, settings = run.manifest.read(SCORE)
    num_documents = settings.parity_documents
    if not num_documents:
        return
    subject = subject_of(run, scorer.engine, device)
    found = figures_of(run, subject)
    if found is None:
        began = time.perf_counter()
        sample = take_sample(run.manifest, scorer.encoder, num_documents)
        report = measure(run, scorer.engine, sample.sequences, device=device)
        tokens = compare_sample(run, scorer.encoder, sample)
        found = {
            **asdict(report),
            "passed": report.passed and tokens.difference is None,
            "tokenizer": str(tokens),
            "token_difference": tokens.difference,
            "seconds": round(time.perf_counter() - began, 2),
            "engine": scorer.engine.description(),
            "subject": subject,
        }
        write_figures(run, found)
    refuse_failed(found, run.url)


def subject_of(run: Run, engine: Engine, device: str) -> dict[str, Any]:
    """What the figures are of: they hold for nothing else."""
    identity, _ = run.manifest.read(SCORE)
    return {
        "bundle": identity.bundle,
        "tokenizer": identity.tokenizer,
        "engine": engine.name,
        "precision": identity.precision,
        "deterministic": engine.deterministic,
        **circumstances(devices.parse_device(device)),
    }


def compare_sample(run: Run, encoder: Encoder, sample: ParitySample) -> Compared:
    """How Assay's ids of the sample's texts compare with transformers'."""
    if not sample.texts:
        return Compared(num_texts=0, difference=None, reason="the source holds token ids")
    _, settings = run.manifest.read(SCORE)
    return compare_tokens(Path(settings.bundle), encoder, sample.texts, sample.text_pairs)


def measure(run: Run, engine: Engine, sample: Sequences, *, device: str) -> ParityReport:
    """How far the engine is from the fp32 reference on the sample."""
    identity, settings = run.manifest.read(SCORE)
    tolerance = TOLERANCES[identity.precision]
    if settings.parity_tolerance is not None:
        tolerance = Tolerance(probability=settings.parity_tolerance, logit=settings.parity_tolerance * 10)
    return compare(
        engine,
        reference_engine(settings.bundle, device=device),
        sample,
        task=settings.task,
        tolerance=tolerance,
    )


def refuse_failed(found: dict[str, Any], where: str) -> None:
    """Raise CheckError where the gate's figures say that it did not hold."""
    if not found["passed"]:
        if found.get("token_difference"):
            msg = (
                f"the parity gate did not hold: {found['token_difference']}; {SAVE_TOKENIZER}, "
                "or with a new --run set --parity-documents 0"
            )
            raise CheckError(msg)
        tolerance = found["tolerance"]
        if not math.isfinite(found["max_abs_difference"]):
            msg = (
                f"the parity gate did not hold: on {found['num_documents']} documents of the corpus the model gives "
                "numbers that are not finite; fix the model, or with a new --run set --parity-documents 0, "
                "which gives such rows the code not_finite"
            )
            raise CheckError(msg)
        msg = (
            f"the parity gate did not hold: on {found['num_documents']} documents of the corpus probabilities "
            f"differ from fp32 by up to {found['max_abs_probability_difference']:.4g} (allowed "
            f"{tolerance['probability']:g}), logits by {found['max_abs_difference']:.4g}, and "
            f"{found['label_agreement']:.1%} keep their label; with a new --run use "
            f"--precision fp32, or --parity-tolerance (figures in {where}/{PARITY_PATH})"
        )
        raise CheckError(msg)
