"""The parity gate of a run with an engine: measured once for what it is of, kept beside the run, held to.

The engine's side of the comparison is computed first. transformers' side takes seconds to import and to load, and is
computed beside the work on the first unit; no part is published before the gate has passed. What passed once is noted
on this machine, and holds for the same documents, files, device, versions and source of Assay. What is compared,
scores or vectors, the caller knows.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.half import why_too_large
from assay.engine.parity import ParityReport, VectorParityReport
from assay.engine.precision import Computed, WhyNot
from assay.engine.proofs import circumstances, hardware_and_versions
from assay.errors import CheckError, RangeError
from assay.model.checkpoint import folders_state
from assay.proofs import Note
from assay.runs.figures import PARITY_PATH, figures_of, write_figures
from assay.runs.gate import Step
from assay.runs.run import Run
from assay.tokenize.compare import SAVE_TOKENIZER, TokenComparison, compare_tokens
from assay.tokenize.encode import Encoder
from assay.tokenize.sample import ParitySample, take_sample

EARLIER = "earlier on this machine, of the same documents and files"
"""In figures that another run has measured."""

Report = ParityReport | VectorParityReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is compared with the reference."""

    identity: dict[str, Any]
    """The model, its tokenizer and its precision."""
    folders: Sequence[Path]
    """Where its files lie, those of its tokenizer in the first."""
    tolerance: object
    num_documents: int
    """Of the corpus."""
    apart: bool = False
    """Whether the texts of a pair are encoded apart."""


def gate_step(
    run: Run,
    engine: Engine,
    encoder: Encoder,
    subject: Subject,
    *,
    device: str,
    begin: Callable[[ParitySample], Callable[[], Report]],
    conclude: Callable[[dict[str, Any]], None],
) -> Step | None:
    """What is left to measure of a run's gate; None where its figures are known and hold.

    They hold for this subject, engine and machine, and for nothing else. `begin` computes the engine's side of a
    sample of the corpus and returns what compares it with the reference's; `conclude` raises CheckError for figures
    that do not hold.
    """
    chosen = devices.parse_device(device)
    of = {
        **subject.identity,
        "engine": engine.name,
        "deterministic": engine.deterministic,
        **circumstances(chosen),
    }
    found = figures_of(run, of)
    if found is not None:
        conclude(found)
        return None
    sample = take_sample(run.manifest, encoder, subject.num_documents, apart=subject.apart)
    state = folders_state(subject.folders)
    note = Note.of(
        "parity",
        *hardware_and_versions(chosen),
        engine.description(),
        json.dumps([of, run.manifest.kind, repr(subject.tolerance)], sort_keys=True),
        state,
        _digest_of(sample),
    )

    def is_noted() -> bool:
        noted = note.read()
        if noted is not None:
            write_figures(run, {**noted, "measured": EARLIER, "subject": of})
            conclude(noted)
        return noted is not None

    if is_noted():
        return None
    compare = begin(sample)

    def measure() -> None:
        with note.turn():
            if is_noted():
                return
            found = {**_measured(compare, sample, encoder, subject), "engine": engine.description()}
            if found["passed"] and folders_state(subject.folders) == state:
                note.write(found)
        write_figures(run, {**found, "subject": of})
        conclude(found)

    return measure


def _measured(
    compare: Callable[[], Report], sample: ParitySample, encoder: Encoder, subject: Subject
) -> dict[str, Any]:
    began = time.perf_counter()
    texts, text_pairs = sample.texts, sample.text_pairs
    if subject.apart:
        texts, text_pairs = [*texts, *(text_pairs or ())], None
    report = compare()
    tokens = (
        compare_tokens(subject.folders[0], encoder, texts, text_pairs)
        if texts
        else TokenComparison(num_texts=0, difference=None, reason="the source holds token ids")
    )
    return {
        **asdict(report),
        "passed": report.passed and tokens.difference is None,
        "tokenizer": str(tokens),
        "token_difference": tokens.difference,
        "seconds": round(time.perf_counter() - began, 2),
    }


def _digest_of(sample: ParitySample) -> str:
    """Hash of a sample's texts and of what the engine gets of them."""
    sequences = sample.sequences
    starts = b"" if sequences.second_starts is None else sequences.second_starts.tobytes()
    texts = json.dumps([sample.texts, sample.text_pairs]).encode()
    parts = (sequences.flat_ids.tobytes(), sequences.offsets.tobytes(), starts, texts)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def range_steps(why_not_fp16: WhyNot, precision: Computed, *, is_auto: bool) -> list[Step]:
    """What is left to prove of a model that `auto` runs in fp16: that it holds there. Raises RangeError from the step.

    Most often the command that planned the run knows already, and the answer is noted.
    """

    def check() -> None:
        if (reason := why_not_fp16()) is not None:
            raise RangeError(
                f"the run is in fp16, and {reason}; run the command that began it again, to plan it in another"
            )

    return [check] if precision == "fp16" and is_auto else []


def refuse_too_large(found: dict[str, Any], precision: Computed, *, is_auto: bool) -> None:
    """Raise RangeError where the sample is too large for fp16, which `auto` chose."""
    if precision == "fp16" and is_auto and (reason := why_too_large(found)) is not None:
        raise RangeError(_too_large(reason))


def _too_large(reason: str) -> str:
    return f"the run is in fp16, and {reason}; run the command that began it again, to plan it in another"


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
