"""What training of puzzle models can be told. Imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Literal

from assay.engine.settings import CpuThreads
from assay.errors import UsageError
from assay.model.hrm.config import Architecture, HrmConfig, Precision
from assay.settings import COUNT, positional, within

PuzzleOptimizer = Literal["adam_atan2", "adamw"]
_CHANGES_NO_NUMBER = frozenset(
    {
        "out",
        "overwrite",
        "resume",
        "num_threads",
        "checkpoint_minutes",
        "stop_after_minutes",
        "evaluate_every",
        "validation_rows",
        "snapshots",
        "snapshot_every",
    }
)
"""Settings that may be changed when an interrupted training is resumed."""


@dataclass(frozen=True, kw_only=True)
class PuzzleTraining(CpuThreads):
    """A model of puzzles, from random weights."""

    data: str = field(metadata=positional("DATA"))
    """Folder of puzzles as `assay sudoku build` writes it: a split train, and validation or test."""
    out: str
    """Folder of the snapshots."""
    architecture: Architecture = "hrm"
    """hrm: a slow and a fast stack of layers; trm: one small stack for both."""
    hidden_size: int = field(default=512, metadata=COUNT)
    """Values of a position."""
    num_heads: int = field(default=8, metadata=COUNT)
    """Attention heads."""
    expansion: float = field(default=4.0, metadata=within(above=0))
    """Width of the feed-forward."""
    num_layers: int | None = field(default=None, metadata=COUNT)
    """Layers of each stack; by default 4, and 2 of a TRM."""
    slow_cycles: int | None = field(default=None, metadata=COUNT)
    """Updates of the slow state in a step; by default 2, and 3 of a TRM."""
    fast_cycles: int | None = field(default=None, metadata=COUNT)
    """Updates of the fast state for each of the slow one; by default 2, and 6 of a TRM."""
    puzzle_positions: int | None = field(default=None, metadata=within(at_least=0))
    """Positions of the puzzle embedding; by default 1, and 16 of a TRM; 0: no embedding."""
    mlp_t: bool = False
    """TRM: a feed-forward over positions in place of attention."""
    halt_max_steps: int = field(default=16, metadata=COUNT)
    """Steps after which a puzzle is given up."""
    halt_exploration: float = field(default=0.1, metadata=within(at_least=0, at_most=1))
    """Share of puzzles that must go on for a drawn number of steps."""
    q_continue: bool | None = None
    """Learn what going on is worth, at the cost of a second forward pass; by default for an HRM alone."""
    batch_size: int = field(default=768, metadata=COUNT)
    """Puzzles that are thought about at once."""
    num_steps: int = field(default=26_000, metadata=COUNT)
    """Optimizer steps."""
    optimizer: PuzzleOptimizer = "adam_atan2"
    """adam_atan2: Adam without an epsilon (Everett et al. 2024); adamw."""
    learning_rate: float = field(default=1e-4, metadata=within(above=0))
    """Largest learning rate, reached after the warm-up."""
    weight_decay: float = field(default=1.0, metadata=within(at_least=0))
    """Decay of every weight."""
    beta1: float = field(default=0.9, metadata=within(at_least=0, below=1))
    """How much of the mean gradient stays at each step."""
    beta2: float = field(default=0.95, metadata=within(at_least=0, below=1))
    """How much of the mean squared gradient stays at each step."""
    warmup_steps: int = field(default=2000, metadata=within(at_least=0))
    """Steps during which the learning rate rises from 0."""
    min_learning_rate_ratio: float = field(default=1.0, metadata=within(at_least=0, at_most=1))
    """The learning rate falls to this share of its largest in a half cosine; 1: it stays."""
    puzzle_learning_rate: float = field(default=1e-4, metadata=within(above=0))
    """Largest learning rate of puzzle embeddings."""
    puzzle_weight_decay: float = field(default=1.0, metadata=within(at_least=0))
    """Decay of puzzle embeddings."""
    ema: float | None = field(default=None, metadata=within(above=0, below=1))
    """Keep a running mean of the weights, of which so much stays at each step, and save that."""
    augment: bool = False
    """Sudoku: show each puzzle in another of its symmetric forms each time."""
    forward_dtype: Precision = "bfloat16"
    """What activations are; weights and updates are float32."""
    device: str = "auto"
    """Where it runs: cpu, cuda or cuda:K; auto: a GPU where there is one."""
    compile: bool = True
    """On a GPU: compile the model's step, which takes a minute at the start."""
    validation_rows: int = field(default=1024, metadata=COUNT)
    """Held-out puzzles that validations look at: the first of the split validation, or of test where there is none."""
    evaluate_every: int | None = field(default=None, metadata=COUNT)
    """Steps between validations; by default a twentieth of all."""
    snapshots: int = field(default=10, metadata=COUNT)
    """How many sets of weights stay, the newest ones; the last is that of the last step."""
    snapshot_every: int | None = field(default=None, metadata=COUNT)
    """Steps between snapshots; by default a fortieth of all."""
    checkpoint_minutes: float = field(default=5.0, metadata=within(above=0))
    """Minutes between checkpoints."""
    stop_after_minutes: float | None = field(default=None, metadata=within(above=0))
    """Stop with a checkpoint after so many minutes, to be resumed; by default at the end."""
    resume: bool = False
    """Continue from the last checkpoint of an interrupted training."""
    seed: int = field(default=0, metadata=within(at_least=0, below=1 << 63))
    """Decides the first weights, the order of the puzzles and which must go on."""
    overwrite: bool = False
    """Whether snapshots at `out`, or an interrupted training of them, may be replaced."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if self.mlp_t and self.architecture != "trm":
            raise UsageError("mlp_t is a TRM's; set architecture=trm, or leave it out")

    @property
    def validates_every(self) -> int:
        """Steps between validations."""
        return self.evaluate_every or max(self.num_steps // 20, 1)

    @property
    def keeps_every(self) -> int:
        """Steps between snapshots."""
        return self.snapshot_every or max(self.num_steps // 40, 1)

    def decisive(self) -> dict[str, object]:
        """The settings that decide the numbers of a training, by name."""
        return {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _CHANGES_NO_NUMBER
        }

    def config(self, *, vocab_size: int, seq_len: int, num_puzzle_identifiers: int) -> HrmConfig:
        """The model for data of these sizes; raises `BundleError` for sizes that make none."""
        is_trm = self.architecture == "trm"
        layers = self.num_layers or (2 if is_trm else 4)
        positions = self.puzzle_positions
        if positions is None:
            positions = 16 if is_trm else 1
        config = HrmConfig(
            architecture=self.architecture,
            vocab_size=vocab_size,
            seq_len=seq_len,
            num_puzzle_identifiers=num_puzzle_identifiers,
            puzzle_emb_ndim=self.hidden_size if positions else 0,
            puzzle_emb_len=positions,
            H_cycles=self.slow_cycles or (3 if is_trm else 2),
            L_cycles=self.fast_cycles or (6 if is_trm else 2),
            H_layers=0 if is_trm else layers,
            L_layers=layers,
            hidden_size=self.hidden_size,
            num_heads=self.num_heads,
            expansion=self.expansion,
            halt_max_steps=self.halt_max_steps,
            halt_exploration_prob=self.halt_exploration,
            mlp_t=self.mlp_t,
            no_ACT_continue=is_trm if self.q_continue is None else not self.q_continue,
            forward_dtype=self.forward_dtype,
        )
        config.check("settings")
        return config
