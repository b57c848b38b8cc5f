"""Shapes and cycles of a recurrent reasoning model. No torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from assay.errors import BundleError

Architecture = Literal["hrm", "trm"]
Positions = Literal["rope", "learned", "none"]
Precision = Literal["float32", "bfloat16"]

_INNER_MULTIPLE = 256
_OFFICIAL_NAMES: Mapping[str, Architecture] = {
    "HierarchicalReasoningModel_ACTV1": "hrm",
    "TinyRecursiveReasoningModel_ACTV1": "trm",
}
_TRM_PUZZLE_POSITIONS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class HrmConfig:
    """An HRM or a TRM. Names are those of the official configurations."""

    architecture: Architecture
    """hrm: a slow and a fast stack of layers; trm: one stack for both levels."""
    vocab_size: int
    """Values of a cell, padding included."""
    seq_len: int | None
    """Cells of a puzzle; None where nothing says, and any length runs."""
    num_puzzle_identifiers: int
    """Rows of the table of puzzle embeddings."""
    puzzle_emb_ndim: int
    """Width of a puzzle embedding; 0: there is none."""
    puzzle_emb_len: int
    """Positions that the puzzle embedding takes before the first cell."""
    H_cycles: int
    """Updates of the slow state in a step."""
    L_cycles: int
    """Updates of the fast state before each update of the slow one."""
    H_layers: int
    """Layers of the slow stack; 0 for a TRM, which has one stack."""
    L_layers: int
    """Layers of the fast stack."""
    hidden_size: int
    num_heads: int
    expansion: float
    """Of the feed-forward, as if it had two matrices; see `inner_size`."""
    halt_max_steps: int
    """Steps after which a puzzle is given up."""
    halt_exploration_prob: float = 0.1
    """Training: share of puzzles that must go on for a drawn number of steps."""
    pos_encodings: Positions = "rope"
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    mlp_t: bool = False
    """TRM: a feed-forward over positions in place of attention."""
    no_ACT_continue: bool = False
    """Halt where q_halt > 0, with no head for going on and no second forward pass in training."""
    forward_dtype: Precision = "bfloat16"
    """What activations are; weights are float32."""
    loss_type: Literal["stablemax_cross_entropy", "softmax_cross_entropy"] = "stablemax_cross_entropy"

    @property
    def is_trm(self) -> bool:
        """Whether one stack serves both levels."""
        return self.architecture == "trm"

    @property
    def head_size(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_heads

    @property
    def updates(self) -> tuple[str, str]:
        """A step's updates of the fast (L) and the slow (H) state, in order: first those without gradient.

        Gradients flow through the last fast and slow update (HRM), or through all of the last cycle (TRM): of the
        default HRM ("LLHL", "LH").
        """
        cycle = "L" * self.L_cycles + "H"
        whole = cycle * self.H_cycles
        with_gradient = len(cycle) if self.is_trm else 2
        return whole[:-with_gradient], whole[-with_gradient:]

    @property
    def num_layers(self) -> int:
        """Layers that a token passes in one step."""
        fast = self.H_cycles * self.L_cycles * self.L_layers
        return fast + self.H_cycles * (self.L_layers if self.is_trm else self.H_layers)

    def num_positions(self, seq_len: int) -> int:
        """Positions of a puzzle of `seq_len` cells."""
        return seq_len + self.puzzle_emb_len

    def inner_size(self, width: int) -> int:
        """Inner width of a gated feed-forward over `width` values."""
        wanted = round(self.expansion * width * 2 / 3)
        return -(wanted // -_INNER_MULTIPLE) * _INNER_MULTIPLE

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shape of every stored tensor by its name; None for a length that nothing says."""
        hidden = self.hidden_size
        found: dict[str, tuple[int | None, ...]] = {
            "H_init": (hidden,),
            "L_init": (hidden,),
            "embed_tokens.embedding_weight": (self.vocab_size, hidden),
            "lm_head.weight": (self.vocab_size, hidden),
            "q_head.weight": (2, hidden),
            "q_head.bias": (2,),
        }
        positions = None if self.seq_len is None else self.num_positions(self.seq_len)
        if self.puzzle_emb_ndim:
            found["puzzle_emb.weights"] = (self.num_puzzle_identifiers, self.puzzle_emb_ndim)
        if self.pos_encodings == "learned":
            found["embed_pos.embedding_weight"] = (positions, hidden)
        levels = (
            {"L_level": self.L_layers}
            if self.is_trm
            else {"H_level": self.H_layers, "L_level": self.L_layers}
        )
        for level, num_layers in levels.items():
            for number in range(num_layers):
                found |= {
                    f"{level}.layers.{number}.{name}": shape for name, shape in self._layer(positions).items()
                }
        return found

    def _layer(self, positions: int | None) -> dict[str, tuple[int | None, ...]]:
        hidden, inner = self.hidden_size, self.inner_size(self.hidden_size)
        found: dict[str, tuple[int | None, ...]] = {
            "mlp.gate_up_proj.weight": (2 * inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        if self.mlp_t:
            across = None if positions is None else self.inner_size(positions)
            twice = None if across is None else 2 * across
            return found | {
                "mlp_t.gate_up_proj.weight": (twice, positions),
                "mlp_t.down_proj.weight": (positions, across),
            }
        return found | {
            "self_attn.qkv_proj.weight": (3 * hidden, hidden),
            "self_attn.o_proj.weight": (hidden, hidden),
        }

    def check(self, where: str) -> None:
        """Raise `BundleError` where the numbers cannot be those of a model."""
        for name in (
            "vocab_size",
            "H_cycles",
            "L_cycles",
            "L_layers",
            "hidden_size",
            "num_heads",
            "halt_max_steps",
        ):
            if getattr(self, name) < 1:
                raise BundleError(f"{where}: {name}={getattr(self, name)}; it must be at least 1; correct it")
        if not self.is_trm and self.H_layers < 1:
            raise BundleError(f"{where}: H_layers={self.H_layers}; it must be at least 1; correct it")
        if self.hidden_size % (2 * self.num_heads):
            raise BundleError(
                f"{where}: hidden_size={self.hidden_size} with num_heads={self.num_heads}; "
                "a head's width must be an even whole number; change one of them"
            )
        room = self.puzzle_emb_len * self.hidden_size
        if self.puzzle_emb_ndim > room:
            raise BundleError(
                f"{where}: puzzle_emb_ndim={self.puzzle_emb_ndim}; {self.puzzle_emb_len} positions of "
                f"{self.hidden_size} hold {room}; raise puzzle_emb_len"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as our config.json holds them."""
        return {"model_type": self.architecture, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str) -> "HrmConfig":
        """What `to_json` gave; `BundleError` for the config of another kind of model."""
        kind = content.get("model_type")
        if kind not in get_args(Architecture):
            raise BundleError(
                f"{where}: model_type={kind}; a puzzle model is hrm or trm; name another folder"
            )
        known = {each.name for each in fields(cls)}
        try:
            config = cls(**{name: value for name, value in content.items() if name in known})
        except TypeError as error:
            raise BundleError(f"{where}: {error}; write it again by assay train") from error
        config.check(where)
        return config

    @classmethod
    def from_official(
        cls,
        content: Mapping[str, Any],
        *,
        where: str,
        shapes: Mapping[str, tuple[int, ...]],
        seq_len: int | None,
    ) -> "HrmConfig":
        """What an official all_config.yaml and the shapes of the weights beside it say together.

        The data's sizes stand in neither: vocabulary and identifiers are read off the tables, and the number
        of cells where a tensor has it; else it is `seq_len`.
        """
        arch = content.get("arch")
        if not isinstance(arch, Mapping):
            raise BundleError(
                f"{where}: no section arch; it must be the all_config.yaml of an HRM or TRM training"
            )
        name = str(arch.get("name", "")).rpartition("@")[2]
        architecture = _OFFICIAL_NAMES.get(name)
        if architecture is None:
            known = " or ".join(_OFFICIAL_NAMES)
            raise BundleError(
                f"{where}: arch.name={arch.get('name')}; it must be {known}; name another checkpoint"
            )
        is_trm = architecture == "trm"
        loss = arch.get("loss")
        try:
            hidden, wide = int(arch["hidden_size"]), int(arch.get("puzzle_emb_ndim", 0))
            given = int(arch.get("puzzle_emb_len", _TRM_PUZZLE_POSITIONS)) if is_trm else 0
            positions = given or -(wide // -hidden)
            config = cls(
                architecture=architecture,
                vocab_size=_rows(shapes, "embed_tokens.embedding_weight", where),
                seq_len=_cells(shapes, positions, seq_len),
                num_puzzle_identifiers=_rows(shapes, "puzzle_emb.weights", where) if wide else 1,
                puzzle_emb_ndim=wide,
                puzzle_emb_len=positions if wide else 0,
                H_cycles=int(arch["H_cycles"]),
                L_cycles=int(arch["L_cycles"]),
                H_layers=0 if is_trm else int(arch["H_layers"]),
                L_layers=int(arch["L_layers"]),
                hidden_size=hidden,
                num_heads=int(arch["num_heads"]),
                expansion=float(arch["expansion"]),
                halt_max_steps=int(arch["halt_max_steps"]),
                halt_exploration_prob=float(arch["halt_exploration_prob"]),
                pos_encodings=_one_of(Positions, arch, "pos_encodings", None, where),
                rope_theta=float(arch.get("rope_theta", 10000.0)),
                rms_norm_eps=float(arch.get("rms_norm_eps", 1e-5)),
                mlp_t=is_trm and bool(arch.get("mlp_t", False)),
                no_ACT_continue=is_trm and bool(arch.get("no_ACT_continue", True)),
                forward_dtype=_one_of(Precision, arch, "forward_dtype", "bfloat16", where),
                loss_type=loss.get("loss_type", "stablemax_cross_entropy")
                if isinstance(loss, Mapping)
                else "stablemax_cross_entropy",
            )
        except KeyError as error:
            raise BundleError(
                f"{where}: arch.{error.args[0]} is missing; restore the training's own file"
            ) from error
        except (TypeError, ValueError) as error:
            raise BundleError(f"{where}: {error}; restore the training's own file") from error
        config.check(where)
        return config


def _one_of(kinds: Any, arch: Mapping[str, Any], name: str, default: str | None, where: str) -> Any:  # noqa: ANN401
    known = get_args(kinds)
    value = arch.get(name, default)
    if value is None and "none" in known:
        value = "none"
    if value not in known:
        raise BundleError(
            f"{where}: arch.{name}={value}; it must be {', '.join(known)}; name another checkpoint"
        )
    return value


def _rows(shapes: Mapping[str, tuple[int, ...]], name: str, where: str) -> int:
    if name not in shapes:
        raise BundleError(f"{where}: the weights beside it have no {name}; name the training's own weights")
    return shapes[name][0]


def _cells(shapes: Mapping[str, tuple[int, ...]], puzzle_positions: int, given: int | None) -> int | None:
    """Cells of a puzzle, of a tensor that has a row for each position; else what was given."""
    for name, axis in (("embed_pos.embedding_weight", 0), ("L_level.layers.0.mlp_t.gate_up_proj.weight", 1)):
        if name in shapes:
            return shapes[name][axis] - puzzle_positions
    return given
