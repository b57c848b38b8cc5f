"""Documents of many chunks: cut, encoded once, compared by their chunks."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from support.siamese import make_siamese_folder

from assay.books.normal_forms import normalise_typography
from assay.errors import InputError, UsageError
from assay.siamese.documents import (
    DocumentCutter,
    compare_documents,
    compare_passages,
    encode_documents,
)
from assay.siamese.evidence import Combination, PairEvidence
from assay.siamese.evidence_files import WeighedEvidence, write_evidence
from assay.siamese.pairs import load_siamese
from assay.siamese.scoring import EncodedTexts, margins
from assay.siamese.settings import DocumentRules

SEA = (
    "  " + " ".join(f"“The whale number {k} swam on,” said Ahab\u2014and he wept." for k in range(12)) + "\n"
)
LAND = " ".join(f"Emma walked to house {k}, and the rain fell on her." for k in range(9))
SHORT = "The cat sat."


@pytest.fixture(scope="module", autouse=True)
def _threads():
    """Engines set torch's thread count for the whole process; it is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["plain", "evidence"])
def model(request, tmp_path_factory):
    """A small model, without and with evidence of words beside its network."""
    folder = make_siamese_folder(tmp_path_factory.mktemp("documents") / "model")
    if request.param == "evidence":
        texts = [SEA[2:200], SEA[200:400], LAND[:200], LAND[200:400]]
        pairs = np.array([[0, 1], [2, 3], [0, 2], [1, 3]])
        evidence = PairEvidence.fit(
            texts, *pairs.T, np.array([True, True, False, False]), books=["s", "s", "l", "l"], language="en"
        )
        combination = Combination(network=0.5, evidence=0.25, bias=0.125)
        write_evidence(folder / "pair_head", WeighedEvidence(evidence=evidence, combination=combination))
    return load_siamese(folder, num_threads=1)


def cut(model, *texts, **rules):
    """The documents of texts."""
    cutter = DocumentCutter(model.bundle, DocumentRules(**rules), max_length=model.bundle.default_max_length)
    return [cutter.cut(text, name=f"text {number}") for number, text in enumerate(texts)]


ONE, TWO = np.array([0]), np.array([1])


def test_chunks_are_whole_sentences_that_fit_and_say_where_they_stand(model):
    """In order, none over the budget, all of the text but a short end; in normal form."""
    (document,) = cut(model, SEA, chunk_tokens=30)
    assert len(document.passages) > 2
    for passage, following in zip(document.passages, document.passages[1:], strict=False):
        assert passage.stop <= following.start
    for passage in document.passages:
        assert passage.text == normalise_typography(SEA[passage.start : passage.stop])
        assert passage.text.startswith('"The whale')
    assert document.share_in_passages > 0.8
    assert "—" not in document.text
    (raw,) = cut(model, SEA, chunk_tokens=30, typography="raw")
    assert raw.passages[0].text == SEA[raw.passages[0].start : raw.passages[0].stop]
    (masked,) = cut(model, SEA, mask_names=True)
    assert "Ahab" not in masked.text


def test_a_text_shorter_than_a_chunk_is_one(model):
    """Nothing is thrown away; a text of one endless sentence is one chunk too."""
    short, endless = cut(model, SHORT, "and then " * 200)
    assert [passage.text for passage in short.passages] == [SHORT]
    assert len(endless.passages) == 1


def test_each_chunk_is_encoded_once(model):
    """Chunks that two documents share, or that one has twice, are one sequence for the engine."""
    documents = cut(model, SEA, SEA + LAND, SHORT)
    forward, seen = model.engine.forward, []

    def counted(batch):
        seen.append(batch.num_sequences)
        return forward(batch)

    model.engine.forward = counted
    try:
        encoded = encode_documents(model, documents)
    finally:
        model.engine.forward = forward
    texts = {passage.text for document in documents for passage in document.passages}
    assert sum(seen) == len(texts) == len(encoded.chunks.vectors_ND)
    assert sum(map(len, encoded.rows)) > len(texts)


@pytest.mark.parametrize("aggregate", ["vectors", "logits", "attention"])
def test_documents_of_one_chunk_are_a_pair_of_texts(model, aggregate):
    """The number is the log-odds that the model gives the two texts."""
    texts = (SHORT, "Emma walked to the house.")
    encoded = encode_documents(model, cut(model, *texts))
    found = compare_documents(model, encoded, ONE, TWO, aggregate)
    np.testing.assert_allclose(found, margins(model.logits([texts])), atol=1e-5)
    assert compare_passages(model, encoded, 0, 1).log_odds_KL == pytest.approx(found[0], abs=1e-5)


def test_what_is_compared_is_what_the_aggregate_says(model):
    """By hand from the chunks' own vectors and logits, before words and style join."""
    network = load_siamese(model.bundle.path, num_threads=1)
    network._scoring._evidence = None
    network.bundle = replace(model.bundle, evidence=None)
    documents = cut(network, SEA, LAND)
    encoded = encode_documents(network, documents)
    first, second = ([passage.text for passage in document.passages] for document in documents)
    assert min(len(first), len(second)) > 1
    logits = margins(network.logits(list(product(first, second))))
    np.testing.assert_allclose(
        compare_documents(network, encoded, ONE, TWO, "logits"), logits.mean(), atol=1e-5
    )
    np.testing.assert_allclose(
        compare_passages(network, encoded, 0, 1).log_odds_KL.ravel(), logits, atol=1e-5
    )
    one, two = (network.encode(texts).vectors_ND.mean(axis=0) for texts in (first, second))
    expected = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    np.testing.assert_allclose(compare_documents(network, encoded, ONE, TWO, "cosine"), expected, atol=1e-5)


def test_attention_weighs_chunks_by_the_other_document(model):
    """By hand: softmax of cosines over the learned temperature; so hot that all count alike, it is the plain means."""
    network = load_siamese(model.bundle.path, num_threads=1)
    network._scoring._evidence = None
    network.bundle = replace(model.bundle, evidence=None)
    documents = encode_documents(network, cut(network, SEA, LAND, SEA[: len(SEA) // 3]))
    first, second = np.array([0, 2, 1]), np.array([1, 0, 2])
    found = compare_documents(network, documents, first, second, "attention")
    chunks, wholes = documents.chunks, documents.wholes
    for one, two, number in zip(first, second, found, strict=True):
        sides = []
        for side, other in ((one, two), (two, one)):
            rows = documents.rows[side]
            weights = np.exp(chunks.vectors_ND[rows] @ wholes.vectors_ND[other] / network.temperature)
            weights /= weights.sum()
            mean = weights @ chunks.vectors_ND[rows]
            sides.append((mean / np.linalg.norm(mean), weights @ chunks.style_NF[rows]))
        vectors, styles = (
            torch.tensor(np.array(each), dtype=torch.float32) for each in zip(*sides, strict=True)
        )
        logits = network._scoring._head(vectors[:1], vectors[1:], styles[:1], styles[1:])[0]
        assert number == pytest.approx(float(logits[1] - logits[0]), abs=1e-4)
    plain = compare_documents(network, documents, first, second, "vectors")
    assert np.abs(found - plain).max() > 1e-4
    network._scoring.temperature = 1e5
    even = compare_documents(network, documents, first, second, "attention")
    np.testing.assert_allclose(even, plain, atol=1e-4)


def test_what_words_say_joins_the_network(tmp_path):
    """With the weights of the combination, whatever the aggregate; cosines stay what they are."""
    folder = make_siamese_folder(tmp_path / "model")
    plain = load_siamese(folder, num_threads=1)
    evidence = PairEvidence.fit(
        [SEA[2:200], SEA[200:400], LAND[:200], LAND[200:400]],
        np.array([0, 2, 0, 1]),
        np.array([1, 3, 2, 3]),
        np.array([True, True, False, False]),
        books=None,
        language="en",
    )
    combination = Combination(network=2.0, evidence=0.5, bias=-1.0)
    write_evidence(folder / "pair_head", WeighedEvidence(evidence=evidence, combination=combination))
    joined = load_siamese(folder, num_threads=1)
    documents = cut(plain, SEA, LAND)
    without, encoded = encode_documents(plain, documents), encode_documents(joined, documents)
    said = evidence.log_odds(encoded.wholes.evidence, ONE, TWO)
    for aggregate in ("vectors", "logits", "attention"):
        network = compare_documents(plain, without, ONE, TWO, aggregate)
        found = compare_documents(joined, encoded, ONE, TWO, aggregate)
        np.testing.assert_allclose(found, 2 * network + 0.5 * said - 1, atol=1e-4)
    np.testing.assert_allclose(
        compare_documents(joined, encoded, ONE, TWO, "cosine"),
        compare_documents(plain, without, ONE, TWO, "cosine"),
    )


def test_a_longer_document_is_not_taken_for_another_style(model):
    """Style and number of words are those of the chunks: a text ten times over has the same."""
    short, long = cut(model, LAND, " ".join([LAND] * 10))
    encoded = encode_documents(model, [short, long])
    np.testing.assert_allclose(*encoded.wholes.style_NF, atol=0.5)
    if encoded.wholes.evidence is not None:
        np.testing.assert_allclose(*encoded.wholes.evidence.num_words_N, atol=0.2)


def test_a_document_of_some_chunks_is_made_of_these_alone(model):
    """Its text is theirs; the others are not seen."""
    (document,) = cut(model, SEA)
    part = document.take([0, 2])
    assert part.text == f"{document.passages[0].text} {document.passages[2].text}"
    assert len(encode_documents(model, [part]).rows[0]) == 2


def test_what_cannot_be_cut_or_read_is_refused(model):
    """No text, no token, and chunks that the model would cut: one line with the way out."""
    with pytest.raises(InputError, match="text 0: no text; two texts are compared; give one with words"):
        cut(model, " \n ")
    with pytest.raises(UsageError, match=r"chunk_tokens is 31; .* reads 30 of a text; lower it"):
        cut(model, SHORT, chunk_tokens=31)


def test_of_long_documents_the_strongest_passages_are_set_against_each_other(model, monkeypatch):
    """Each against the whole of the other first: fewer pairs, and the numbers of all pairs for those that are left."""
    encoded = encode_documents(model, cut(model, SEA * 6, LAND * 6))
    whole = compare_passages(model, encoded, 0, 1)
    num_pairs = whole.log_odds_KL.size
    seen, score = [], model.score

    def counted(texts, first, second):
        seen.append(len(first))
        return score(texts, first, second)

    monkeypatch.setattr(model, "score", counted)
    few = compare_passages(model, encoded, 0, 1, most_pairs=16)
    assert sum(seen) < num_pairs / 2
    assert few.log_odds_KL.shape == (4, 4)
    picked = whole.log_odds_KL[np.ix_(few.first_K, few.second_L)]
    np.testing.assert_allclose(few.log_odds_KL, picked, atol=1e-5)
    against = margins(
        score(
            EncodedTexts.join(encoded.chunks, encoded.wholes),
            encoded.rows[0],
            np.full(len(encoded.rows[0]), len(encoded.chunks.vectors_ND) + 1),
        ).logits_MC
    )
    kept = against[few.first_K]
    assert (kept.max(), kept.min()) == pytest.approx((against.max(), against.min()), abs=1e-5)
