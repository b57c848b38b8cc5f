"""Layers whose norms are folded into their products: the product's options, a layer, and a whole model.

Without a GPU Triton's interpreter runs them in float32; compiled in half precision they are marked `gpu`.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from support.interpreter import DEVICE, WHY_NOT
from transformers import BertConfig, BertForSequenceClassification, ModernBertConfig
from transformers import ModernBertForSequenceClassification as ModernBert

from assay.engine.folded_layers import FoldedPostNormLayer, can_fold, fold
from assay.engine.gpu_layers import FirstTokenLayer, Hidden, PendingNorm, PostNormLayer, normed
from assay.engine.kernels.layout import DeviceBatch, plan_blocks
from assay.engine.kernels.plain import PlainKernels
from assay.model.families import Linear, Norm, extract_weights

needs_triton = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
interpreted = pytest.mark.skipif(DEVICE == "cuda", reason="compiled, products of float32 are not its use")
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Of the norm of the difference, as a share of the norm of what is expected."""
NAN = float("nan")
EPS = 1e-5
PARTS = 3
CPU = torch.device("cpu")
HALVES = (torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Known random numbers; memory that the layer is given to write holds NaN."""
    torch.manual_seed(0)
    new_empty = torch.Tensor.new_empty

    def poisoned(*given, **named):
        made = new_empty(*given, **named)
        return made.fill_(NAN) if made.is_floating_point() else made

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


def random(*shape, dtype=torch.float32, scale=1.0):
    """Normal random numbers on the device."""
    return (torch.randn(*shape, device=DEVICE) * scale).to(dtype)


def random_norm(hidden, *, bias=True):
    """A layer norm whose weight and bias are neither 1 nor 0, float32."""
    return Norm(weight=1.0 + random(hidden, scale=0.3), bias=random(hidden) if bias else None, eps=EPS)


def layer_norm(x, norm):
    """Layer norm in float64."""
    bias = None if norm.bias is None else norm.bias.double()
    return F.layer_norm(x.double(), x.shape[-1:], norm.weight.double(), bias, norm.eps)


def sums_of(x, parts=PARTS):
    """Sums and sums of squares of rows, by groups of columns, as products gather them."""
    groups_TPC = x.double().unflatten(1, (parts, -1))
    return torch.stack([groups_TPC.sum(2).T, groups_TPC.square().sum(2).T], dim=2).float()


def relative(out, expected):
    """The norm of the difference as a share of the norm of what is expected; NaN where any value is."""
    assert out.shape == expected.shape
    return float((out.double() - expected).norm() / expected.norm())


# --- the product


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """What a product with these options gave, and what it should have given."""

    out: torch.Tensor
    expected: torch.Tensor
    sums: torch.Tensor | None


def run_product(
    shape,
    dtype,
    tile,
    *,
    activation="none",
    has_input_norm=False,
    residual="none",
    statistics=False,
    bias=True,
):
    """Run the product into memory that holds NaN; expected values are float64's, from the values as rounded."""
    from assay.engine.kernels import triton_linear as triton

    num_rows, num_inputs, num_outputs = shape
    device = torch.device(DEVICE)
    tile = triton.Tile(**tile)
    # means beside 0, as sums have them
    x = (random(num_rows, num_inputs) + 0.5).to(dtype)
    linear = Linear(
        weight=random(num_outputs, num_inputs, scale=num_inputs**-0.5),
        bias=random(num_outputs) if bias else None,
    )
    norm = random_norm(num_inputs, bias=bias) if has_input_norm else None
    folded = fold(linear, norm, device, dtype)
    expected = layer_norm(x, norm) if norm else x.double()
    # the weight as it was rounded; only where float32 keeps it is it the norm's and the product's own
    weight = folded.weight_OI.double() / norm.weight.double() if norm else folded.weight_OI.double()
    expected = expected @ weight.T + (0.0 if linear.bias is None else linear.bias.double())
    match activation:
        case "relu":
            expected = F.relu(expected)
        case "gelu" | "gelu_tanh":
            expected = F.gelu(expected, approximate="none" if activation == "gelu" else "tanh")
    residual_norm = None
    out = torch.full((num_rows, num_outputs), NAN, device=DEVICE, dtype=dtype)
    added = None
    bias_O = folded.bias_O
    if residual != "none":
        added = (random(num_rows, num_outputs, scale=2.0) - 0.7).to(dtype)
        expected = expected + added.double()
    if residual == "normed":
        norm_of_added = random_norm(num_outputs)
        expected += layer_norm(added, norm_of_added) - added.double()
        residual_norm = triton.ResidualNorm(
            sums_PT2=sums_of(added, 2), weight_O=norm_of_added.weight, eps=EPS
        )
        bias_O = bias_O + norm_of_added.bias
        # in place, as layers do it
        out = added
    input_norm = norm and triton.InputNorm(
        sums_PT2=sums_of(x, 4), weight_sums_O=folded.weight_sums_O, eps=norm.eps
    )
    sums = triton.empty_sums(out, tile) if statistics else None
    done = triton.linear(
        x,
        folded.weight_OI,
        bias_O,
        activation,
        out=out,
        input_norm=input_norm,
        residual=added,
        residual_norm=residual_norm,
        out_sums=sums,
        tile=tile,
    )
    assert done is out
    return Product(out=out, expected=expected, sums=sums)


def check(product, dtype):
    """Values, and sums of the values as they were rounded."""
    assert relative(product.out, product.expected) < TOLERANCES[dtype]
    if product.sums is not None:
        expected = sums_of(product.out, product.sums.shape[0]).double()
        assert product.sums.shape == expected.shape
        # of each value of a sum float32 keeps 24 bits
        scale = sums_of(product.out.abs(), product.sums.shape[0]).double()
        assert float(((product.sums.double() - expected).abs() / scale.clamp_min(1e-3)).max()) < 1e-5


OPTIONS = [
    {"has_input_norm": True},
    {"has_input_norm": True, "bias": False},
    {"has_input_norm": True, "activation": "gelu"},
    {"has_input_norm": True, "activation": "relu", "statistics": True},
    {"residual": "plain"},
    {"residual": "plain", "statistics": True},
    {"residual": "normed", "statistics": True},
    {"residual": "normed", "bias": False},
    {"residual": "plain", "activation": "gelu_tanh", "statistics": True},
    {"statistics": True},
]
SMALL_TILE = {"rows": 16, "columns": 32, "depth": 32, "group": 2, "warps": 4, "stages": 2}


def named(options):
    """The id of a case."""
    return "-".join(f"{name}={value}" for name, value in options.items())


@needs_triton
@interpreted
@pytest.mark.parametrize("split", [0, 1, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_each_option(options, split):
    """Each option is float64's, with rows beyond a multiple of the tile and tiles that share programs."""
    check(run_product((37, 64, 96), torch.float32, SMALL_TILE | {"split": split}, **options), torch.float32)


@needs_triton
@interpreted
def test_one_row():
    """A single row is normed and gathered."""
    for options in ({"has_input_norm": True}, {"residual": "normed", "statistics": True}):
        check(run_product((1, 32, 32), torch.float32, SMALL_TILE, **options), torch.float32)


@needs_triton
@interpreted
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[6]], ids=named)
def test_half_precision(options):
    """float16 is rounded at the ends alone; the sums are of what was rounded."""
    check(run_product((21, 64, 64), torch.float16, SMALL_TILE | {"split": 1}, **options), torch.float16)


@needs_triton
@interpreted
def test_a_constant_row_is_its_bias():
    """Where all values are alike rounding may take the variance below 0: it counts as 0, nothing is NaN."""
    from assay.engine.kernels import triton_linear as triton

    x = torch.full((5, 64), 3.3)
    folded = fold(Linear(weight=random(32, 64), bias=random(32)), random_norm(64), CPU, torch.float32)
    sums = sums_of(x, 1)
    sums[:, :, 1] *= 1.0 - 1e-6
    out = torch.full((5, 32), NAN)
    norm = triton.InputNorm(sums_PT2=sums, weight_sums_O=folded.weight_sums_O, eps=EPS)
    tile = triton.Tile(**SMALL_TILE)
    triton.linear(x, folded.weight_OI, folded.bias_O, "none", out=out, input_norm=norm, tile=tile)
    # what is left of the mean, float32's last bits, is over sqrt(eps)
    torch.testing.assert_close(out, folded.bias_O.expand(5, -1), atol=3e-2, rtol=0.0)


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(129, 768, 2304), (5000, 768, 768), (1, 384, 384), (4097, 384, 1152)])
@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_each_option_compiled(options, shape, dtype):
    """The same in half precision, in the tiles that layers take."""
    from assay.engine.kernels import triton_linear as triton

    tile = dataclasses.asdict(triton.folded_tile(shape[2], has_residual="residual" in options))
    check(run_product(shape, dtype, tile, **options), dtype)


def test_the_mean_drops_out_of_rounded_weights():
    """The sums of a folded weight are those of the weight as rounded, not as it was."""
    folded = fold(Linear(weight=random(8, 256), bias=None), random_norm(256), CPU, torch.bfloat16)
    assert folded.weight_OI.dtype == torch.bfloat16
    assert folded.weight_sums_O.dtype == folded.bias_O.dtype == torch.float32
    torch.testing.assert_close(
        folded.weight_sums_O.double(), folded.weight_OI.double().sum(1), rtol=0, atol=1e-6
    )


# --- layers


def make_batch(lengths, filled=7):
    """A batch on the device with rows of no token behind."""
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    num_rows = int(bounds[-1]) + filled
    return DeviceBatch(
        input_ids_T=torch.zeros(num_rows, dtype=torch.int32, device=DEVICE),
        cu_seqlens=torch.from_numpy(bounds).to(DEVICE),
        blocks_B4=torch.from_numpy(plan_blocks(bounds)).to(DEVICE),
        max_seqlen=max(lengths),
        num_sequences=len(lengths),
    )


def make_weights(**changes):
    """A random BERT, biases and norms away from 0 and 1, and its plain weights with queries scaled."""
    from assay.engine.gpu import _with_scaled_queries

    shape = {
        "vocab_size": 50,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "num_labels": 3,
        "initializer_range": 0.1,
    }
    model = BertForSequenceClassification(BertConfig(**(shape | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model, _with_scaled_queries(extract_weights(model))


def folded_layers(weights, kernels, dtype=torch.float32):
    """All layers, each told of the norm before it."""
    previous = [None, *(layer.ffn_norm for layer in weights.layers)]
    return [
        FoldedPostNormLayer(
            layer, weights, kernels, previous_norm=norm, device=torch.device(DEVICE), dtype=dtype
        )
        for layer, norm in zip(weights.layers, previous, strict=False)
    ]


@needs_triton
@interpreted
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_whole_model(activation):
    """Three folded layers give the hidden states of transformers, token for token."""
    model, weights = make_weights(hidden_act=activation)
    lengths = [9, 1, 40, 17]
    batch = make_batch(lengths)
    expected = []
    embedded = torch.full((batch.num_rows, 128), NAN)
    bounds = batch.cu_seqlens.tolist()
    with torch.inference_mode():
        for k, length in enumerate(lengths):
            ids = torch.randint(0, 50, (1, length))
            states = model.bert(ids, output_hidden_states=True).hidden_states
            embedded[bounds[k] : bounds[k + 1]] = states[0][0]
            expected.append(states[-1][0])
        kernels = PlainKernels()
        hidden = Hidden(values_TH=embedded)
        for layer in folded_layers(weights, kernels):
            hidden = layer(hidden, batch, None)
            assert hidden.pending is not None
        out = normed(hidden, kernels)
    torch.testing.assert_close(out[: bounds[-1]], torch.cat(expected), atol=1e-4, rtol=1e-4)


@needs_triton
@interpreted
def test_first_tokens_after_folded_layers():
    """The last layer of first tokens norms what is pending before it."""
    _, weights = make_weights(num_hidden_layers=2)
    batch = make_batch([5, 12])
    kernels = PlainKernels()
    values = random(batch.num_rows, 128)
    first, last = weights.layers
    with torch.inference_mode():
        folded = folded_layers(weights, kernels)[0](Hidden(values_TH=values.clone()), batch, None)
        plain = PostNormLayer(first, weights, kernels)(Hidden(values_TH=values.clone()), batch, None)
        ends = FirstTokenLayer(last, weights, kernels, rows_at_once=None)
        out, expected = (ends(hidden, batch, None).values_TH for hidden in (folded, plain))
    assert out.shape == (2, 128)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_what_is_normed_stays_as_it_is():
    """Hidden states that lack no norm are handed on; those that lack one get it."""
    values, norm = random(4, 32), random_norm(32)
    assert normed(Hidden(values_TH=values), PlainKernels()) is values
    pending = PendingNorm(norm=norm, sums_PT2=sums_of(values, 1))
    out = normed(Hidden(values_TH=values.clone(), pending=pending), PlainKernels())
    assert relative(out, layer_norm(values, norm)) < TOLERANCES[torch.float32]


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("hidden_size", "inner", "heads"), [(768, 3072, 12), (384, 1536, 12)])
def test_layers_compiled(hidden_size, inner, heads, dtype):
    """In half precision three layers are as near to float32 as unfolded ones."""
    from assay.engine.gpu import moved
    from assay.engine.kernels.triton_kernels import TritonKernels

    _, weights = make_weights(
        hidden_size=hidden_size, intermediate_size=inner, num_attention_heads=heads, initializer_range=0.05
    )
    kernels, device = TritonKernels(), torch.device(DEVICE)
    lengths = [1 + (37 * k) % 300 for k in range(40)]
    batch = make_batch(lengths)
    num_tokens = sum(lengths)
    values = random(batch.num_rows, hidden_size)
    values[num_tokens:] = NAN
    half, full = moved(weights, device, dtype), moved(weights, device, torch.float32)

    def run(layers, kind):
        hidden = Hidden(values_TH=values.to(kind))
        for layer in layers:
            hidden = layer(hidden, batch, None)
        return normed(hidden, kernels)[:num_tokens].double()

    with torch.inference_mode():
        expected = run([PostNormLayer(layer, full, PlainKernels()) for layer in full.layers], torch.float32)
        plain = run([PostNormLayer(layer, half, kernels) for layer in half.layers], dtype)
        folded = run(folded_layers(weights, kernels, dtype), dtype)
        again = run(folded_layers(weights, kernels, dtype), dtype)
    assert relative(folded, plain) < 2 * TOLERANCES[dtype]
    assert relative(folded, expected) < 1.2 * relative(plain, expected) < math.inf
    assert torch.equal(folded, again)


# --- where layers fold


def test_where_layers_fold():
    """Half precision on a CUDA device, post-norm, plain activations, sizes that fill tiles."""
    _, weights = make_weights()
    assert can_fold(weights, CPU, torch.float32, interpreted=True)
    assert not can_fold(weights, CPU, torch.bfloat16)
    assert not can_fold(weights, torch.device("cuda"), torch.float32)
    for changes in ({"hidden_act": "silu"}, {"hidden_size": 96}, {"intermediate_size": 192}):
        assert not can_fold(make_weights(**changes)[1], CPU, torch.float32, interpreted=True)


def test_modernbert_does_not_fold():
    """Norms before attention and gates stay as they are."""
    config = ModernBertConfig(
        vocab_size=50,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )
    weights = extract_weights(ModernBert(config))
    assert not can_fold(weights, CPU, torch.float32, interpreted=True)


@pytest.mark.gpu
def test_where_layers_fold_on_a_device():
    """From capability 9 on, in half precision alone."""
    _, weights = make_weights()
    device = torch.device("cuda")
    has_copies = torch.cuda.get_device_capability(device) >= (9, 0)
    assert can_fold(weights, device, torch.bfloat16) == has_copies
    assert can_fold(weights, device, torch.float16) == has_copies
    assert not can_fold(weights, device, torch.float32)
