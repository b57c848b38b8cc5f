"""The parity gate of a run: before any unit, a sample of the corpus on the reference path too.

The reference is transformers' own, from the text on: its tokenizer must give the same ids, its model in fp32
the same logits within the tolerance. The figures go to `parity.json` in the run and name what they were
measured of; a worker whose engine, device or versions are others measures again.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.reading import RowReader
from assay.data.rows import SourceRows
from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.parity import TOLERANCES, ParityReport, Tolerance, compare, reference_engine
from assay.engine.proofs import circumstances
from assay.engine.sequences import Sequences
from assay.errors import CheckError
from assay.runs.plan import Unit
from assay.runs.run import Run
from assay.score.chunks import chunks
from assay.score.kind import SCORE
from assay.score.scorer import Scorer
from assay.score.work import read_unit
from assay.tokenize.compare import SAVE_TOKENIZER, Compared, compare_tokens
from assay.tokenize.encode import Encoder

PARITY_PATH = "parity.json"
SAMPLED_UNITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ParitySample:
    """Documents of the corpus."""

    sequences: Sequences
    """Their token ids, as the engine gets them."""
    texts: list[str]
    """Their texts; empty where the source holds token ids."""
    text_pairs: list[str] | None
    """Their second texts."""


def check_parity(run: Run, scorer: Scorer, *, device: str) -> None:
    """Raise CheckError unless the scorer's path agrees with the reference on a sample of the corpus."""
    _, settings = run.manifest.read(SCORE)
    num_documents = settings.parity_documents
    if not num_documents:
        return
    subject = subject_of(run, scorer.engine, device)
    found = read_figures(run)
    if found is None or found.get("subject") != subject:
        began = time.perf_counter()
        sample = take_sample(run, scorer, num_documents)
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
        run.store.replace(PARITY_PATH, json.dumps(found, indent=1).encode())
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


def read_figures(run: Run) -> dict[str, Any] | None:
    """What `parity.json` says; None where there is none, or nothing that can be read."""
    if run.store.info(PARITY_PATH) is None:
        return None
    try:
        found = json.loads(run.store.read_bytes(PARITY_PATH))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


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


def take_sample(run: Run, scorer: Scorer, num_documents: int) -> ParitySample:
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
    texts: list[str] = []
    pairs: list[str] = []
    with RowReader(run.manifest.source_columns()) as reader:
        for unit in picked:
            stop = min(unit.stop, unit.start + each)
            head = Unit(source=unit.source, source_name=unit.source_name, start=unit.start, stop=stop)
            rows = list(read_unit(run.manifest, reader, head))
            for batch in rows:
                lefts, rights = usable_texts(batch)
                texts += lefts
                pairs += rights
            for chunk in chunks(rows, scorer.encoder, max_tokens=scorer.max_tokens):
                sequences = scorer.views.expand(chunk.tokens.rows).sequences
                flat.append(sequences.flat_ids)
                lengths.append(np.diff(sequences.offsets))
                second = sequences.second_starts
                starts.append(np.zeros(sequences.num_sequences, dtype=np.int32) if second is None else second)
    if not flat:
        none = Sequences(flat_ids=np.empty(0, dtype=np.int32), offsets=np.zeros(1, dtype=np.int64))
        return ParitySample(sequences=none, texts=[], text_pairs=None)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    second_starts = np.concatenate(starts)
    sequences = Sequences(
        flat_ids=np.concatenate(flat),
        offsets=offsets,
        second_starts=second_starts if second_starts.any() else None,
    )
    return ParitySample(sequences=sequences, texts=texts, text_pairs=pairs or None)


def usable_texts(rows: SourceRows) -> tuple[list[str], list[str]]:
    """The texts of rows without errors, and their second texts; both empty for stored ids."""
    if rows.texts is None:
        return [], []
    first = rows.texts.to_pylist()
    if rows.text_pairs is None:
        return [text for text in first if text is not None], []
    both = [pair for pair in zip(first, rows.text_pairs.to_pylist(), strict=True) if None not in pair]
    return [left for left, _ in both], [right for _, right in both]


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
