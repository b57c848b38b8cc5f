"""The passes of training and their gradients, in Triton and in plain torch, against float64 autograd.

Without a GPU Triton's interpreter runs the kernels, on few rows.
"""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from support.formulas import activated
from support.interpreter import DEVICE, WHY_NOT

from assay.train.kernels import fused

NAN = float("nan")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu", "tanh")
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""Of the norm of the difference, as a share of the norm of what is expected."""
needs_triton = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
KINDS = pytest.mark.parametrize("kind", ["plain", pytest.param("triton", marks=needs_triton)])
LARGE = [
    *(
        (shape, torch.bfloat16)
        for shape in ((13_600, 768), (512, 384), (4_097, 1024), (1_001, 1536), (777, 4096))
    ),
    ((2_049, 3072), torch.float16),
    ((2_049, 768), torch.float32),
]


def on_all(small, options):
    """(kind, shape, dtype, option): small cases anywhere, large ones in Triton on a GPU.

    Plain torch draws its own dropout, so that it takes part where an option begins with 0.0 or a word.
    """

    def case(*values, marks=()):
        name = "-".join(str(value).removeprefix("torch.") for value in values)
        return pytest.param(*values, id=name if marks != (pytest.mark.gpu,) else f"gpu-{name}", marks=marks)

    cases = []
    for option in options:
        for shape, dtype in small:
            if not isinstance(option[0], float) or option[0] == 0.0:
                cases.append(case("plain", shape, dtype, option))
            cases.append(case("triton", shape, dtype, option, marks=(needs_triton,)))
        for shape, dtype in LARGE:
            cases.append(case("triton", shape, dtype, option, marks=(pytest.mark.gpu,)))
    return cases


# a sigmoid by way of exp2 goes through infinity to 0
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Known random numbers; memory that kernels are given to write holds NaN."""
    torch.manual_seed(0)
    for name, maker in {"empty": torch.empty, "empty_like": torch.empty_like}.items():
        monkeypatch.setattr(
            torch, name, lambda *given, maker=maker, **named: poisoned(maker(*given, **named))
        )


def poisoned(made):
    """Unwritten memory whose every value shows if it is read."""
    return made.fill_(NAN) if made.is_floating_point() else made


def passes(kind, monkeypatch):
    """The functions of one kind."""
    if kind == "plain":
        monkeypatch.setattr(fused, "_has_triton", lambda: False)
        return fused
    from assay.train.kernels import triton_fused

    return triton_fused


def random(*shape, dtype=torch.float32, scale=1.0, mean=0.0):
    """Normal random numbers on the device, whose gradient is wanted."""
    return (torch.randn(*shape, device=DEVICE) * scale + mean).to(dtype).requires_grad_()


def doubles(*tensors):
    """The same values in float64, with gradients of their own."""
    return [None if x is None else x.detach().double().requires_grad_() for x in tensors]


def gradients(outs, inputs, grads):
    """The gradient of each input; None where there is no input."""
    found = iter(torch.autograd.grad(outs, [x for x in inputs if x is not None], grads))
    return [None if x is None else next(found) for x in inputs]


def check(outs, expected, likes, dtype, *, factor=1.0):
    """Each is of the dtype of its like, and close to what is expected."""
    for out, wanted, like in zip(outs, expected, likes, strict=True):
        assert (out is None) == (wanted is None)
        if out is None:
            continue
        assert out.dtype == like.dtype
        assert out.shape == wanted.shape
        far = float((out.detach().double() - wanted.detach()).norm())
        # a NaN anywhere fails
        coarse = dtype if out.dtype == torch.float32 else out.dtype
        assert far <= factor * TOLERANCES[coarse] * float(wanted.detach().norm()) + 1e-12


def seed_of(number):
    """What kernels read."""
    return torch.tensor([number], dtype=torch.int64, device=DEVICE)


def kept_of(kernels, shape, p, *, seed=1, salt=0):
    """What dropout keeps, as 0 or 1 in float64: the norm's weight is 0 and its bias 1."""
    hidden = shape[1]
    zeros, ones = torch.zeros(hidden, device=DEVICE), torch.ones(hidden, device=DEVICE)
    out = kernels.norm_dropout(
        torch.randn(shape, device=DEVICE), zeros, ones, 1e-5, p, seed_of(seed), salt, dtype=torch.float32
    )
    kept = (out != 0).double()
    torch.testing.assert_close(out.double(), kept / (1.0 - p), rtol=1e-6, atol=0.0)
    return kept


# --- activations


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "option"),
    on_all(
        [
            ((1, 32), torch.float32),
            ((3, 768), torch.float32),
            ((127, 100), torch.float32),
            ((3, 160), torch.bfloat16),
        ],
        [(activation, torch.float32) for activation in ACTIVATIONS]
        + [("gelu", None), ("silu", torch.bfloat16)],
    ),
)
def test_bias_activation(kind, shape, dtype, option, monkeypatch):
    """Values and gradients are those of activation(x + bias), each in the dtype of what it belongs to."""
    activation, bias_dtype = option
    kernels = passes(kind, monkeypatch)
    x = random(*shape, dtype=dtype, scale=2.0)
    with torch.no_grad():
        x.view(-1)[:4] = torch.tensor([-30.0, 30.0, 0.01, -6.0])
    bias = None if bias_dtype is None else random(shape[1], dtype=bias_dtype)
    x64, bias64 = doubles(x, bias)
    expected = activated(x64 if bias64 is None else x64 + bias64, activation)
    out = kernels.bias_activation(x, bias, activation)
    grad = random(*shape, dtype=dtype).detach()
    check(
        [out, *gradients(out, [x, bias], grad)],
        [expected, *gradients(expected, [x64, bias64], grad.double())],
        [x, x, bias],
        dtype,
    )


@needs_triton
@pytest.mark.filterwarnings("ignore:overflow encountered in multiply")
@pytest.mark.parametrize("where", ["here", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_far_from_zero(activation, where, monkeypatch):
    """At the ends of the range there are the limits, of the slope as well, and no NaN."""
    kernels = passes("triton", monkeypatch)
    x = torch.tensor([[-1e30, -300.0, 300.0, 1e30]], device=DEVICE, requires_grad=True)
    out = kernels.bias_activation(x, None, activation)
    is_tanh = activation == "tanh"
    expected = x.sign() if is_tanh else x.clamp_min(0.0)
    torch.testing.assert_close(out, expected)
    (slope,) = torch.autograd.grad(out, x, torch.ones_like(x))
    assert slope.tolist() == [[0.0, 0.0, 0.0, 0.0] if is_tanh else [0.0, 0.0, 1.0, 1.0]]


@needs_triton
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_stays_nan(activation, monkeypatch):
    """No activation turns a NaN into a number."""
    x = torch.randn(2, 64, device=DEVICE)
    x[1, 5] = NAN
    assert passes("triton", monkeypatch).bias_activation(x, None, activation).isnan().sum() == 1


# --- norm and dropout

NORMS = [
    ((1, 32), torch.float32),
    ((3, 384), torch.float32),
    ((127, 48), torch.float32),
    ((5, 768), torch.float32),
    ((9, 96), torch.bfloat16),
]


def norm_inputs(shape, dtype, parts, *, scale=1.0):
    """x, bias, residual, weight and norm bias; `parts` names those of the optional ones that are there."""
    hidden = shape[1]
    # masters in float32, or all in half precision
    own = dtype if "half" in parts else torch.float32
    return [
        # a mean beside 0, as hidden states have it
        random(*shape, dtype=dtype, scale=scale, mean=0.5 * scale),
        random(hidden, dtype=own) if "bias" in parts else None,
        random(*shape, dtype=dtype, scale=scale) if "residual" in parts else None,
        random(hidden, dtype=own, scale=0.3, mean=1.0),
        random(hidden, dtype=own) if "norm_bias" in parts else None,
    ]


def expected_norm(inputs, kept, p):
    """layer_norm(residual + dropout(x + bias)) where `kept` says what dropout keeps."""
    x, bias, residual, weight, norm_bias = inputs
    x = x if bias is None else x + bias
    x = x * kept / (1.0 - p)
    x = x if residual is None else x + residual
    return F.layer_norm(x, x.shape[-1:], weight, norm_bias, 1e-5)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "option"),
    on_all(
        NORMS,
        [
            (0.0, "bias residual norm_bias"),
            (0.1, "bias residual norm_bias"),
            (0.5, "bias residual norm_bias half"),
            (0.0, "residual"),
            (0.1, "bias"),
            (0.0, ""),
        ],
    ),
)
def test_dropout_add_norm(kind, shape, dtype, option, monkeypatch):
    """Values and gradients are those of the formula with one and the same mask on both ways."""
    p, parts = option
    kernels = passes(kind, monkeypatch)
    inputs = norm_inputs(shape, dtype, parts.split())
    kept = torch.ones(shape, device=DEVICE) if p == 0.0 else kept_of(kernels, shape, p, salt=5)
    inputs64 = doubles(*inputs)
    expected = expected_norm(inputs64, kept, p)
    out, _ = kernels.dropout_add_norm(*inputs, eps=1e-5, p=p, seed=seed_of(1), salt=5)
    grad = random(*shape, dtype=dtype).detach()
    check(
        [out, *gradients(out, inputs, grad)],
        [expected, *gradients(expected, inputs64, grad.double())],
        [inputs[0], *inputs],
        dtype,
    )


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "option"),
    on_all([((7, 48), torch.float32), ((7, 48), torch.bfloat16)], [(0.0,), (0.1,)]),
)
def test_gradients_of_both_results_meet(kind, shape, dtype, option, monkeypatch):
    """Returned twice, the rows take a gradient each; one of them may be missing."""
    (p,) = option
    kernels = passes(kind, monkeypatch)
    inputs = norm_inputs(shape, dtype, ["bias", "residual", "norm_bias"])
    kept = torch.ones(shape, device=DEVICE) if p == 0.0 else kept_of(kernels, shape, p)
    inputs64 = doubles(*inputs)
    expected = expected_norm(inputs64, kept, p)
    first, second = kernels.dropout_add_norm(*inputs, eps=1e-5, p=p, seed=seed_of(1), salt=0)
    assert torch.equal(first, second)
    assert first.data_ptr() == second.data_ptr()
    grads = [random(*shape, dtype=dtype).detach() for _ in range(2)]

    def run(outs, given):
        return torch.autograd.grad(outs, inputs, given, retain_graph=True)

    def wanted(given):
        return torch.autograd.grad(expected, inputs64, given.double(), retain_graph=True)

    both = run([first, second], grads)
    # where it is plain torch, autograd rounds the sum of the two gradients
    check(both, wanted(grads[0].double() + grads[1].double()), inputs, dtype, factor=2.0)
    check(run([first], grads[:1]), wanted(grads[0]), inputs, dtype)
    check(run([second], grads[1:]), wanted(grads[1]), inputs, dtype)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "option"),
    on_all([*NORMS[:2], ((129, 32), torch.float32), NORMS[-1]], [(0.0, True), (0.1, False), (0.5, True)]),
)
def test_norm_dropout(kind, shape, dtype, option, monkeypatch):
    """Values and gradients are those of dropout(layer_norm(x)); what comes out may be of another dtype."""
    p, has_bias = option
    kernels = passes(kind, monkeypatch)
    x, _, _, weight, bias = norm_inputs(shape, torch.float32, ["norm_bias"] if has_bias else [])
    kept = torch.ones(shape, device=DEVICE) if p == 0.0 else kept_of(kernels, shape, p, seed=3, salt=2)
    x64, weight64, bias64 = doubles(x, weight, bias)
    expected = F.layer_norm(x64, shape[1:], weight64, bias64, 1e-5) * kept / (1.0 - p)
    out = kernels.norm_dropout(x, weight, bias, 1e-5, p, seed_of(3), 2, dtype=dtype)
    assert out.dtype == dtype
    grad = random(*shape, dtype=dtype).detach()
    check(
        [out, *gradients(out, [x, weight, bias], grad)],
        [expected, *gradients(expected, [x64, weight64, bias64], grad.double())],
        [out, x, weight, bias],
        dtype,
    )


@KINDS
@pytest.mark.parametrize("scale", [1e4, 1e-3])
def test_rows_of_any_magnitude(kind, scale, monkeypatch):
    """Large rows and small ones are normed as exactly."""
    kernels = passes(kind, monkeypatch)
    inputs = norm_inputs((3, 64), torch.float32, ["residual", "norm_bias"], scale=scale)
    inputs64 = doubles(*inputs)
    expected = expected_norm(inputs64, 1.0, 0.0)
    out, _ = kernels.dropout_add_norm(*inputs, eps=1e-5, p=0.0, seed=seed_of(0), salt=0)
    grad = torch.randn(3, 64, device=DEVICE)
    check(
        [out, *gradients(out, inputs, grad)],
        [expected, *gradients(expected, inputs64, grad.double())],
        [inputs[0], *inputs],
        torch.float32,
        factor=2.0,
    )


@needs_triton
@pytest.mark.parametrize("where", ["here", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_draws(where, p, monkeypatch):
    """As many stay as should; neighbours, rows, seeds and places in the model draw apart."""
    kernels = passes("triton", monkeypatch)
    shape = (32, 768)
    kept = kept_of(kernels, shape, p)
    count = kept.numel()
    spread = math.sqrt(p * (1.0 - p))
    assert abs(float(kept.mean()) - (1.0 - p)) < 5.0 * spread / math.sqrt(count)
    assert torch.equal(kept, kept_of(kernels, shape, p))
    centred = (kept - (1.0 - p)) / spread
    others = [kept_of(kernels, shape, p, seed=2), kept_of(kernels, shape, p, seed=1 + (1 << 32))]
    others.append(kept_of(kernels, shape, p, salt=1))
    pairs = [(centred, (other - (1.0 - p)) / spread) for other in others]
    pairs += [(centred[:, step:], centred[:, :-step]) for step in (1, 2, 4, 8, 256)]
    pairs += [(centred[step:], centred[:-step]) for step in (1, 2, 4)]
    for one, other in pairs:
        assert abs(float((one * other).mean())) < 5.0 / math.sqrt(one.numel())


@needs_triton
def test_a_mask_does_not_depend_on_the_batch(monkeypatch):
    """A row is dropped alike whatever rows are behind it."""
    kernels = passes("triton", monkeypatch)
    assert torch.equal(kept_of(kernels, (3, 96), 0.5), kept_of(kernels, (11, 96), 0.5)[:3])


@KINDS
def test_either_dropout_keeps_its_share(kind, monkeypatch):
    """Whichever draws: about a share p is dropped, and what stays is scaled."""
    kernels = passes(kind, monkeypatch)
    kept = kept_of(kernels, (16, 512), 0.25)
    assert abs(float(kept.mean()) - 0.75) < 0.03
    x = torch.zeros(4, 64, device=DEVICE)
    ones = torch.ones(64, device=DEVICE)
    out, _ = kernels.dropout_add_norm(x, ones, None, ones, None, eps=0.0, p=0.5, seed=seed_of(1), salt=0)
    # dropped or not, of two values each row has two after the norm
    assert all(len(row.unique()) == 2 for row in out)


# --- gradients


@needs_triton
def test_parameters_that_stand_still_have_no_gradient(monkeypatch):
    """Frozen parameters are left out; gradients of the others are as they were."""
    kernels = passes("triton", monkeypatch)
    inputs = norm_inputs((5, 64), torch.float32, ["bias", "residual", "norm_bias"])
    bias = random(64)

    def run():
        hidden, _ = kernels.dropout_add_norm(*inputs, eps=1e-5, p=0.1, seed=seed_of(1), salt=0)
        kernels.bias_activation(hidden, bias, "gelu").sum().backward()
        grads = [x.grad for x in (*inputs, bias)]
        for x in (*inputs, bias):
            x.grad = None
        return grads

    everything = run()
    assert all(grad is not None for grad in everything)
    assert all(torch.equal(one, other) for one, other in zip(everything, run(), strict=True))
    for frozen in (inputs[1], inputs[4], bias):
        frozen.requires_grad_(False)
    some = run()
    assert [grad is None for grad in some] == [False, True, False, False, True, True]
    assert all(torch.equal(some[index], everything[index]) for index in (0, 2, 3))
    inputs[3].requires_grad_(False)
    assert torch.equal(run()[0], everything[0])


@needs_triton
def test_rows_of_two_precisions(monkeypatch):
    """A residual may be finer than x; each gets its gradient in its own dtype."""
    kernels = passes("triton", monkeypatch)
    x = random(4, 64, dtype=torch.bfloat16)
    residual, weight = random(4, 64), random(64)
    inputs64 = doubles(x, None, residual, weight, None)
    out, _ = kernels.dropout_add_norm(
        x, None, residual, weight, None, eps=1e-5, p=0.0, seed=seed_of(1), salt=0
    )
    grad = torch.randn(4, 64, device=DEVICE).bfloat16()
    wanted = gradients(expected_norm(inputs64, 1.0, 0.0), inputs64, grad.double())
    inputs = [x, None, residual, weight, None]
    check(gradients(out, inputs, grad), wanted, inputs, torch.bfloat16)


@needs_triton
def test_rows_need_not_lie_in_order(monkeypatch):
    """Rows cut out of wider ones, and gradients that are one number, are taken as they are."""
    kernels = passes("triton", monkeypatch)
    wide = random(6, 128)
    x = wide[:, :64]
    out = kernels.bias_activation(x, None, "silu")
    torch.testing.assert_close(out, F.silu(x))
    (grad,) = torch.autograd.grad(out.sum(), wide)
    x64 = doubles(wide)[0]
    (expected,) = torch.autograd.grad(F.silu(x64[:, :64]).sum(), x64)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@needs_triton
def test_a_captured_graph_draws_again(monkeypatch):
    """Forward and backward in a CUDA graph: a changed seed changes the mask, the same seed brings it back."""
    kernels = passes("triton", monkeypatch)
    inputs = norm_inputs((1_000, 768), torch.bfloat16, ["bias", "residual", "norm_bias"])
    inner_bias = random(768)
    seed = seed_of(1)
    grad = torch.randn(1_000, 768, device=DEVICE).bfloat16()
    trained = [*inputs, inner_bias]

    def step():
        hidden, residual = kernels.dropout_add_norm(*inputs, eps=1e-5, p=0.5, seed=seed, salt=0)
        inner = kernels.bias_activation(hidden, inner_bias, "gelu")
        out, _ = kernels.dropout_add_norm(
            inner, None, residual, inputs[3], None, eps=1e-5, p=0.1, seed=seed, salt=1
        )
        return [out.detach(), *torch.autograd.grad(out, trained, grad)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        eager = step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()

    def replay(number):
        seed.fill_(number)
        graph.replay()
        torch.cuda.synchronize()
        return [x.clone() for x in captured]

    first, second, again = replay(1), replay(2), replay(1)
    for before, one, other, same in zip(eager, first, second, again, strict=True):
        assert torch.equal(before, one)
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert other.isfinite().all()
