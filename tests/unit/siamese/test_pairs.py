"""A Siamese bundle on disk, and the probabilities that it gives for pairs of texts."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.encoders import embed_here
from support.scoring import read_parts, write_parquet
from support.siamese import CONFIG, make_siamese_folder
from transformers import AutoModel, AutoTokenizer

from assay.bundle.calibration import save_calibration
from assay.bundle.folders import is_siamese
from assay.errors import BundleError, InputError
from assay.metrics import softmax
from assay.outcome.calibration import Calibration
from assay.siamese.evidence import Combination, PairEvidence
from assay.siamese.evidence_files import WeighedEvidence, write_evidence
from assay.siamese.files import read_siamese
from assay.siamese.pairs import load_siamese
from assay.siamese.reading import distinct_texts
from assay.siamese.scoring import margins

TEXTS = (
    "The cat sat on the mat, and the dog ran.",
    "It was the best of times. It was the worst of times, or so they said.",
    "No!",
    "A long line " * 40,
)
PAIRS = list(itertools.product(TEXTS, TEXTS))


@pytest.fixture(scope="module", autouse=True)
def _threads():
    """Engines set torch's thread count for the whole process; it is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Siamese bundle that no test changes."""
    return make_siamese_folder(tmp_path_factory.mktemp("siamese") / "model")


@pytest.fixture
def own(tmp_path):
    """One that a test may spoil."""
    return make_siamese_folder(tmp_path / "model")


def by_hand(folder, pairs):
    """Logits with nothing of Assay but the style features: transformers, a text at a time, and plain products."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    dense, head = (
        load_file(folder / "2_Dense/model.safetensors"),
        load_file(folder / "pair_head/model.safetensors"),
    )

    def seen(text):
        inputs = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            pooled = model(**inputs).last_hidden_state[0].mean(0)
        vector = torch.tanh(dense["linear.weight"] @ pooled + dense["linear.bias"])
        return vector / vector.norm() * 8**0.5, torch.from_numpy(CONFIG.style([text])[0])

    def one_way(first, second):
        (u, s), (v, t) = seen(first), seen(second)
        inner = head["inner.weight"] @ torch.cat([u, v, (u - v).abs(), u * v, s, t]) + head["inner.bias"]
        return head["out.weight"] @ torch.nn.functional.gelu(inner) + head["out.bias"]

    return np.stack([((one_way(a, b) + one_way(b, a)) / 2).numpy() for a, b in pairs])


def test_probabilities_are_those_of_the_plain_computation(folder):
    """Encoder, pooling, projection, style, head and softmax, each text cut to the length of training."""
    model = load_siamese(folder, num_threads=1)
    expected = by_hand(folder, PAIRS)
    np.testing.assert_allclose(model.logits(PAIRS), expected, atol=2e-5)
    np.testing.assert_allclose(model.probabilities(PAIRS), softmax(expected), atol=1e-5)
    assert model.labels == ("0", "1")


def test_a_text_is_encoded_once_whatever_the_number_of_its_pairs(folder):
    """16 pairs of 4 texts are 4 sequences for the engine."""
    model = load_siamese(folder, num_threads=1)
    forward, seen = model.engine.forward, []

    def counted(batch):
        seen.append(batch.num_sequences)
        return forward(batch)

    model.engine.forward = counted
    model.probabilities(PAIRS)
    assert sum(seen) == len(TEXTS)


def test_the_order_of_a_pair_does_not_matter_unless_it_is_meant_to(folder, tmp_path):
    """A symmetric head gives both orders the same, another one does not."""
    swapped = [(second, first) for first, second in PAIRS]
    model = load_siamese(folder, num_threads=1)
    np.testing.assert_allclose(model.logits(PAIRS), model.logits(swapped), atol=1e-6)
    other = load_siamese(make_siamese_folder(tmp_path / "ordered", symmetric=False), num_threads=1)
    assert np.abs(other.logits(PAIRS) - other.logits(swapped)).max() > 1e-3


def test_an_angular_head_gives_scaled_cosines(tmp_path):
    """Its logits lie within the scale, and no margin is added."""
    model = load_siamese(
        make_siamese_folder(tmp_path / "arc", kind="arcface", scale=7.0, margin=0.5), num_threads=1
    )
    logits = model.logits(PAIRS)
    assert np.abs(logits).max() <= 7.0
    assert np.abs(logits).max() > 0.1
    weights = load_file(tmp_path / "arc/pair_head/model.safetensors")
    assert set(weights) == {"inner.weight", "inner.bias", "out.weight", "log_temperature"}


def test_cosines_are_those_of_the_vectors(folder):
    """What a map from similarity to probability is fitted on; 1 for a text and itself."""
    model = load_siamese(folder, num_threads=1)
    texts, first, second = distinct_texts(PAIRS)
    encoded = model.encode(texts)
    scored = model.score(encoded, first, second)
    np.testing.assert_allclose(
        scored.cosines_M, (encoded.vectors_ND @ encoded.vectors_ND.T).ravel(), atol=1e-5
    )
    np.testing.assert_allclose(scored.cosines_M[first == second], 1, atol=1e-5)
    assert encoded.truncated_N.tolist() == [False, False, False, True]


def test_assay_embed_gives_the_same_vectors(folder, tmp_path):
    """The folder is an encoder's: a run over the texts has the vectors that the head sees."""
    write_parquet(tmp_path / "texts.parquet", list(TEXTS))
    table = read_parts(embed_here(tmp_path / "texts.parquet", folder, tmp_path / "run", max_length=32))
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    encoded = load_siamese(folder, num_threads=1).encode(TEXTS)
    np.testing.assert_allclose(vectors, encoded.vectors_ND, atol=1e-5)


def test_the_bundle_s_calibration_applies(own):
    """A temperature of 2 halves the logits, and changes the fingerprint."""
    before = read_siamese(own).fingerprint
    save_calibration(own, Calibration(temperature=2.0))
    model = load_siamese(own, num_threads=1)
    np.testing.assert_allclose(model.probabilities(PAIRS), softmax(by_hand(own, PAIRS) / 2), atol=1e-5)
    assert model.bundle.fingerprint != before


@pytest.mark.parametrize("wrong", [["alone"], [("a", "b", "c")], [("a", 1)], ["ab"]])
def test_what_is_not_a_pair_is_refused(folder, wrong):
    """One line, with its number."""
    with pytest.raises(InputError, match=r"pair 0 is .*two strings are needed"):
        load_siamese(folder, num_threads=1).probabilities(wrong)


def test_no_pairs_give_no_rows(folder):
    """An empty list is not an error."""
    assert load_siamese(folder, num_threads=1).probabilities([]).shape == (0, 2)


def test_what_changes_a_probability_changes_the_fingerprint(own):
    """The head's weights and its style features, beside all that the encoder's own fingerprint holds."""
    found = {read_siamese(own).fingerprint}
    weights = own / "pair_head/model.safetensors"
    save_file({name: each + 1 for name, each in load_file(weights).items()}, weights)
    found.add(read_siamese(own).fingerprint)
    config = own / "pair_head/config.json"
    config.write_text(config.read_text().replace('"mean": 8.0', '"mean": 9.0'))
    found.add(read_siamese(own).fingerprint)
    assert len(found) == 3
    assert read_siamese(own).head.style.means == (9.0, 0.01)


def without(key):
    """A spoiler of the head's config."""

    def spoil(folder):
        file = folder / "pair_head/config.json"
        content = json.loads(file.read_text())
        del content[key]
        file.write_text(json.dumps(content))

    return spoil


def with_other_weights(folder):
    """Weights of a head of another width."""
    file = folder / "pair_head/model.safetensors"
    save_file(
        {name: each[..., :3].contiguous() if each.ndim else each for name, each in load_file(file).items()},
        file,
    )


def with_other_size(folder):
    """A head for other vectors."""
    file = folder / "pair_head/config.json"
    file.write_text(file.read_text().replace('"dimension": 8', '"dimension": 9'))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without("kind"), "kind is None, which is not a head's"),
        (without("symmetric"), "symmetric is None"),
        (without("style"), "style is None"),
        (without("dimension"), "dimension is None"),
        (with_other_size, "for vectors of 9 numbers, and the encoder's have 8"),
        (lambda folder: (folder / "pair_head/model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "assay.json").unlink(), "no labels; the head of pairs has 2"),
        (with_other_weights, "the weights must be those of pair_head/config.json"),
        (lambda folder: (folder / "pair_head/config.json").unlink(), "not a Siamese model; train it with"),
    ],
)
def test_a_damaged_bundle_is_refused_in_one_line(own, spoil, said):
    """What is wrong and the way out."""
    assert is_siamese(own)
    spoil(own)
    with pytest.raises(BundleError, match=said) as refused:
        load_siamese(own, num_threads=1)
    assert "\n" not in str(refused.value)


def weighed_evidence():
    """Evidence of few texts, and a combination that counts both."""
    texts, rows = [*TEXTS[:3], "The cat ran on.", "Then Tom sat, and Tom ran."], np.arange(4)
    return WeighedEvidence(
        evidence=PairEvidence.fit(
            texts, rows, rows + 1, np.array([True, False, True, False]), books=None, language="en"
        ),
        combination=Combination(network=0.5, evidence=2.0, bias=-0.25),
    )


def test_evidence_of_words_joins_what_the_network_says(own):
    """Log-odds are network and evidence as weighed; with it the fingerprint is another."""
    plain = load_siamese(own, num_threads=1)
    weighed = weighed_evidence()
    write_evidence(own / "pair_head", weighed)
    model = load_siamese(own, num_threads=1)
    assert model.bundle.evidence == weighed
    assert model.bundle.fingerprint != plain.bundle.fingerprint
    texts, first, second = distinct_texts(PAIRS)
    expected = weighed.combination(
        margins(plain.logits(PAIRS)), weighed.evidence.log_odds(weighed.evidence.encode(texts), first, second)
    )
    np.testing.assert_allclose(margins(model.logits(PAIRS)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "evidence.json").write_text("{"), "evidence.json"),
        (lambda folder: (folder / "lexicon.parquet").write_bytes(b"PAR1"), "lexicon.parquet"),
        (lambda folder: (folder / "lexicon.parquet").unlink(), "lexicon.parquet"),
        (lambda folder: change(folder, lambda content: content["regression"]["weights"].pop()), "weights"),
        (lambda folder: change(folder, lambda content: content.pop("combination")), "combination"),
        (lambda folder: change(folder, lambda content: content.update(format_version=99)), "99"),
    ],
)
def test_damaged_evidence_is_refused_by_the_name_of_its_file(own, spoil, message):
    """In one line that says what to do."""
    write_evidence(own / "pair_head", weighed_evidence())
    spoil(own / "pair_head")
    with pytest.raises(BundleError, match=message):
        read_siamese(own)


def change(folder, edit):
    """Edits `evidence.json`."""
    content = json.loads((folder / "evidence.json").read_text())
    edit(content)
    (folder / "evidence.json").write_text(json.dumps(content))
