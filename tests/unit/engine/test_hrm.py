"""Puzzles run step by step: batches, padding, dropping, noise."""

import numpy as np
import pytest
import torch
from support.hrm import OTTER, random_network, reference, small_config, small_trm

from assay.engine.hrm import Reasoner, load_reasoner
from assay.errors import BundleError, UsageError
from assay.model.hrm.noise import Noise, noise_of

CPU = torch.device("cpu")


def reasoner(config=None, **options):
    """A random model on the CPU."""
    network = random_network(config or small_config())
    return Reasoner(network, device=CPU, dtype=torch.float32, **options)


def grids(number, *, seed=0):
    """Random puzzles."""
    return np.random.default_rng(seed).integers(0, 6, (number, 16)).astype(np.uint8)


def last(steps):
    """The result of the last step."""
    *_, result = steps
    return result


def test_steps_are_those_of_the_official_code():
    """Grids, halting scores and whether the model would stop, for as many steps as training had, or more."""
    ours, wanted = load_reasoner(OTTER), reference("eval_otter_step300")
    steps = list(ours.run(wanted["inputs"]))
    assert [each.step for each in steps] == [1, 2, 3, 4]
    for number, step in enumerate(steps):
        assert (step.grids_NS == wanted["predictions"][number]).mean() > 0.999
        np.testing.assert_allclose(step.q_halt_N, wanted["q_halt"][number], atol=1e-4)
        np.testing.assert_allclose(step.q_continue_N, wanted["q_continue"][number], atol=1e-4)
        assert (step.halts_N == (wanted["q_halt"][number] > wanted["q_continue"][number])).all()
    more = list(ours.run(wanted["inputs"][:2], num_steps=6))
    assert more[-1].step == 6
    assert len(ours.fingerprint) == 64


def test_padding_and_neighbours_change_nothing_at_a_fixed_size():
    """A puzzle has the same bits alone and beside others in a batch of the same padded size."""
    ours, puzzles = reasoner(batch_sizes=(8,)), grids(8)
    whole = last(ours.run(puzzles))
    for number in (0, 5):
        alone = last(ours.run(puzzles[number : number + 1]))
        assert (alone.grids_NS[0] == whole.grids_NS[number]).all()
        assert alone.q_halt_N[0] == whole.q_halt_N[number]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_steps_that_are_launched_ahead_are_those_that_are_waited_for(device):
    """A step that runs while the one before is looked at writes over none of its numbers."""
    ours = Reasoner(random_network(small_config()), device=torch.device(device), dtype=torch.float32)
    puzzles = grids(300)
    trajectory = ours.begin(puzzles)
    waited_for = [trajectory.step() for _ in range(4)]
    ahead = list(ours.run(puzzles, num_steps=4))
    assert [each.step for each in ahead] == [1, 2, 3, 4]
    for one, other in zip(ahead, waited_for, strict=True):
        assert (one.grids_NS == other.grids_NS).all()
        assert (one.q_halt_N == other.q_halt_N).all()
    assert list(ours.run(puzzles, num_steps=0)) == []


def test_puzzles_leave_between_steps():
    """Those that stay go on as if nothing had happened; the batch shrinks to the next smaller size."""
    ours, puzzles = reasoner(batch_sizes=(4, 8)), grids(7)
    whole = [each.q_halt_N for each in ours.run(puzzles)]
    trajectory = ours.begin(puzzles)
    trajectory.step()
    trajectory.keep(np.array([True, False, True, True, False, True, True]))
    second = trajectory.step()
    assert second.items_N.tolist() == [0, 2, 3, 5, 6]
    np.testing.assert_array_equal(second.q_halt_N, whole[1][second.items_N])
    trajectory.keep(np.array([4, 1]))
    third = trajectory.step()
    assert third.items_N.tolist() == trajectory.items.tolist() == [6, 2]
    np.testing.assert_allclose(third.q_halt_N, whole[2][[6, 2]], atol=1e-5)
    trajectory.keep(np.array([], np.int64))
    assert trajectory.step().grids_NS.shape == (0, 16)


@pytest.mark.parametrize("config", [small_config(), small_trm(mlp_t=True)], ids=["hrm", "trm"])
def test_noise_belongs_to_the_puzzle(config):
    """A seed's noise is the same in any batch and place; another seed's is another; none is the plain run."""
    ours, puzzles = reasoner(config, batch_sizes=(6,)), grids(6)
    seeds = np.arange(6) + 100
    whole = last(ours.run(puzzles, noise=Noise(scale=0.2, seeds_N=seeds)))
    order = np.array([3, 1, 4])
    again = last(ours.run(puzzles[order], noise=Noise(scale=0.2, seeds_N=seeds[order])))
    # sums of a row may round otherwise in another row of the batch
    np.testing.assert_allclose(again.q_halt_N, whole.q_halt_N[order], rtol=1e-5, atol=1e-6)
    others = last(ours.run(puzzles, noise=Noise(scale=0.2, seeds_N=seeds + 1000)))
    plain = last(ours.run(puzzles))
    assert (whole.q_halt_N != others.q_halt_N).all()
    assert (whole.q_halt_N != plain.q_halt_N).all()
    silent = last(ours.run(puzzles, noise=Noise(scale=0.0, seeds_N=seeds)))
    np.testing.assert_array_equal(silent.q_halt_N, plain.q_halt_N)


def test_noise_is_standard_normal_and_uncorrelated():
    """Over places, seeds and steps."""
    drawn = noise_of(torch.arange(-200, 200), 3, (10, 32))
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert 4 < drawn.abs().max() < 6.5
    flat = torch.cat((drawn[:2].flatten(1), noise_of(torch.tensor([-200]), 4, (10, 32)).flatten(1)))
    assert (torch.corrcoef(flat) - torch.eye(3)).abs().max() < 0.2


def test_bfloat16_runs_on_a_cpu():
    """As the model was trained, where asked for."""
    ours = load_reasoner(OTTER, precision="bf16")
    wanted = reference("eval_otter_step300")
    step = next(ours.run(wanted["inputs"]))
    assert ours.dtype == torch.bfloat16
    assert (step.grids_NS == wanted["predictions"][0]).mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs_NS": np.zeros((2, 9), np.uint8)}, "puzzles of 9 cells; the model's have 16"),
        ({"inputs_NS": np.full((2, 16), 6)}, "a cell of 6 to 6; it must be 0 to 5"),
        ({"inputs_NS": np.full((2, 16), -1)}, "it must be 0 to 5"),
        ({"identifiers_N": np.array([0, 1])}, "an? identifier of 0 to 1; it must be 0 to 0"),
        ({"identifiers_N": np.zeros(3, np.int64)}, r"they must be \[N, S\] and \[N\]"),
        ({"inputs_NS": np.zeros((5, 16), np.uint8)}, "5 puzzles; batches have at most 4"),
        ({"noise": Noise(scale=1.0, seeds_N=np.zeros(3))}, "noise seeds for 2 puzzles"),
    ],
)
def test_puzzles_that_the_model_cannot_take_are_refused(change, message):
    """Each with what was seen and what is needed."""
    given = {"inputs_NS": np.zeros((2, 16), np.uint8), **change}
    with pytest.raises(UsageError, match=message):
        reasoner(batch_sizes=(4,)).begin(**given)


def test_a_wrong_device_or_precision_is_refused():
    """By name, with those that exist."""
    with pytest.raises(UsageError, match="use auto, fp32 or bf16"):
        load_reasoner(OTTER, precision="fp8")
    with pytest.raises(UsageError, match="device 'tpu'"):
        load_reasoner(OTTER, device="tpu")
    with pytest.raises(BundleError):
        load_reasoner(OTTER.parent / "nothing")
