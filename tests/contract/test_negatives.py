"""`assay mine` gives the negatives of sentence-transformers' `mine_hard_negatives`, its exact branch."""

import warnings

import numpy as np
import pytest
from support.embedded import write_embed_run, write_pairs
from support.mining import mine_here

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
pytest.importorskip("datasets", reason="datasets is not installed")

DIMENSION = 16


class Lookup:
    """Stands for a model: gives texts the vectors that it was made with."""

    device = "cpu"

    def __init__(self, vectors):
        self._vectors = vectors

    def encode_document(self, texts, **_):
        return np.stack([self._vectors[text] for text in texts])

    encode_query = encode_document

    @staticmethod
    def similarity(one, other):
        from sentence_transformers.util import cos_sim

        return cos_sim(one, other)

    @staticmethod
    def similarity_pairwise(one, other):
        from sentence_transformers.util import pairwise_cos_sim

        return pairwise_cos_sim(one, other)


@pytest.fixture(scope="module")
def world():
    """30 anchors, 200 texts of the corpus, 20 of them twice, and pairs: up to four positives, one pair repeated."""
    random = np.random.default_rng(3)
    texts = [f"text {number}" for number in range(200)]
    anchors = [f"anchor {number}" for number in range(30)]
    vectors = {}
    for name in texts + anchors:
        vector = random.standard_normal(DIMENSION).astype(np.float32)
        vectors[name] = vector / np.linalg.norm(vector)
    pairs = []
    for number, anchor in enumerate(anchors):
        near = sorted(texts, key=lambda text: -float(vectors[text] @ vectors[anchor]))
        pairs += [(anchor, near[place]) for place in range(1, 2 + 2 * (number % 4), 2)]
    pairs.append(pairs[5])
    random.shuffle(pairs)
    return texts + texts[:20], anchors, vectors, pairs


def of_sentence_transformers(world, **options):
    """The triplets and both scores of each, by sentence-transformers."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    texts, _, vectors, pairs = world
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mine_hard_negatives(
            Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]}),
            Lookup(vectors),
            corpus=list(texts),
            use_faiss=False,
            output_scores=True,
            verbose=False,
            **options,
        )
    return {(row["anchor"], row["positive"], row["negative"]): row["scores"] for row in found}


OPTIONS = [
    {},
    {"num_negatives": 5},
    {"range_min": 4},
    {"range_min": 2, "range_max": 9, "num_negatives": 7},
    {"max_score": 0.45},
    {"min_score": 0.4, "num_negatives": 10},
    {"absolute_margin": 0.0},
    {"absolute_margin": 0.1, "num_negatives": 4},
    {"relative_margin": 0.05},
    {"relative_margin": 0.3, "max_score": 0.4, "min_score": 0.1, "range_min": 3, "range_max": 30},
    {"relative_margin": 0.5, "range_max": 5},
    {"range_max": 500},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_triplets(options, world, tmp_path):
    """The same triplets and scores, with several positives, repeated pairs and texts that occur twice."""
    texts, anchors, vectors, pairs = world
    corpus = write_embed_run(tmp_path / "corpus", texts, np.stack([vectors[text] for text in texts]))
    of_anchors = write_embed_run(tmp_path / "anchors", anchors, np.stack([vectors[name] for name in anchors]))
    table = mine_here(
        tmp_path,
        write_pairs(tmp_path / "pairs.parquet", pairs),
        (corpus.url,),
        anchors=(of_anchors.url,),
        unit_rows=11,
        **options,
    )
    found = {
        (row["anchor"], row["positive"], row["negative"]): [row["positive_score"], row["score"]]
        for row in table.to_pylist()
        if row["negative"] is not None
    }
    expected = of_sentence_transformers(world, **options)
    assert found.keys() == expected.keys()
    assert len(found) == table.num_rows - table.column("negative").null_count
    for triplet, scores in expected.items():
        assert found[triplet] == pytest.approx(scores, abs=1e-6)


def test_a_random_draw_is_of_the_same_candidates(world, tmp_path):
    """Drawn at random from a range no larger than the number asked, the negatives are the same."""
    options = {"range_min": 3, "range_max": 9, "num_negatives": 6, "sampling_strategy": "random"}
    texts, anchors, vectors, pairs = world
    corpus = write_embed_run(tmp_path / "corpus", texts, np.stack([vectors[text] for text in texts]))
    of_anchors = write_embed_run(tmp_path / "anchors", anchors, np.stack([vectors[name] for name in anchors]))
    sources = write_pairs(tmp_path / "pairs.jsonl", pairs)
    table = mine_here(tmp_path, sources, (corpus.url,), anchors=(of_anchors.url,), **options)
    found = {(row["anchor"], row["positive"], row["negative"]) for row in table.to_pylist()}
    repeated = sum(code == "repeated_pair" for code in table.column("error").to_pylist())
    assert repeated == 1
    assert {each for each in found if each[2] is not None} == of_sentence_transformers(
        world, **options
    ).keys()
