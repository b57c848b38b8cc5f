"""The parity gate of a run with an engine: measured once for what it is of, kept beside the run, held to.

What is compared, scores or vectors, the caller knows.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.parity import ParityReport, VectorParityReport
from assay.engine.proofs import circumstances
from assay.errors import CheckError
from assay.runs.figures import PARITY_PATH, figures_of, write_figures
from assay.runs.run import Run
from assay.tokenize.compare import SAVE_TOKENIZER, TokenComparison, compare_tokens
from assay.tokenize.encode import Encoder
from assay.tokenize.sample import ParitySample, take_sample


def gate_figures(
    run: Run,
    engine: Engine,
    encoder: Encoder,
    *,
    bundle: str,
    num_documents: int,
    device: str,
    identity: dict[str, Any],
    compare: Callable[[ParitySample], ParityReport | VectorParityReport],
    apart: bool = False,
) -> dict[str, Any]:
    """What `compare` finds on a sample of the corpus, as a document; that of the run where it is of the same.

    It holds for this `identity`, engine and machine, and for nothing else. `apart` says that the texts of a pair
    are encoded apart.
    """
    subject = {
        **identity,
        "engine": engine.name,
        "deterministic": engine.deterministic,
        **circumstances(devices.parse_device(device)),
    }
    found = figures_of(run, subject)
    if found is not None:
        return found
    began = time.perf_counter()
    sample = take_sample(run.manifest, encoder, num_documents, apart=apart)
    texts, text_pairs = sample.texts, sample.text_pairs
    if apart:
        texts, text_pairs = [*texts, *(text_pairs or ())], None
    report = compare(sample)
    tokens = (
        compare_tokens(Path(bundle), encoder, texts, text_pairs)
        if texts
        else TokenComparison(num_texts=0, difference=None, reason="the source holds token ids")
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
    return found


def refuse_failed(found: dict[str, Any], where: str, *, is_finite: bool, difference: str) -> None:
    """Raise CheckError where the gate's figures say that it did not hold; `difference` says by how much."""
    if found["passed"]:
        return
    documents = f"on {found['num_documents']} documents of the corpus"
    if found.get("token_difference"):
        problem = (
            f"{found['token_difference']}; {SAVE_TOKENIZER}, or with a new --run set --parity-documents 0"
        )
    elif not is_finite:
        problem = (
            f"{documents} the model gives numbers that are not finite; fix the model, or with a new --run set "
            "--parity-documents 0, which gives such rows the code not_finite"
        )
    else:
        problem = (
            f"{documents} {difference}; with a new --run use --precision fp32, or --parity-tolerance "
            f"(figures in {where}/{PARITY_PATH})"
        )
    raise CheckError(f"the parity gate did not hold: {problem}")
