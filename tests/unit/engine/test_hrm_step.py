"""Fused kernels of HRM against plain torch. Without a GPU Triton's interpreter runs them, on few rows."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from support.hrm import random_network, small_config, small_trm
from support.interpreter import DEVICE, WHY_NOT

from assay.engine.hrm import Reasoner
from assay.model.hrm.network import rms_norm, rotate, rotation_of

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
GPU = torch.device("cuda")
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)], ids=str
)
"""Triton's interpreter knows no bfloat16."""


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def kernels():
    """The module under test, imported after the interpreter is chosen."""
    from assay.engine.kernels import triton_hrm

    return triton_hrm


def random(*shape, dtype=torch.float32):
    """Standard normal numbers on the device of the tests."""
    return torch.randn(shape, device=DEVICE).to(dtype)


@DTYPES
@pytest.mark.parametrize("turns", [True, False], ids=["rotated", "plain"])
def test_attention_rotates_and_sums(dtype, turns):
    """Every position to every other of its puzzle, none of the next puzzle's; positions that fill no block."""
    puzzles, positions, heads, head = 2, 19, 2, 32
    qkv = random(puzzles * positions, 3 * heads * head, dtype=dtype)
    rotation = rotation_of(positions, head, 10_000.0, torch.device(DEVICE)) if turns else None
    found = kernels().attend(qkv, kernels().halves(rotation), positions=positions, num_heads=heads)
    q, k, v = qkv.view(puzzles, positions, 3, heads, head).unbind(2)
    if rotation is not None:
        q, k = rotate(q, rotation), rotate(k, rotation)
    wanted = F.scaled_dot_product_attention(*(each.transpose(1, 2).float() for each in (q, k, v)))
    torch.testing.assert_close(
        found.float(), wanted.transpose(1, 2).reshape(found.shape), atol=CLOSE[dtype], rtol=CLOSE[dtype]
    )


@DTYPES
def test_sums_and_norms_round_where_torch_does(dtype):
    """The residual's sum is rounded before it is normed, and the injected pair before it is added."""
    x, added, third = (random(7, 48, dtype=dtype) for _ in range(3))
    wanted = rms_norm(x + added, 1e-5)
    torch.testing.assert_close(kernels().inject(x, added, third), x + (added + third), atol=0, rtol=0)
    torch.testing.assert_close(kernels().inject(x, added, None), x + added, atol=0, rtol=0)
    found = kernels().add_norm(x, added, 1e-5)
    assert found is x
    torch.testing.assert_close(found, wanted, atol=1e-6 if dtype == torch.float32 else 1e-2, rtol=1e-2)


@DTYPES
def test_the_gated_product_is_the_two_products(dtype):
    """Of a weight with gates and ups in turn; rows that fill no tile."""
    tile = kernels().Tile(rows=32, columns=64, depth=32, warps=4, stages=1)
    x, weight = random(45, 64, dtype=dtype), random(192, 64, dtype=dtype) / 8
    gate, up = F.linear(x, weight).chunk(2, dim=-1)
    found = kernels().gated(x, kernels().interleaved(weight, tile), tile)
    torch.testing.assert_close(found, F.silu(gate) * up, atol=CLOSE[dtype], rtol=CLOSE[dtype])


@pytest.mark.parametrize(
    "config",
    [
        small_config(hidden_size=64, seq_len=5, H_cycles=1),
        small_trm(hidden_size=64, seq_len=5, H_cycles=1, L_cycles=1, L_layers=1),
    ],
    ids=["hrm", "trm"],
)
def test_a_fused_step_is_the_plain_one(config):
    """Random weights in float32; a change of the weights is taken over when asked for."""
    from assay.engine.hrm_step import FusedStep

    network = random_network(config).to(DEVICE).requires_grad_(requires_grad=False)
    x = random(1, config.num_positions(5), 64)
    fused = FusedStep(network, torch.float32)
    for _ in range(2):
        first = network.first_carry(1, 5, torch.float32)
        theirs = network.think(first, x, network.rotation(x.shape[1], x.device))
        ours = fused(first, x)
        torch.testing.assert_close(ours.z_H, theirs.z_H, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.z_L, theirs.z_L, atol=1e-4, rtol=1e-4)
        for each in network.parameters():
            each.mul_(1.1)
        fused.refresh()


@pytest.mark.gpu
@pytest.mark.parametrize("size", [8, 600], ids=["replayed", "launched"])
def test_on_a_gpu_a_reasoner_s_steps_are_those_of_plain_torch(size):
    """In bfloat16, replayed or not, about as near float32 as plain torch; a puzzle alone has its bits in company."""
    config = small_config(hidden_size=128, vocab_size=11, seq_len=81, puzzle_emb_ndim=128, expansion=4.0)
    puzzles = torch.randint(0, 11, (size, 81)).numpy()
    exact, plain, fused = (
        next(Reasoner(random_network(config), device=GPU, dtype=dtype, is_fused=is_fused).run(puzzles))
        for dtype, is_fused in [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
    )
    assert abs(fused.q_halt_N - exact.q_halt_N).mean() < 2 * abs(plain.q_halt_N - exact.q_halt_N).mean()
    assert (fused.grids_NS != exact.grids_NS).mean() < 2 * (plain.grids_NS != exact.grids_NS).mean()
    ours = Reasoner(random_network(config), device=GPU, dtype=torch.bfloat16, batch_sizes=(size,))
    *_, whole = ours.run(puzzles)
    *_, alone = ours.run(puzzles[3:4])
    assert alone.q_halt_N[0] == whole.q_halt_N[3]
    assert (alone.grids_NS[0] == whole.grids_NS[3]).all()
