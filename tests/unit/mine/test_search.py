"""faiss finds what the exact search finds, and groups and a guard have their say."""

import numpy as np
import pytest
import torch
from support.embedded import write_embed_run, write_pairs
from support.mining import mine_here, plan_here

from assay import extras
from assay.errors import UsageError
from assay.mine.search import FaissLook, ResidentCorpus, Searcher
from assay.mine.store import VectorFile

CPU = torch.device("cpu")


def clusters(num_rows, dimension=16, seed=0):
    """Vectors of length one round a few centres."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((20, dimension))
    vectors = centres[np.arange(num_rows) % 20] + 0.5 * random.standard_normal((num_rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_faiss_gives_the_same_negatives_on_a_small_corpus(tmp_path):
    """Below the size from which lists are searched it is exact too."""
    pytest.importorskip("faiss", reason="faiss is not installed")
    texts = [f"text {number}" for number in range(120)]
    books = [number % 7 for number in range(120)]
    corpus = write_embed_run(tmp_path / "corpus", texts, clusters(120), book=books)
    pairs = write_pairs(tmp_path / "pairs.parquet", [(f"text {n}", f"text {n + 20}") for n in range(30)])
    rules = {"exclude_same": "book", "relative_margin": 0.02}
    exact = mine_here(tmp_path, pairs, (corpus.url,), name="exact", **rules)
    found = mine_here(tmp_path, pairs, (corpus.url,), name="faiss", index="faiss", **rules)
    assert found.equals(exact)


def test_lists_of_faiss_miss_little(monkeypatch):
    """Of the ten nearest of clustered vectors nine in ten are found, with their exact scores."""
    pytest.importorskip("faiss", reason="faiss is not installed")
    monkeypatch.setattr("assay.mine.search.IVF_FROM", 1_000)
    vectors = clusters(4_000)
    file = VectorFile(16, None)
    file.append(vectors)
    corpus = ResidentCorpus(file, CPU)
    look = FaissLook(file, None, num_threads=1)
    noise = np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)
    anchors = vectors[:50] + 0.05 * noise
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    found = Searcher(corpus, look, CPU, anchors_at_once=64).nearest(anchors, None, 10)
    nearest = np.argsort(-(anchors @ vectors.T), axis=1)[:, :10]
    shared = [len(set(one) & set(other)) for one, other in zip(found.rows_BK, nearest, strict=True)]
    assert np.mean(shared) >= 9
    np.testing.assert_allclose(
        found.scores_BK[:, 0], (anchors * vectors[found.rows_BK[:, 0]]).sum(axis=1), atol=1e-6
    )


def test_without_faiss_the_extra_is_named(tmp_path, monkeypatch):
    """One line before any work."""
    monkeypatch.setattr(extras, "has_package", lambda _: False)
    corpus = write_embed_run(tmp_path / "corpus", ["a", "b"], clusters(2))
    pairs = write_pairs(tmp_path / "pairs.parquet", [("a", "b")])
    with pytest.raises(UsageError, match=r"--index faiss needs the package faiss of the extra mine"):
        plan_here(tmp_path, pairs, (corpus.url,), index="faiss")
