"""The parity gate of an embed run: before any unit, a sample of the corpus on the reference path too.

The reference is transformers' own, from the text on: its tokenizer must give the same ids, its model in fp32,
pooled a document at a time, the same vectors within the tolerance. The figures go to `parity.json` in the run and
name what they were measured of; a worker whose engine, device or versions are others measures again.
"""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay.embed.kind import EMBED
from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.parity import VECTOR_TOLERANCES, compare_vectors, reference_engine
from assay.engine.proofs import circumstances
from assay.errors import CheckError
from assay.model.heads import EmbeddingHead
from assay.runs.figures import PARITY_PATH, figures_of, write_figures
from assay.runs.run import Run
from assay.tokenize.compare import SAVE_TOKENIZER, Compared, compare_tokens
from assay.tokenize.encode import Encoder
from assay.tokenize.sample import take_sample


def check_parity(run: Run, engine: Engine, encoder: Encoder, head: EmbeddingHead, *, device: str) -> None:
    """Raise CheckError unless the engine's vectors agree with the reference's on a sample of the corpus."""
    identity, settings = run.manifest.read(EMBED)
    if not settings.parity_documents:
        return
    subject = {
        "bundle": identity.bundle,
        "tokenizer": identity.tokenizer,
        "pooling": identity.pooling,
        "normalized": identity.normalized,
        "engine": engine.name,
        "precision": identity.precision,
        "deterministic": engine.deterministic,
        **circumstances(devices.parse_device(device)),
    }
    found = figures_of(run, subject)
    if found is None:
        began = time.perf_counter()
        sample = take_sample(run.manifest, encoder, settings.parity_documents)
        allowed = settings.parity_tolerance
        report = compare_vectors(
            engine,
            reference_engine(settings.bundle, device=device, head=head),
            sample.sequences,
            tolerance=VECTOR_TOLERANCES[identity.precision] if allowed is None else allowed,
        )
        tokens = (
            compare_tokens(Path(settings.bundle), encoder, sample.texts, None)
            if sample.texts
            else Compared(num_texts=0, difference=None, reason="the source holds token ids")
        )
        found = {
            **asdict(report),
            "passed": report.passed and tokens.difference is None,
            "tokenizer": str(tokens),
            "token_difference": tokens.difference,
            "seconds": round(time.perf_counter() - began, 2),
            "engine": engine.description(),
            "subject": subject,
        }
        write_figures(run, found)
    _refuse_failed(found, run.url)


def describe_figures(figures: dict[str, Any]) -> str:
    """The gate's figures on one line, for people."""
    return (
        f"parity: {figures['num_documents']} documents beside transformers in fp32: cosine at least "
        f"{figures['least_cosine']:.6f}, distance at most {figures['max_distance']:.2g} "
        f"(allowed {figures['tolerance']:g})"
    )


def _refuse_failed(found: dict[str, Any], where: str) -> None:
    if found["passed"]:
        return
    if found.get("token_difference"):
        msg = (
            f"the parity gate did not hold: {found['token_difference']}; {SAVE_TOKENIZER}, "
            "or with a new --run set --parity-documents 0"
        )
        raise CheckError(msg)
    if not math.isfinite(found["max_distance"]):
        msg = (
            f"the parity gate did not hold: on {found['num_documents']} documents of the corpus the model gives "
            "numbers that are not finite; fix the model, or with a new --run set --parity-documents 0, "
            "which gives such rows the code not_finite"
        )
        raise CheckError(msg)
    msg = (
        f"the parity gate did not hold: on {found['num_documents']} documents of the corpus vectors differ from fp32 "
        f"by up to {found['max_distance']:.4g} of their length (allowed {found['tolerance']:g}), the least cosine is "
        f"{found['least_cosine']:.6f}; with a new --run use --precision fp32, or --parity-tolerance "
        f"(figures in {where}/{PARITY_PATH})"
    )
    raise CheckError(msg)
