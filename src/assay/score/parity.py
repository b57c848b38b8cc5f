"""The parity gate of a run: before any unit, a sample of the corpus on the fp32 reference path too.

The first worker that finds no `parity.json` in the run measures and writes it, by exclusive create;
the others take its word.
"""

import json
import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from assay.data.reading import RowReader
from assay.engine.engine import Engine
from assay.engine.parity import TOLERANCES, ParityReport, Tolerance, compare, reference_engine
from assay.engine.sequences import Sequences
from assay.errors import CheckError
from assay.runs.plan import Unit
from assay.runs.run import Run
from assay.score.chunks import chunks
from assay.score.kind import SCORE
from assay.score.scorer import Scorer
from assay.score.work import read_unit

PARITY_PATH = "parity.json"
SAMPLED_UNITS = 8


def check_parity(run: Run, scorer: Scorer, *, device: str) -> None:
    """Raise CheckError unless the scorer's engine agrees with the reference on a sample of the corpus."""
    _, settings = run.manifest.read(SCORE)
    num_documents = settings.parity_documents
    if not num_documents:
        return
    if run.store.info(PARITY_PATH) is None:
        sample = sample_sequences(run, scorer, num_documents)
        began = time.perf_counter()
        report = measure(run, scorer.engine, sample, device=device)
        found = {
            **asdict(report),
            "seconds": round(time.perf_counter() - began, 2),
            "engine": scorer.engine.description(),
        }
        run.store.create(PARITY_PATH, json.dumps(found, indent=1).encode())
    refuse_failed(json.loads(run.store.read_bytes(PARITY_PATH)), run.url)


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


def sample_sequences(run: Run, scorer: Scorer, num_documents: int) -> Sequences:
    """The first rows of some units spread over the corpus, about `num_documents` in all.

    Reads with a reader of its own: the run's is at work on the first unit meanwhile.
    """
    units = [unit for unit in run.manifest.units() if unit.num_rows]
    picked = (
        [units[k] for k in sorted({round(k) for k in np.linspace(0, len(units) - 1, SAMPLED_UNITS)})]
        if units
        else []
    )
    each = -(-num_documents // max(len(picked), 1))
    flat, lengths, starts = [], [], []
    with RowReader(run.manifest.source_columns()) as reader:
        for unit in picked:
            stop = min(unit.stop, unit.start + each)
            head = Unit(source=unit.source, source_name=unit.source_name, start=unit.start, stop=stop)
            rows = read_unit(run.manifest, reader, head)
            for chunk in chunks(rows, scorer.encoder, max_tokens=scorer.max_tokens):
                sequences = scorer.views.expand(chunk.tokens.rows).sequences
                flat.append(sequences.flat_ids)
                lengths.append(np.diff(sequences.offsets))
                second = sequences.second_starts
                starts.append(np.zeros(sequences.num_sequences, dtype=np.int32) if second is None else second)
    if not flat:
        return Sequences(flat_ids=np.empty(0, dtype=np.int32), offsets=np.zeros(1, dtype=np.int64))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    second_starts = np.concatenate(starts)
    return Sequences(
        flat_ids=np.concatenate(flat),
        offsets=offsets,
        second_starts=second_starts if second_starts.any() else None,
    )


def refuse_failed(found: dict[str, Any], where: str) -> None:
    """Raise CheckError where the gate's figures say that it did not hold."""
    if not found["passed"]:
        tolerance = found["tolerance"]
        if not math.isfinite(found["max_abs_difference"]):
            msg = (
                f"the parity gate did not hold: on {found['num_documents']} documents of the corpus the model gives "
                "numbers that are not finite; mend the model, or with a new --run set --parity-documents 0, "
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
