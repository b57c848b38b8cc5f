"""The JSON of an ensemble run: what the parallel batch inference script for HRM writes, derived from parts, and more.

config, batch_results, overall_results   the script's names and meanings: `correct` is any-correct, an oracle's count
members, failures, rules, pass_at_k      what it lacks
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from assay.data.storage import is_object_url, local_path, writable_place
from assay.ensemble.findings import LABEL_FREE, BatchFinding, Findings, MemberFinding, Share
from assay.ensemble.settings import EnsembleSettings
from assay.errors import UsageError

Json = dict[str, Any]
_TIME = "%Y-%m-%d %H:%M:%S"
ORACLE_NOTE = (
    "oracle: it looks at the answers to choose a member; nothing that can be deployed has this accuracy"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """What stands in `config` beside the settings."""

    run_id: str
    run_url: str
    num_batch: int
    batch_size: int
    max_workers: int
    precision: str
    started: datetime
    ended: datetime


def results_json(settings: EnsembleSettings, stated: Stated, found: Findings, notes: Sequence[str]) -> Json:
    """The results as one JSON object."""
    elapsed = (stated.ended - stated.started).total_seconds()
    return {
        "config": {
            "checkpoints": list(settings.checkpoint_paths),
            "permutes": settings.permutes,
            "views": settings.views,
            "seed": settings.seed,
            "noise": settings.noise,
            "noise_seeds": settings.noise_seeds,
            "max_workers": stated.max_workers,
            "num_batch": stated.num_batch,
            "batch_size": stated.batch_size,
            "start_time": stated.started.strftime(_TIME),
            "data": settings.data,
            "split": settings.split,
            "settled": settings.settled,
            "num_steps": settings.num_steps,
            "precision": stated.precision,
            "gpu_memory_limit": settings.gpu_memory_limit,
            "run": stated.run_url,
            "run_id": stated.run_id,
        },
        "batch_results": [_batch(batch) for batch in found.batches],
        "overall_results": {
            "correct": found.correct,
            "total": found.total,
            "accuracy": _rounded(found.correct / found.total) if found.total else None,
            "elapsed_time": round(elapsed, 3),
            "end_time": stated.ended.strftime(_TIME),
            "rule": "any-correct",
            "note": ORACLE_NOTE,
        },
        "rules": {
            name: {**_share(share), "uses_labels": name not in LABEL_FREE}
            for name, share in found.rules.items()
        },
        "members": [_member(member) for member in found.members],
        "failures": [
            {
                "member": member.name,
                "batches": member.failed_batches,
                "puzzles": member.num_failed,
                "error": member.error,
            }
            for member in found.failed
        ],
        "pass_at_k": [
            {
                "k": each.k,
                "value": _rounded(each.value),
                "low": _rounded(each.low),
                "high": _rounded(each.high),
            }
            for each in found.pass_at_k
        ],
        "any_correct_in_order": [
            {"members": k, **_share(share)} for k, share in enumerate(found.in_order, start=1)
        ],
        "cost": {
            "passes": found.member_runs,
            "passes_in_full": found.total * found.num_members,
            "passes_per_puzzle": _rounded(found.member_runs / found.total) if found.total else None,
            "any_correct_at_equal_cost": None
            if found.equal_cost is None
            else {"members": found.equal_cost[0], **_share(found.equal_cost[1])},
        },
        "agreement": None if found.agreement is None else _rounded(found.agreement),
        "valid_grids_that_are_not_the_label": found.num_several,
        "notes": list(notes),
    }


def refuse_place(path: str) -> None:
    """Raise an error where no file can be written at `path`, before any work is done."""
    if is_object_url(path):
        return
    file = local_path(path)
    if file.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    writable_place(file, path)


def refuse_other_results(path: str, run_id: str) -> None:
    """Raise `UsageError` where a file lies at `path` that is not the results of this run."""
    file = None if is_object_url(path) else local_path(path)
    if file is not None and file.exists() and run_id_of(file) != run_id:
        raise UsageError(f"{path} exists and holds other results; remove it, or name another file")


def run_id_of(file: Path) -> str | None:
    """The run that a results file is of; None where it says none."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    config = content.get("config") if isinstance(content, Mapping) else None
    return config.get("run_id") if isinstance(config, Mapping) else None


def _batch(batch: BatchFinding) -> Json:
    return {
        "batch_idx": batch.batch_idx,
        "correct": batch.correct,
        "total": batch.total,
        "accuracy": _rounded(batch.correct / batch.total) if batch.total else None,
        "time_seconds": round(batch.time_seconds, 3),
    }


def _member(member: MemberFinding) -> Json:
    return {
        "name": member.name,
        **_share(member.right),
        "valid": member.num_valid,
        "failed": member.num_failed,
    }


def _share(share: Share) -> Json:
    low, high = share.interval or (None, None)
    return {
        "correct": share.correct,
        "total": share.total,
        "accuracy": None if share.accuracy is None else _rounded(share.accuracy),
        "low": None if low is None else _rounded(low),
        "high": None if high is None else _rounded(high),
    }


def _rounded(value: float) -> float:
    return round(value, 6)
