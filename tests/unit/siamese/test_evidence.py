"""Evidence of words and style: a regression that says which of its pieces counted, and a network beside it."""

import numpy as np
import pytest

from assay.siamese.evidence import Combination, PairEvidence, Regression

NAMES = ("Marlow", "Alice", "Heathcliff", "Emma", "Jarndyce", "Crusoe")
VERBS = ("walked", "spoke", "slept", "wrote", "laughed", "waited", "returned", "listened")


def corpus() -> tuple[list[str], list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Twelve texts of each of six books with a name of its own; pairs of one book and of two."""
    rng = np.random.default_rng(0)
    texts, books = [], []
    for name in NAMES:
        for _ in range(12):
            verbs = rng.choice(VERBS, 4)
            texts.append(" ".join(f"Then {name} {verb} and {rng.choice(VERBS)} again." for verb in verbs))
            books.append(name)
    first, second = rng.integers(0, len(texts), (2, 600))
    same = np.array([books[i] == books[k] for i, k in zip(first, second, strict=True)])
    return texts, books, first, second, same


def test_books_are_told_apart_and_the_pieces_sum_to_the_log_odds() -> None:
    """On the pairs it was fitted on; each piece says what it added."""
    texts, books, first, second, same = corpus()
    evidence = PairEvidence.fit(texts, first, second, same, books=books, language="en")
    encoded = evidence.encode(texts)
    found = evidence.log_odds(encoded, first, second)
    assert found[same].min() > found[~same].max()
    shares = evidence.shares(encoded, first, second)
    assert set(shares) == set(evidence.names)
    np.testing.assert_allclose(sum(shares.values()) + evidence.regression.bias, found, rtol=1e-9)
    np.testing.assert_array_equal(found, evidence.log_odds(encoded, second, first))


def test_unseen_names_count_as_rare() -> None:
    """A book that no training text is of: its name recurs, so its texts belong together."""
    texts, books, first, second, same = corpus()
    evidence = PairEvidence.fit(texts, first, second, same, books=books, language="en")
    others = [
        "Then Ahab walked and slept again.",
        "Then Ahab spoke and wrote again.",
        "Then Pip spoke and wrote again.",
    ]
    found = evidence.log_odds(evidence.encode(others), np.array([0, 0]), np.array([1, 2]))
    assert found[0] > found[1]


def test_the_regression_is_that_of_scikit_learn() -> None:
    """Standardised, then scikit-learn's own decision function."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(1)
    seen = rng.normal(size=(200, 3)) * [1, 10, 0.1]
    positive = seen @ [1, 0.1, 5] + rng.normal(size=200) > 0
    scaler = StandardScaler().fit(seen)
    expected = LogisticRegression(C=0.1, max_iter=1000, tol=1e-8).fit(scaler.transform(seen), positive)
    np.testing.assert_allclose(
        Regression.fit(seen, positive, penalty=0.1)(seen),
        expected.decision_function(scaler.transform(seen)),
        rtol=1e-6,
    )


@pytest.mark.parametrize(("sign", "network_counts"), [(1.0, True), (-1.0, False)])
def test_a_network_that_says_the_opposite_does_not_count(sign: float, network_counts: bool) -> None:
    """Each source counts as far as it helps, and never against itself."""
    rng = np.random.default_rng(2)
    positive = rng.random(400) < 0.5
    evidence = positive * 2.0 + rng.normal(size=400)
    network = sign * (positive * 2.0 + rng.normal(size=400))
    found = Combination.fit(network, evidence, positive)
    assert found.evidence > 0
    assert (found.network > 0) is network_counts
    both = found(network, evidence)
    assert np.corrcoef(both, positive)[0, 1] >= np.corrcoef(evidence, positive)[0, 1] - 1e-9
