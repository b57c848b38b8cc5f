"""Each kernel, in Triton and in plain torch, against float64 on fresh random inputs.

Without a GPU Triton's interpreter runs them, on few and small float32 cases; its casts to fp8 are not
exact, so that values in fp8 are looked at on a GPU and in plain torch.
"""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from support.formulas import activated
from support.interpreter import DEVICE, WHY_NOT

from assay.engine.fp8 import fp8_linear, fp8_weights
from assay.engine.kernels.kernels import EmbeddingTables
from assay.engine.kernels.layout import BLOCK, DeviceBatch, plan_blocks
from assay.engine.kernels.plain import FP8_MAX, PlainKernels, quantize_rows
from assay.model.parts import Linear, Norm

needs_triton = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
KINDS = ["plain", pytest.param("triton", marks=needs_triton)]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Of the norm of the difference, as a share of the norm of what is expected."""
FP8_TOLERANCE = 0.04
ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu", "tanh")
FILLED = 7
"""Rows of no token behind each batch."""
NAN = float("nan")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Known random numbers; memory that kernels are given to write holds NaN."""
    torch.manual_seed(0)
    makers = {"empty": torch.empty, "empty_like": torch.empty_like}
    new_empty = torch.Tensor.new_empty

    def poisoned(made):
        return made.fill_(NAN) if made.is_floating_point() else made

    for name, maker in makers.items():
        monkeypatch.setattr(
            torch, name, lambda *given, maker=maker, **named: poisoned(maker(*given, **named))
        )
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda *given, **named: poisoned(new_empty(*given, **named))
    )


def on_all(small, large=(), dtypes=DTYPES):
    """Small cases in float32 anywhere; marked `gpu` the same, and large ones in each precision."""
    anywhere = [(case, torch.float32) for case in small]
    return [
        *(pytest.param(*case, id=_name(*case)) for case in anywhere),
        *(pytest.param(*case, id=f"gpu-{_name(*case)}", marks=pytest.mark.gpu) for case in anywhere),
        *(
            pytest.param(*case, id=f"gpu-{_name(*case)}", marks=pytest.mark.gpu)
            for case in itertools.product(large, dtypes)
        ),
    ]


def _name(case, dtype):
    """A short id: thousands of lengths by their number."""
    parts = case if isinstance(case, tuple) else (case,)
    words = [
        f"{len(part)} lengths" if isinstance(part, list) and len(part) > 9 else str(part) for part in parts
    ]
    return "-".join([*words, str(dtype).removeprefix("torch.")])


ANYWHERE = pytest.mark.parametrize("where", ["here", pytest.param("gpu", marks=pytest.mark.gpu)])
"""For a test of one small case."""


def make(kind):
    """The kernels of one kind."""
    if kind == "plain":
        return PlainKernels()
    from assay.engine.kernels.triton_kernels import TritonKernels

    return TritonKernels()


def random(*shape, dtype=torch.float32, scale=1.0):
    """Normal random numbers on the device."""
    return (torch.randn(*shape, device=DEVICE) * scale).to(dtype)


def random_norm(hidden, dtype, *, bias=True):
    """A layer norm whose weight and bias are neither 1 nor 0."""
    return Norm(
        weight=(1.0 + random(hidden, scale=0.3)).to(dtype),
        bias=random(hidden, dtype=dtype) if bias else None,
        eps=1e-5,
    )


def normed(x, norm):
    """Layer norm in float64."""
    bias = None if norm.bias is None else norm.bias.double()
    return F.layer_norm(x.double(), x.shape[-1:], norm.weight.double(), bias, norm.eps)


def make_batch(lengths, *, kind="plain", vocab_size=50, num_types=1, num_positions=None):
    """A batch of random ids on the device, with rows of no token behind.

    Triton's kernels get sequences and blocks of no token as well.
    """
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    num_rows = int(bounds[-1]) + FILLED
    spare = 3 if kind == "triton" else 0

    def integers(high):
        return torch.randint(0, high, (num_rows,), dtype=torch.int32, device=DEVICE)

    return DeviceBatch(
        input_ids_T=integers(vocab_size),
        cu_seqlens=torch.from_numpy(np.pad(bounds, (0, spare))).to(DEVICE),
        blocks_B4=torch.from_numpy(np.pad(plan_blocks(bounds), ((0, spare), (0, 0)))).to(DEVICE),
        max_seqlen=int(max(lengths)),
        num_sequences=len(lengths) + spare,
        token_types_T=integers(num_types) if num_types > 1 else None,
        positions_T=None if num_positions is None else integers(num_positions),
    )


def places(batch):
    """The position of each token in its sequence, int64 [tokens]."""
    return torch.cat([torch.arange(last - first) for first, last in pairs_of(batch)]).to(DEVICE)


def pairs_of(batch):
    """Where each sequence begins and ends, those of no token left out."""
    return [(first, last) for first, last in itertools.pairwise(batch.cu_seqlens.tolist()) if first < last]


def firsts_of(batch):
    """The rows of first tokens; of a sequence of no token any."""
    return batch.cu_seqlens[:-1].long().clamp_max(batch.num_rows - 1)


def relative(out, expected):
    """The norm of the difference as a share of the norm of what is expected; NaN where any value is."""
    assert out.shape == expected.shape
    return float((out.double() - expected).norm() / expected.norm())


def dequantized(quantized):
    """What fp8 rows stand for, in float64."""
    assert quantized.values.dtype == torch.float8_e4m3fn
    assert quantized.scales.dtype == torch.float32
    assert quantized.scales.shape == (quantized.values.shape[0], 1)
    return quantized.values.double() * quantized.scales.double()


def has_exact_fp8(kind):
    """Whether these kernels round to fp8 here as the format says."""
    return kind == "plain" or DEVICE == "cuda"


def check_rows_in_fp8(kind, quantized, expected, dtype):
    """fp8 rows stand for what is expected, each scaled to the end of the range."""
    largest = expected.abs().amax(dim=1, keepdim=True)
    torch.testing.assert_close(
        quantized.scales.double(), largest / FP8_MAX, rtol=3 * TOLERANCES[dtype], atol=1e-12
    )
    values = dequantized(quantized)
    if has_exact_fp8(kind):
        assert relative(values, expected) < FP8_TOLERANCE
    else:
        assert values.shape == expected.shape


# --- blocks


@pytest.mark.parametrize("lengths", [[1], [64], [65], [3, 200, 1, 64, 129], [2] * 500])
def test_blocks_cover_each_token_once(lengths):
    """Every token is in one block of its own sequence; blocks of longer sequences come first."""
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    blocks = plan_blocks(bounds)
    assert blocks.dtype == np.int32
    seen = np.zeros(bounds[-1], dtype=int)
    for sequence, start, first, length in blocks.tolist():
        assert (first, length) == (bounds[sequence], lengths[sequence])
        assert 0 <= start < length
        seen[first + start : first + min(start + BLOCK, length)] += 1
    assert (seen == 1).all()
    assert (np.diff(blocks[:, 3]) <= 0).all()


def test_no_sequences_have_no_blocks():
    """An empty batch gives an empty plan of the same shape."""
    assert plan_blocks(np.zeros(1, np.int32)).shape == (0, 4)


# --- rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("case", "dtype"),
    on_all(
        [(32, [1, 2, 65]), (24, [127, 1])],
        [(768, [128, 129, 512, 8192, 1]), (384, [3] * 10_000)],
    ),
)
@pytest.mark.parametrize("what", ["words", "places", "types", "numbered"])
def test_embeddings_are_summed_and_normed(kind, case, dtype, what):
    """Words, positions (counted or given) and types, summed and normed, row for row."""
    hidden, lengths = case
    num_places = max(lengths)
    batch = make_batch(
        lengths,
        kind=kind,
        num_types=3 if what == "types" else 1,
        num_positions=num_places if what == "numbered" else None,
    )
    tables = EmbeddingTables(
        words=random(50, hidden, dtype=dtype),
        positions=None if what == "words" else random(num_places, hidden, dtype=dtype),
        # a model with types, and mostly a batch of type 0 alone
        types=None if what == "words" else random(3, hidden, dtype=dtype),
        norm=random_norm(hidden, dtype, bias=what != "words"),
    )
    num_tokens = sum(lengths)
    expected = tables.words[batch.input_ids_T[:num_tokens]].double()
    if tables.positions is not None:
        given = batch.positions_T
        expected += tables.positions[places(batch) if given is None else given[:num_tokens]].double()
    if batch.token_types_T is not None:
        expected += tables.types[batch.token_types_T[:num_tokens]].double()
    out = make(kind).embed(batch, tables)
    assert out.shape == (num_tokens + FILLED, hidden)
    assert out.dtype == dtype
    assert relative(out[:num_tokens], normed(expected, tables.norm)) < TOLERANCES[dtype]


ROWS = on_all([(1, 32), (3, 24), (130, 128)], [(129, 768), (8192, 1024), (10_000, 384)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), ROWS)
@pytest.mark.parametrize(("added", "in_place"), [(False, False), (True, True)])
def test_norm(kind, case, dtype, added, in_place):
    """The norm of x + bias; x stays as it was unless it may be written over."""
    # a mean beside 0, as hidden states have it
    x = random(*case, dtype=dtype) + 0.5
    norm = random_norm(case[1], dtype, bias=added)
    bias = random(case[1], dtype=dtype) if added else None
    expected = normed(x.double() + (bias.double() if added else 0.0), norm)
    before = x.clone()
    out = make(kind).norm(x, norm, bias=bias, in_place=in_place)
    assert out.dtype == dtype
    assert relative(out, expected) < TOLERANCES[dtype]
    assert in_place or torch.equal(x, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), ROWS)
@pytest.mark.parametrize("has_residual", [False, True])
def test_add_norm_quantize(kind, case, dtype, has_residual):
    """The norm of the sum, and the same in fp8 with a scale a row."""
    x = random(*case, dtype=dtype)
    residual = random(*case, dtype=dtype) if has_residual else None
    norm = random_norm(case[1], dtype)
    expected = normed(x.double() + (residual.double() if has_residual else 0.0), norm)
    out, quantized = make(kind).add_norm_quantize(x, residual, norm)
    assert relative(out, expected) < TOLERANCES[dtype]
    check_rows_in_fp8(kind, quantized, expected, dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), ROWS)
@pytest.mark.parametrize("activation", [None, "gelu", "silu"])
def test_activate_quantize(kind, case, dtype, activation):
    """An activation, or none, in fp8 with a scale a row."""
    x = random(*case, dtype=dtype)
    quantized = make(kind).activate_quantize(x, activation)
    check_rows_in_fp8(kind, quantized, activated(x, activation), dtype)


@ANYWHERE
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_zeros_in_fp8_is_zeros(kind, where):
    """Nothing is divided by 0."""
    quantized = make(kind).activate_quantize(torch.zeros(3, 32, device=DEVICE), None)
    assert (dequantized(quantized) == 0.0).all()


INNER = on_all([(1, 64), (3, 100), (70, 48)], [(129, 3072), (8192, 1152)])


# a tanh by way of exp2 goes through infinity to 1
@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), INNER)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(kind, case, dtype, activation):
    """Each activation is that of its formula, far from 0 too."""
    x = random(*case, dtype=dtype, scale=2.0)
    x.view(-1)[:4] = torch.tensor([-30.0, 30.0, 0.0, -6.0])
    expected = activated(x, activation)
    assert relative(make(kind).activate(x, activation), expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), INNER)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
def test_gated_activations(kind, case, dtype, activation):
    """The activated first half times the second half."""
    num_rows, width = case
    x = random(num_rows, 2 * width, dtype=dtype)
    expected = activated(x[:, :width], activation) * x[:, width:].double()
    out = make(kind).activate_gated(x, activation)
    assert out.dtype == dtype
    assert relative(out, expected) < TOLERANCES[dtype]


@ANYWHERE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_stays_nan(kind, activation, where):
    """No activation, gate or norm turns a NaN into a number."""
    kernels = make(kind)
    x = random(2, 64)
    x[1, 5] = NAN
    assert kernels.activate(x.clone(), activation).isnan().sum() == 1
    assert kernels.activate_gated(x.clone(), activation).isnan().sum() == 1
    out = kernels.norm(x, random_norm(64, torch.float32))
    assert out.isnan().all(dim=1).tolist() == [False, True]
    assert out[0].isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_nan_in_fp8(kind):
    """A NaN in a row, or in an attention, is a NaN in fp8: the range's ends do not hide it."""
    kernels = make(kind)
    x = random(3, 256, dtype=torch.bfloat16)
    x[1, 5] = NAN
    assert kernels.activate_quantize(x, None).values.float().isnan()[1, 5]
    _, quantized = kernels.add_norm_quantize(x.clone(), None, random_norm(256, torch.bfloat16))
    assert dequantized(quantized).isnan().all(dim=1).tolist() == [False, True, False]
    weights = fp8_weights(Linear(weight=random(256, 256), bias=random(256)), torch.bfloat16)
    inner = kernels.linear_activate_quantize(quantized, weights, "gelu", 0.1)
    assert inner.float().isnan().all(dim=1).tolist() == [False, True, False]
    batch = make_batch([4, 4])
    qkv = random(8 + FILLED, 3 * 64, dtype=torch.bfloat16)
    qkv[1] = NAN
    out = kernels.attention(qkv, batch, num_heads=1, window=None, fp8_scale=0.1)[:8]
    assert out.float().isnan().all(dim=1).tolist() == [True] * 4 + [False] * 4


# --- attention

HEADS = 2


def random_queries(num_rows, num_heads, head_size, dtype):
    """Queries in the units that the kernels take: scaled by log2(e) / sqrt(D)."""
    return random(num_rows, num_heads * head_size, scale=math.log2(math.e) / math.sqrt(head_size)).to(dtype)


def random_qkv(batch, num_heads, head_size, dtype):
    """Queries, keys and values [T, 3H]; NaN in the rows of no token."""
    hidden = num_heads * head_size
    queries = random_queries(batch.num_rows, num_heads, head_size, dtype)
    qkv = torch.cat([queries, random(batch.num_rows, 2 * hidden, dtype=dtype)], dim=1)
    qkv[-FILLED:] = NAN
    return qkv


def attended(qkv, batch, num_heads, window):
    """Attention in float64, a sequence at a time, [tokens, H]."""
    out = []
    for first, last in pairs_of(batch):
        queries, keys, values = qkv[first:last].double().unflatten(1, (3, num_heads, -1)).permute(1, 2, 0, 3)
        scores = queries @ keys.mT * math.log(2.0)
        if window is not None:
            place = torch.arange(last - first, device=qkv.device)
            scores.masked_fill_((place[:, None] - place).abs() > window, -math.inf)
        out.append((scores.softmax(dim=-1) @ values).transpose(0, 1).flatten(1))
    return torch.cat(out)


SMALL_ATTENTION = [
    # lengths, head size, window
    ([1, 2, 65], 32, None),
    ([129, 1, 127], 32, None),
    ([128, 3], 64, None),
    ([70], 128, None),
    ([5, 66], 24, None),
    ([129, 1, 40], 32, 16),
    ([130], 24, 64),
]
LARGE_ATTENTION = [
    ([1, 2, 127, 128, 129, 511, 512, 513, 33], 64, None),
    ([512, 8, 300, 129], 128, None),
    ([512, 8, 300, 129], 24, None),
    ([1, 2, 63, 64, 65, 127, 128, 129, 511, 512, 33], 32, None),
    ([1] * 70_000, 32, None),
    ([8192], 64, None),
    ([8192, 1, 2000], 64, 64),
    ([8192, 1], 128, None),
    ([3] * 10_000, 64, None),
    ([1 + k % 9 for k in range(10_000)], 32, 4),
]
ATTENTION = on_all(SMALL_ATTENTION, LARGE_ATTENTION)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), ATTENTION)
def test_attention(kind, case, dtype):
    """Every token's attention is float64's, whatever lies before and behind its sequence."""
    lengths, head_size, window = case
    batch = make_batch(lengths, kind=kind)
    qkv = random_qkv(batch, HEADS, head_size, dtype)
    out = make(kind).attention(qkv, batch, num_heads=HEADS, window=window)
    assert out.dtype == dtype
    assert relative(out[: sum(lengths)], attended(qkv, batch, HEADS, window)) < TOLERANCES[dtype]


@needs_triton
@ANYWHERE
@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize(("lengths", "window"), [([32, 33, 1, 65], None), ([70, 3], 16)])
def test_attention_in_either_order(lengths, window, heads_first, where):
    """Whether the heads of a block follow each other or the blocks of a head changes no number."""
    from assay.engine.kernels.triton_attention import attention

    batch = make_batch(lengths, kind="triton")
    qkv = random_qkv(batch, 3, 16, torch.float32)
    out = attention(qkv, batch, num_heads=3, window=window, tile=(32, 4, 2, heads_first))
    assert relative(out[: sum(lengths)], attended(qkv, batch, 3, window)) < TOLERANCES[torch.float32]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), ATTENTION)
def test_attention_of_first_tokens(kind, case, dtype):
    """First tokens alone get what they get among all."""
    lengths, head_size, window = case
    batch = make_batch(lengths, kind=kind)
    qkv = random_qkv(batch, HEADS, head_size, dtype)
    hidden = HEADS * head_size
    firsts = firsts_of(batch)
    out = make(kind).first_attention(
        qkv[firsts, :hidden].contiguous(),
        qkv[:, hidden:].contiguous(),
        batch,
        num_heads=HEADS,
        window=window,
    )
    num = len(lengths)
    assert relative(out[:num], attended(qkv, batch, HEADS, window)[firsts[:num]]) < TOLERANCES[dtype]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("case", "dtype"),
    on_all(
        [([1, 2, 65], 2, 32), ([33, 129], 3, 24), ([5], 16, 64)],
        [
            ([1, 2, 127, 128, 129, 512, 33], 12, 768),
            ([8192, 1], 16, 1024),
            ([3] * 10_000, 12, 384),
            ([300, 4], 4, 256),
        ],
    ),
)
def test_first_mixture(kind, case, dtype):
    """Each head's mean of the hidden states, weighted by the attention of the first token's query."""
    lengths, num_heads, hidden = case
    batch = make_batch(lengths, kind=kind)
    states = random(batch.num_rows, hidden, dtype=dtype)
    states[-FILLED:] = NAN
    queries = random(batch.num_sequences, num_heads * hidden, dtype=dtype, scale=2.0 * hidden**-0.5)
    expected = []
    for query, (first, last) in zip(queries, pairs_of(batch), strict=False):
        seen = states[first:last].double()
        weights = (query.double().view(num_heads, hidden) @ seen.T * math.log(2.0)).softmax(dim=1)
        expected.append((weights @ seen).flatten())
    out = make(kind).first_mixture(queries, states, batch, num_heads=num_heads)
    assert out.dtype == dtype
    assert relative(out[: len(lengths)], torch.stack(expected)) < TOLERANCES[dtype]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("case", "dtype"),
    on_all(
        [([1, 2, 65], 32), ([33, 129], 200)],
        [([8192, 1, 127, 512], 768), ([3] * 10_000, 384), ([40], 1024)],
    ),
)
def test_means(kind, case, dtype):
    """The mean of each sequence's rows, in float32; not of its neighbours'."""
    lengths, hidden = case
    batch = make_batch(lengths, kind=kind)
    states = random(batch.num_rows, hidden, dtype=dtype) + 0.3
    states[-FILLED:] = NAN
    expected = torch.stack([states[first:last].double().mean(dim=0) for first, last in pairs_of(batch)])
    out = make(kind).mean(states, batch)
    assert out.dtype == torch.float32
    assert relative(out[: len(lengths)], expected) < TOLERANCES[torch.float32]


# the interpreter's numpy warns of the means of no rows
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@ANYWHERE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [None, 4])
def test_a_nan_stays_in_its_sequence(kind, window, where):
    """What overflows in one document leaves its neighbours alone, on either side."""
    # the NaN lies behind the second, which is far shorter than the first
    lengths = [40, 3, 2, 9]
    batch = make_batch(lengths, kind=kind)
    qkv = random_qkv(batch, HEADS, 32, torch.float32)
    qkv[batch.cu_seqlens[2] : batch.cu_seqlens[3]] = NAN
    kernels = make(kind)
    out = kernels.attention(qkv, batch, num_heads=HEADS, window=window)
    finite = out[: sum(lengths)].isfinite().all(dim=1)
    assert [part.all().item() for part in finite.split(lengths)] == [True, True, False, True]
    firsts = kernels.first_attention(
        qkv[firsts_of(batch), :64].contiguous(),
        qkv[:, 64:].contiguous(),
        batch,
        num_heads=HEADS,
        window=window,
    )
    assert firsts[:4].isfinite().all(dim=1).tolist() == [True, True, False, True]
    means = kernels.mean(qkv, batch)
    assert means[:4].isfinite().all(dim=1).tolist() == [True, True, False, True]
    queries = qkv[firsts_of(batch), :128].contiguous()
    mixed = kernels.first_mixture(queries, qkv[:, 64:128].contiguous(), batch, num_heads=2)
    assert mixed[:4].isfinite().all(dim=1).tolist() == [True, True, False, True]


@ANYWHERE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, -10.0])
def test_large_scores_do_not_overflow(kind, scale, where):
    """Scores of thousands leave a softmax of zeros and ones, not NaN."""
    batch = make_batch([70], kind=kind)
    qkv = random_qkv(batch, HEADS, 32, torch.float32)
    qkv[:, :64] *= scale * 1000.0
    out = make(kind).attention(qkv, batch, num_heads=HEADS, window=None)
    assert relative(out[:70], attended(qkv, batch, HEADS, None)) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("case", "dtype"), on_all([([1, 70], 32, None)], [([1, 2, 129, 512, 300], 64, None), ([600], 128, 64)])
)
def test_attention_in_fp8(kind, case, dtype):
    """The attention over the scale, in fp8; what is beyond the range becomes its end."""
    lengths, head_size, window = case
    batch = make_batch(lengths, kind=kind)
    qkv = random_qkv(batch, HEADS, head_size, dtype)
    expected = attended(qkv, batch, HEADS, window)
    kernels = make(kind)
    num_tokens = sum(lengths)
    # one that leaves room, one that does not
    for share in (0.5, 2.0):
        scale = float(expected.abs().max()) / FP8_MAX / share
        out = kernels.attention(qkv, batch, num_heads=HEADS, window=window, fp8_scale=scale)
        assert out.dtype == torch.float8_e4m3fn
        assert out.shape == (batch.num_rows, HEADS * head_size)
        if has_exact_fp8(kind):
            values = out[:num_tokens].double() * scale
            ends = scale * FP8_MAX
            assert relative(values, expected.clamp(-ends, ends)) < FP8_TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("case", "dtype"),
    on_all([([1, 2, 65], 32), ([66], 24)], [([8192, 1, 129], 64), ([3] * 10_000, 32), ([512, 127], 128)]),
)
@pytest.mark.parametrize("num_turned", [1, 2])
def test_rotary_positions(kind, case, dtype, num_turned):
    """The first heads of each row are turned by the token's position, the rest stays."""
    lengths, head_size = case
    batch = make_batch(lengths, kind=kind)
    num_tokens = sum(lengths)
    angles = torch.arange(max(lengths) + 3)[:, None] * torch.rand(head_size // 2)
    cos_sin = torch.stack([angles.cos(), angles.sin()]).to(DEVICE)
    x = random(batch.num_rows, 3 * head_size, dtype=dtype)
    expected = x[:num_tokens].double().unflatten(1, (3, 2, -1))
    cos, sin = cos_sin[:, places(batch), None].double()
    left, right = expected[:, :num_turned].clone().unbind(2)
    expected[:, :num_turned] = torch.stack([left * cos - right * sin, right * cos + left * sin], dim=2)
    make(kind).rotate(x, batch, cos_sin, num_turned)
    assert relative(x[:num_tokens], expected.flatten(1)) < TOLERANCES[dtype]


# --- products


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("case", "dtype"),
    on_all(
        [(1, 32, 48), (37, 24, 64)], [(129, 768, 3072), (8193, 384, 1536), (1000, 256, 1040), (1, 1024, 4096)]
    ),
)
@pytest.mark.parametrize(
    ("activation", "has_bias"),
    [("gelu", True), ("gelu_tanh", True), ("relu", True), ("silu", True), ("gelu", False)],
)
def test_linear_activate(kind, case, dtype, activation, has_bias):
    """Product, bias where there is one, and activation, by whichever way suits the sizes."""
    num_rows, num_inputs, num_outputs = case
    x = random(num_rows, num_inputs, dtype=dtype)
    linear = Linear(
        weight=random(num_outputs, num_inputs, dtype=dtype, scale=num_inputs**-0.5),
        bias=random(num_outputs, dtype=dtype) if has_bias else None,
    )
    bias = linear.bias.double() if has_bias else 0.0
    expected = activated(x.double() @ linear.weight.double().T + bias, activation)
    out = make(kind).linear_activate(x, linear, activation)
    assert out.dtype == dtype
    assert relative(out, expected) < TOLERANCES[dtype]


SMALL_TILE = {"rows": 16, "columns": 32, "depth": 32, "group": 2, "warps": 4, "stages": 2}


def run_linear(x, linear, activation, dtype, tile, **named):
    """The Triton product into memory that holds NaN."""
    from assay.engine.kernels import triton_linear

    out = torch.full((x.shape[0], linear.weight.shape[0]), NAN, device=DEVICE).to(dtype)
    done = triton_linear.linear(
        x, linear.weight, linear.bias, activation, out=out, tile=triton_linear.Tile(**tile), **named
    )
    assert done is out
    return out


@needs_triton
@pytest.mark.skipif(DEVICE == "cuda", reason="compiled, products of float32 are not the kernel's use")
@pytest.mark.parametrize("split", [0, 1, 2])
@pytest.mark.parametrize(
    ("num_rows", "num_inputs", "num_outputs", "activation"),
    [(1, 32, 32, "gelu"), (37, 64, 96, "gelu_tanh"), (50, 48, 64, "relu"), (16, 32, 64, "silu")],
)
def test_linear_of_any_number_of_rows(num_rows, num_inputs, num_outputs, activation, split):
    """Product, bias and activation; rows and inputs that do not fill a tile, and tiles that share programs."""
    x = random(num_rows, num_inputs)
    linear = Linear(weight=random(num_outputs, num_inputs, scale=num_inputs**-0.5), bias=random(num_outputs))
    expected = activated(x.double() @ linear.weight.double().T + linear.bias.double(), activation)
    out = run_linear(x, linear, activation, torch.float32, SMALL_TILE | {"split": split})
    assert relative(out, expected) < TOLERANCES[torch.float32]


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("split", [0, 1, 2])
@pytest.mark.parametrize(
    ("num_rows", "num_inputs", "num_outputs"), [(1, 256, 256), (129, 768, 3072), (1000, 384, 1536)]
)
def test_linear_compiled(dtype, split, num_rows, num_inputs, num_outputs):
    """In half precision, rows that do not fill a tile."""
    x = random(num_rows, num_inputs, dtype=dtype)
    linear = Linear(
        weight=random(num_outputs, num_inputs, dtype=dtype, scale=num_inputs**-0.5),
        bias=random(num_outputs, dtype=dtype),
    )
    expected = activated(x.double() @ linear.weight.double().T + linear.bias.double(), "gelu")
    out = run_linear(x, linear, "gelu", dtype, {"depth": 64, "split": split})
    assert relative(out, expected) < TOLERANCES[dtype]


def quantized_product(num_rows, num_inputs, num_outputs, dtype):
    """fp8 rows, fp8 weights, and their product with bias in float64."""
    x = quantize_rows(random(num_rows, num_inputs, dtype=dtype))
    linear = Linear(weight=random(num_outputs, num_inputs, scale=num_inputs**-0.5), bias=random(num_outputs))
    weights = fp8_weights(linear, dtype)
    weight = weights.weight_OI.double() * weights.scales_O.double()[:, None]
    return x, weights, dequantized(x) @ weight.T + weights.bias_O.double()


PRODUCTS = on_all(
    [(3, 32, 256), (130, 64, 256)],
    [(1, 256, 1024), (129, 768, 3072), (8193, 384, 1536)],
    dtypes=[torch.bfloat16],
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("case", "dtype"), PRODUCTS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_linear_activate_quantize(kind, case, dtype, activation):
    """Product, bias, activation in fp8 over one scale; what is beyond the range becomes its end."""
    if kind == "triton" and DEVICE == "cpu" and case[0] > 3:
        pytest.skip("one small case is enough for the interpreter")
    x, weights, product = quantized_product(*case, dtype)
    expected = activated(product, activation)
    for share in (0.5, 2.0):
        scale = float(expected.abs().max()) / FP8_MAX / share
        out = make(kind).linear_activate_quantize(x, weights, activation, scale)
        assert out.dtype == torch.float8_e4m3fn
        assert out.shape == expected.shape
        if has_exact_fp8(kind):
            ends = scale * FP8_MAX
            assert relative(out.double() * scale, expected.clamp(-ends, ends)) < FP8_TOLERANCE


@pytest.mark.parametrize(("case", "dtype"), PRODUCTS)
def test_fp8_linear(case, dtype):
    """The library's fp8 product, scales and bias in it."""
    if DEVICE == "cuda":
        # what the library writes
        dtype = torch.bfloat16
    x, weights, expected = quantized_product(*case, dtype)
    out = fp8_linear(x, weights)
    assert out.dtype == dtype
    # sums of fp8 products keep 14 bits on the device
    assert relative(out, expected) < max(TOLERANCES[dtype], 2e-3 if DEVICE == "cuda" else 0.0)


@needs_triton
@pytest.mark.gpu
def test_compiled_ahead_of_the_first_run():
    """Within, nothing is written; after it the kernel is there, and is what it would have been."""
    from assay.engine.kernels.triton_kernels import TritonKernels

    x, norm = (
        torch.randn(50, 40, device=DEVICE),
        Norm(weight=torch.ones(40, device=DEVICE), bias=None, eps=1e-5),
    )
    kept = x.clone()
    kernels = TritonKernels()
    with kernels.compiled_ahead(torch.device(DEVICE, 0)):
        kernels.norm(x, norm, in_place=True)
    torch.testing.assert_close(x, kept, atol=0, rtol=0)
    torch.testing.assert_close(
        kernels.norm(x, norm, in_place=True), F.layer_norm(kept, (40,), norm.weight), atol=1e-5, rtol=1e-5
    )


@needs_triton
def test_within_compiled_ahead_a_launch_is_a_compilation(monkeypatch):
    """Of the thread alone that asked for it; all that were compiled are loaded at the end, each once."""
    from assay.engine.kernels import ahead

    class Kernel:
        def __init__(self):
            self.calls = []

        def __getitem__(self, grid):
            return lambda *given: self.calls.append(("run", grid, *given))

        def warmup(self, *given, grid):
            self.calls.append(("compiled", grid, *given))
            return self

    loaded = []
    monkeypatch.setattr(ahead, "_load", lambda kernel, device: loaded.append((kernel, device)))
    kernel, device = Kernel(), torch.device("cuda", 1)
    with ahead.compiled_ahead(device):
        ahead.launch(kernel, (3,))(1)
        ahead.launch(kernel, (5,))(1)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: ahead.launch(kernel, (3,))(2)).result()
        assert not loaded
    assert loaded == [(kernel, device)]
    ahead.launch(kernel, (3,))(4)
    assert kernel.calls == [("compiled", (3,), 1), ("compiled", (5,), 1), ("run", (3,), 2), ("run", (3,), 4)]
