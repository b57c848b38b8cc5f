"""Training's step: deep supervision with puzzles that come and go.

A batch has as many places as puzzles. Each step runs what stands in them; a puzzle that halts gives its place
to the next one at the start of the step after. Axes: B places, S cells.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from assay.model.hrm.config import HrmConfig
from assay.model.hrm.losses import IGNORED, Losses, losses_of
from assay.model.hrm.network import Carry, Network, Outputs

StepFunction = Callable[[Carry, torch.Tensor, torch.Tensor | None], tuple[Carry, Outputs]]
"""`Network.forward`, or a faster one of the same weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Puzzles:
    """A puzzle for each place."""

    inputs_BS: torch.Tensor
    """int32."""
    labels_BS: torch.Tensor
    """int32, `IGNORED` where a cell is not asked for."""
    identifiers_B: torch.Tensor
    """Kind of puzzle, int32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPlaces:
    """What stands in the places between two steps: all of it is needed to go on exactly."""

    carry: Carry
    steps_B: torch.Tensor
    """Steps that the puzzle has had, int32."""
    halted_B: torch.Tensor
    """Whether the next step takes a new puzzle."""
    puzzles: Puzzles


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """The random numbers of a step; both are drawn in every step, whatever comes of them."""

    uniform_B: torch.Tensor
    """In [0, 1): below `halt_exploration_prob` the puzzle must go on."""
    min_steps_B: torch.Tensor
    """For how many steps, 2 to `halt_max_steps`."""

    @classmethod
    def draw(cls, num_places: int, halt_max_steps: int, generator: torch.Generator) -> "Draws":
        """The next numbers of a generator on the CPU, so that every device sees the same."""
        high = max(halt_max_steps, 2) + 1
        return cls(
            uniform_B=torch.rand(num_places, generator=generator),
            min_steps_B=torch.randint(2, high, (num_places,), generator=generator, dtype=torch.int32),
        )

    def to(self, device: torch.device) -> "Draws":
        """A copy on a device."""
        return Draws(uniform_B=self.uniform_B.to(device), min_steps_B=self.min_steps_B.to(device))


def empty_places(network: Network, num_places: int, seq_len: int, dtype: torch.dtype) -> BatchPlaces:
    """Places that all take a new puzzle in the first step."""
    device = network.H_init.device
    cells = torch.zeros((num_places, seq_len), dtype=torch.int32, device=device)
    each = torch.zeros(num_places, dtype=torch.int32, device=device)
    return BatchPlaces(
        carry=network.first_carry(num_places, seq_len, dtype),
        steps_B=each.clone(),
        halted_B=torch.ones_like(each, dtype=torch.bool),
        puzzles=Puzzles(inputs_BS=cells, labels_BS=torch.full_like(cells, IGNORED), identifiers_B=each),
    )


def take_in(network: Network, places: BatchPlaces, puzzles: Puzzles) -> BatchPlaces:
    """The places with a new puzzle wherever one had halted; what comes for the others is dropped."""
    fresh, held = places.halted_B, places.puzzles
    return BatchPlaces(
        carry=network.reset(places.carry, fresh),
        steps_B=torch.where(fresh, 0, places.steps_B),
        halted_B=torch.zeros_like(fresh),
        puzzles=Puzzles(
            inputs_BS=torch.where(fresh.unsqueeze(1), puzzles.inputs_BS, held.inputs_BS),
            labels_BS=torch.where(fresh.unsqueeze(1), puzzles.labels_BS, held.labels_BS),
            identifiers_B=torch.where(fresh, puzzles.identifiers_B, held.identifiers_B),
        ),
    )


def wants_to_halt(config: HrmConfig, q_halt_B: torch.Tensor, q_continue_B: torch.Tensor) -> torch.Tensor:
    """Whether the heads would stop here."""
    return q_halt_B > (0 if config.no_ACT_continue else q_continue_B)


def after_step(
    config: HrmConfig, places: BatchPlaces, carry: Carry, outputs: Outputs, draws: Draws
) -> BatchPlaces:
    """The places after a step of training whose outputs are these."""
    steps_B = places.steps_B + 1
    halted_B = steps_B >= config.halt_max_steps
    if config.halt_max_steps > 1:
        halted_B = halted_B | wants_to_halt(config, outputs.q_halt_B.detach(), outputs.q_continue_B.detach())
        must_go_on = draws.uniform_B < config.halt_exploration_prob
        halted_B = halted_B & (steps_B >= torch.where(must_go_on, draws.min_steps_B, 0))
    return BatchPlaces(carry=carry, steps_B=steps_B, halted_B=halted_B, puzzles=places.puzzles)


def target_q_continue(config: HrmConfig, places: BatchPlaces, next_outputs: Outputs) -> torch.Tensor:
    """What going on is worth, [B], of the outputs of one step more: Q-learning without a replay buffer.

    `places`: after the step. In the last step that is allowed, halting is all that can come.
    """
    is_last_B = places.steps_B >= config.halt_max_steps
    q_halt_B, q_continue_B = next_outputs.q_halt_B, next_outputs.q_continue_B
    return torch.sigmoid(torch.where(is_last_B, q_halt_B, torch.maximum(q_halt_B, q_continue_B)))


def needs_next_step(config: HrmConfig) -> bool:
    """Whether training runs one step more for the target of going on."""
    return config.halt_max_steps > 1 and not config.no_ACT_continue


@dataclass(frozen=True, kw_only=True, slots=True)
class Supervised:
    """What a step of training came to."""

    places: BatchPlaces
    """For the next step."""
    losses: Losses
    outputs: Outputs
    target_q_continue_B: torch.Tensor | None
    puzzle_vectors_BW: torch.Tensor | None
    """Each place's copy of its puzzle embedding, which gathers the gradient; None where there is none."""


def supervised_step(
    network: Network, places: BatchPlaces, puzzles: Puzzles, draws: Draws, *, step: StepFunction | None = None
) -> Supervised:
    """Run one step of training up to its losses, whose `total` awaits `backward`.

    `puzzles` fill the places of halted ones. `step`: a faster forward of the network's weights. The target of
    going on comes from a second forward pass with the weights of this step, without gradient.
    """
    places = take_in(network, places, puzzles)
    vectors = network.puzzle_vectors(places.puzzles.identifiers_B)
    if vectors is not None:
        vectors = vectors.detach().clone().requires_grad_()
    return judged_step(network, places, vectors, draws, step=step)


def judged_step(
    network: Network,
    places: BatchPlaces,
    vectors: torch.Tensor | None,
    draws: Draws,
    *,
    step: StepFunction | None = None,
) -> Supervised:
    """As `supervised_step`, once new puzzles are in their places; `vectors` gather the puzzle embeddings' gradient."""
    config, run = network.config, step or network
    held = places.puzzles
    carry, outputs = run(places.carry, held.inputs_BS, vectors)
    places = after_step(config, places, carry, outputs, draws)
    target = None
    if needs_next_step(config):
        with torch.no_grad():
            fixed = None if vectors is None else vectors.detach()
            target = target_q_continue(config, places, run(carry, held.inputs_BS, fixed)[1])
    losses = losses_of(
        outputs.logits_BSV,
        outputs.q_halt_B,
        outputs.q_continue_B,
        held.labels_BS,
        target_q_continue_B=target,
        loss_type=config.loss_type,
    )
    return Supervised(
        places=places,
        losses=losses,
        outputs=outputs,
        target_q_continue_B=target,
        puzzle_vectors_BW=vectors,
    )
