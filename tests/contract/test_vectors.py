"""Vectors of every engine equal transformers' and sentence-transformers', served or not, whatever their company."""

import asyncio
import base64
import itertools

import numpy as np
import pytest
import torch
from support.configs import PACKED_CONFIGS, VOCABULARY
from support.encoders import embed_here, make_encoder_folder
from support.interpreter import DEVICE, WHY_NOT
from support.scoring import MINILM, make_texts, read_parts, write_parquet
from support.serving import client_of, open_service
from transformers import AutoModel

from assay.engine.cpu import CpuPackedEngine
from assay.engine.gpu import GpuPackedEngine
from assay.engine.padded import PaddedEngine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.model.families import extract_weights
from assay.model.heads import AttentionScores, EmbeddingHead, Projection
from assay.model.parts import Linear

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = (5, 1, 33, 70, 2, 64, 65, 33)
FAMILIES = ("bert", "roberta", "distilbert", "electra", "modernbert")
POOLINGS = ("mean", "first", "attention")
HIDDEN = 32
PRECISIONS = {torch.float32: 0.9999, torch.float16: 0.999, torch.bfloat16: 0.95}
"""Least cosine to transformers in fp32 of random models, whose weights are far from zero, on a GPU."""


@pytest.fixture(scope="module")
def models():
    """A tiny random encoder of each family."""
    torch.manual_seed(0)
    return {name: AutoModel.from_config(PACKED_CONFIGS[name]).eval() for name in FAMILIES}


def make_head(pooling, *, dimension=None, normalized=True):
    """A head with random weights where it has some."""
    generator = torch.Generator().manual_seed(1)

    def linear(outputs, inputs):
        weight, bias = (
            torch.randn(outputs, inputs, generator=generator),
            torch.randn(outputs, generator=generator),
        )
        return Linear(weight=weight, bias=bias)

    attention = (
        AttentionScores(dense=linear(8, HIDDEN), score=linear(1, 8)) if pooling == "attention" else None
    )
    projections = (
        () if dimension is None else (Projection(linear=linear(dimension, HIDDEN), activation="tanh"),)
    )
    return EmbeddingHead(
        pooling=pooling,
        hidden_size=HIDDEN,
        attention=attention,
        projections=projections,
        normalized=normalized,
    )


def make_sequences(lengths=LENGTHS):
    """Made-up documents of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat_ids = np.random.default_rng(0).integers(5, VOCABULARY, offsets[-1]).astype(np.int32)
    return Sequences(flat_ids=flat_ids, offsets=offsets)


def by_transformers(model, head, sequences):
    """The head's vectors of transformers' hidden states, a document at a time."""
    found = []
    for start, stop in itertools.pairwise(sequences.offsets.tolist()):
        ids = torch.from_numpy(sequences.flat_ids[None, start:stop]).long()
        with torch.inference_mode():
            hidden_TH = model(input_ids=ids).last_hidden_state[0]
            if head.pooling == "attention":
                inner = torch.tanh(hidden_TH @ head.attention.dense.weight.T + head.attention.dense.bias)
                scores_T1 = inner @ head.attention.score.weight.T + head.attention.score.bias
                pooled_H = (scores_T1.softmax(dim=0) * hidden_TH).sum(dim=0)
            else:
                pooled_H = hidden_TH[0] if head.pooling == "first" else hidden_TH.mean(dim=0)
            vector = pooled_H
            for projection in head.projections:
                vector = torch.tanh(projection.linear.weight @ vector + projection.linear.bias)
            found.append((vector / vector.norm() if head.normalized else vector).numpy())
    return np.stack(found)


def make_engine(kind, model, head):
    """An engine of vectors."""
    if kind == "padded":
        return PaddedEngine(model, head=head)
    weights = extract_weights(model, head)
    if kind == "cpu":
        return CpuPackedEngine(weights)
    device = torch.device(DEVICE if kind == "triton" else "cpu")
    return GpuPackedEngine(
        weights, device=device, dtype=torch.float32, kernels="plain" if kind == "gpu-plain" else "triton"
    )


@pytest.mark.parametrize("kind", ["cpu", "gpu-plain", "padded"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_gives_the_heads_vectors(models, family, pooling, kind):
    """All at once and in batches of few, in the order given."""
    sequences, head = make_sequences(), make_head(pooling)
    engine = make_engine(kind, models[family], head)
    assert engine.output_shape == (HIDDEN,)
    expected = by_transformers(models[family], head, sequences)
    for budget in (None, 70):
        vectors, _ = run_sequences(engine, sequences, max_batch_tokens=budget)
        np.testing.assert_allclose(vectors, expected, atol=2e-5, err_msg=engine.description())


@pytest.mark.parametrize("kind", ["cpu", "gpu-plain", "padded"])
def test_projections_and_raw_lengths(models, kind):
    """A projection changes the dimension; without normalising, vectors keep their lengths."""
    sequences, head = make_sequences(), make_head("mean", dimension=7, normalized=False)
    engine = make_engine(kind, models["bert"], head)
    assert engine.output_shape == (7,)
    vectors, _ = run_sequences(engine, sequences)
    np.testing.assert_allclose(vectors, by_transformers(models["bert"], head, sequences), atol=2e-5)


# the interpreter's numpy warns of what rows of no token hold
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
@pytest.mark.parametrize("where", ["here", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_triton_kernels_pool_as_the_plain_ones(models, pooling, where):
    """Through the interpreter or compiled, batches filled up with sequences and rows of no token."""
    sequences, head = make_sequences((1, 2, 65, 9)), make_head(pooling)
    engine = make_engine("triton", models["bert"], head)
    assert "Triton" in engine.description()
    expected = by_transformers(models["bert"], head, sequences)
    vectors, _ = run_sequences(engine, sequences)
    np.testing.assert_allclose(vectors, expected, atol=5e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_on_a_gpu_vectors_are_as_close_as_their_precision_allows(models, family, pooling, dtype):
    """Shapes met for the first time, recorded as a graph and replayed: fp32 transformers on the CPU is the measure."""
    head = make_head(pooling)
    weights = extract_weights(models[family], head)
    engine = GpuPackedEngine(weights, device=torch.device("cuda"), dtype=dtype)
    for seed_lengths in (LENGTHS, tuple(range(1, 60))):
        sequences = make_sequences(seed_lengths)
        expected = by_transformers(models[family], head, sequences)
        for _ in range(3):
            vectors, _ = run_sequences(engine, sequences, max_batch_tokens=700)
            cosines = (vectors * expected).sum(axis=1)
            assert cosines.min() > PRECISIONS[dtype]
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.99999), ("fp16", 0.9999), ("bf16", 0.995)])
def test_on_a_gpu_a_real_encoder_passes_its_gate(tmp_path, precision, least):
    """MiniLM from texts to parts on the device, with the gate's cosine to transformers in fp32."""
    from support.encoders import plan_here, settings_of

    from assay.embed.worker import open_embed_work
    from assay.runs.figures import read_figures
    from assay.runs.pipeline import run_unit

    source = write_parquet(tmp_path / "texts.parquet", make_texts(400, longest=200))
    run = plan_here(settings_of(source, MINILM, tmp_path / "run", precision=precision, parity_documents=64))
    work = open_embed_work(run, device="cuda", num_threads=None)
    assert "packed bert on cuda" in work.load()
    assert read_figures(run)[0]["least_cosine"] > least
    for unit in run.manifest.units():
        run_unit(run, work, unit)
    assert read_parts(run)["embedding"].null_count == 0


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_run_equals_sentence_transformers(tmp_path, pooling, normalize):
    """`encode` of the same folder, texts over the limit and empty ones included."""
    peers = pytest.importorskip("sentence_transformers", reason="the bench extra is not installed")
    folder = make_encoder_folder(tmp_path / "encoder", pooling=pooling, normalize=normalize, dense=12)
    texts = make_texts(12, longest=80)
    run = embed_here(write_parquet(tmp_path / "texts.parquet", texts), folder, tmp_path / "run")
    assert any(read_parts(run)["truncated"].to_pylist())
    peer = peers.SentenceTransformer(str(folder), device="cpu")
    expected = peer.encode(texts, show_progress_bar=False)
    found = np.array(read_parts(run)["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.slow
def test_minilm_equals_sentence_transformers(tmp_path):
    """The real model, normalised as its own files say."""
    peers = pytest.importorskip("sentence_transformers", reason="the bench extra is not installed")
    texts = make_texts(12, longest=300)
    run = embed_here(write_parquet(tmp_path / "texts.parquet", texts), MINILM, tmp_path / "run")
    peer = peers.SentenceTransformer(str(MINILM), device="cpu")
    expected = peer.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    found = np.array(read_parts(run)["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def served_vectors(folder, requests, *, deterministic=False, **settings):
    """The vectors that `assay serve` answers to (path, body) requests, all at once, with the model's own engine."""

    async def run():
        service, (function,) = open_service(folder, budget=256, **settings)
        model = service.deployment.model
        function.engine = model.load_engine(
            device="cpu", precision="auto", num_threads=1, packed=True, deterministic=deterministic
        )
        async with client_of(service) as client:
            sent = [client.post(path, json=body) for path, body in requests]
            return [answer.json() for answer in await asyncio.gather(*sent)]

    return [
        np.array([_vector(each["embedding"]) for each in answer["data"]])
        if isinstance(answer, dict)
        else np.array(answer, np.float32)
        for answer in asyncio.run(run())
    ]


def _vector(embedding):
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), "<f4")
    return np.array(embedding, np.float32)


@pytest.mark.parametrize(
    ("pooling", "normalize", "on_long"),
    [
        ("mean", True, "truncate"),
        ("cls", False, "truncate"),
        ("attention", True, "window-mean"),
        ("mean", False, "window-mean"),
    ],
)
def test_served_vectors_are_those_of_a_run(tmp_path, pooling, normalize, on_long):
    """In every shape, alone and in company, projections and long texts included; to the bit if deterministic."""
    folder = make_encoder_folder(tmp_path / "encoder", pooling=pooling, normalize=normalize, dense=12)
    texts = [text for text in make_texts(12, longest=80) if text]
    source = write_parquet(tmp_path / "texts.parquet", texts)
    policy = {"on_long": on_long, "stride": 5 if on_long == "window-mean" else 0}
    for deterministic in (False, True):
        run = embed_here(
            source, folder, tmp_path / f"run {deterministic}", deterministic=deterministic, **policy
        )
        expected = np.array(read_parts(run)["embedding"].to_pylist(), np.float32)
        assert any(read_parts(run)["truncated"].to_pylist()) is (on_long == "truncate")
        listed, plain, coded, *alone = served_vectors(
            folder,
            [
                ("/embed", {"inputs": texts}),
                ("/v1/embeddings", {"input": texts}),
                ("/v1/embeddings", {"input": texts, "encoding_format": "base64"}),
                *(("/embed", {"inputs": text}) for text in texts),
            ],
            deterministic=deterministic,
            **policy,
        )
        for found in (listed, plain, coded, np.concatenate(alone)):
            assert found.dtype == np.float32
            if deterministic and on_long == "truncate":
                np.testing.assert_array_equal(found, expected)
            else:
                np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_request_may_ask_for_other_lengths(tmp_path):
    """With `normalize` a model's raw vectors come at length 1, or a normalising model's raw: those of such a run."""
    folder = make_encoder_folder(tmp_path / "encoder")
    texts = make_texts(8, longest=40)[:6]
    source = write_parquet(tmp_path / "texts.parquet", texts)
    asked = [("/embed", {"inputs": texts, "normalize": said}) for said in (True, False)]
    for found, flag in zip(served_vectors(folder, asked, deterministic=True), ("yes", "no"), strict=True):
        run = embed_here(source, folder, tmp_path / flag, normalize=flag, deterministic=True)
        np.testing.assert_array_equal(found, np.array(read_parts(run)["embedding"].to_pylist(), np.float32))
