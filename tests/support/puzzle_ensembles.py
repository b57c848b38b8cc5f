"""Ensemble runs on real puzzles whose members are made up: they know the solutions and give away some of them."""

import hashlib
import json
from pathlib import Path

import numpy as np

from assay.ensemble.members import Passes
from assay.ensemble.plan import plan_ensemble
from assay.ensemble.settings import EnsembleSettings
from assay.ensemble.verb import read_findings
from assay.ensemble.work import EnsembleWork
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join
from assay.sudoku.grids import checked
from assay.sudoku.puzzles import read_split
from assay.sudoku.views import cyclic

GIVEN = Path(__file__).resolve().parents[1] / "data" / "hrm"
PUZZLES = GIVEN / "data" / "sudoku-tiny"
_RUNS = GIVEN / "checkpoints" / "Sudoku-tiny ACT-torch"
OTTER = _RUNS / "HierarchicalReasoningModel_ACTV1 humble-otter" / "step_300"
HERON = _RUNS / "HierarchicalReasoningModel_ACTV1 brisk-heron"
CHECKPOINTS = (str(OTTER), str(HERON / "step_9"), str(HERON))
NUM_STEPS = 3


class Knowing:
    """Solves a share of the puzzles, another one for each view: which ones, a hash of what it sees says."""

    def __init__(self, name, share=0.15):
        self.name, self.share = name, share
        self.num_asked = 0
        split = read_split(PUZZLES, "test")
        self._solutions = {}
        for shift in range(9):
            view = cyclic(shift)
            for puzzle, solution in zip(view.show(split.inputs), view.show(split.labels), strict=True):
                self._solutions[puzzle.tobytes()] = solution

    def solve(self, puzzles_NS, seeds_N=None):
        """Wrong at the first step, all that it can at the last."""
        self.num_asked += len(puzzles_NS)
        seen = [hashlib.sha256(self.name.encode() + puzzle.tobytes()).digest() for puzzle in puzzles_NS]
        solves_N = np.array([digest[0] < 256 * self.share for digest in seen])
        wrong_NS = np.where(puzzles_NS == 1, 2, puzzles_NS)
        right_NS = np.stack([self._solutions[puzzle.tobytes()] for puzzle in puzzles_NS])
        last_NS = np.where(solves_N[:, None], right_NS, wrong_NS)
        q_halt_N = np.array([digest[1] / 64 - 2 for digest in seen], dtype=np.float32) + 2 * solves_N
        return Passes(
            grids_KNS=np.stack([wrong_NS, wrong_NS, last_NS]),
            valid_KN=np.stack([checked(each, puzzles_NS) for each in (wrong_NS, wrong_NS, last_NS)]),
            q_halt_N=q_halt_N.astype(np.float32),
            q_continue_N=np.zeros(len(seen), dtype=np.float32),
            halted_N=q_halt_N > 0,
        )


class Failing:
    """A member whose every pass raises, as each did in the script's last commit."""

    def solve(self, puzzles_NS, seeds_N=None):
        """Raise what a call with the wrong arguments raises."""
        raise TypeError("create_batch() got an unexpected keyword argument 'train_loader'")


def settings_of(run, **changes):
    """Settings of an ensemble of the three checkpoints."""
    values = {"data": str(PUZZLES), "checkpoints": CHECKPOINTS, "permutes": 3, "run": str(run)}
    return EnsembleSettings(**{**values, **changes})


def run_in_process(settings, solvers):
    """A run whose members are these solvers, by the name of the checkpoint's file; its findings and its run."""
    plan = plan_ensemble(settings, device_kind="cpu")
    run, _ = create_or_join(settings.run, plan.manifest)
    work = EnsembleWork(run.manifest, plan.puzzles, lambda path: solvers[Path(path).name], device="cpu")
    for unit in run.manifest.units():
        run_unit(run, work, unit)
    return read_findings(run), run


def knowing():
    """A solver for each checkpoint."""
    return {name: Knowing(name) for name in ("step_300", "step_9", "step_10")}


def read_json(path):
    """A JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
