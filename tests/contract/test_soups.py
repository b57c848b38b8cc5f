"""A soup is the mean of weights that began together, and nothing else."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.scoring import make_classifier, make_texts

from assay.bundle.load import load_bundle
from assay.ensemble.build import ensemble_build
from assay.ensemble.settings import BuildSettings
from assay.errors import BundleError
from assay.score.classifier import load

pytestmark = pytest.mark.usefixtures("kept_threads")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the bundles and rows of this module."""
    return tmp_path_factory.mktemp("soups")


def trained(folder, start, *, seed, shift=0.0, drawn=0):
    """A copy of a classifier with its weights moved, that says it was trained with a seed."""
    shutil.copytree(start, folder)
    rng = np.random.default_rng(drawn)
    weights = load_file(folder / "model.safetensors")
    moved = {
        name: each + np.float32(shift) * rng.normal(size=each.shape).astype(np.float32)
        for name, each in weights.items()
    }
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    provenance = {"settings": {"base": "encoder/", "seed": seed, "architecture": "auto"}}
    content = {"task": "single_label", "labels": ["negative", "positive"], "provenance": provenance}
    (folder / "assay.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def members(place):
    """Two near a classifier, and one far from it, all of one beginning."""
    start = make_classifier(place / "start", seed=4)
    return [
        trained(place / "near", start, seed=7, shift=0.02, drawn=1),
        trained(place / "nearer", start, seed=7, shift=0.01, drawn=2),
        trained(place / "far", start, seed=7, shift=2.0, drawn=3),
    ]


@pytest.fixture(scope="module")
def validation(place):
    """Texts with the labels that the classifier in the middle gives them."""
    texts = [f"{number} {text}" for number, text in enumerate(make_texts(60, seed=3, longest=30))]
    said = load(place / "start", num_threads=1).predict(texts)["prediction"].to_pylist()
    file = place / "validation.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(texts, said, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_a_soup_is_one_classifier_with_the_mean_of_weights(place, members, validation):
    """What makes the validation loss worse is left out; the rest is averaged; the bundle is a plain classifier."""
    paths = tuple(map(str, members))
    out = place / "soup"
    result = ensemble_build(
        BuildSettings(out=str(out), members=paths, rule="soup", validation=(str(validation),))
    )
    assert any("far" in name for name in result.left_out)
    kept = [
        path
        for path, name in zip(members, ("near", "nearer", "far"), strict=True)
        if not _is_in(result.left_out, name)
    ]
    found = load_file(out / "model.safetensors")
    each = [load_file(path / "model.safetensors") for path in kept]
    for name, tensor in found.items():
        expected = np.mean([one[name].astype(np.float64) for one in each], axis=0)
        np.testing.assert_allclose(tensor, expected, atol=1e-6)
    assert load_bundle(out).labels == ("negative", "positive")


def _is_in(names, word):
    return any(name.endswith(f"/{word}") for name in names)


def test_heads_that_began_apart_are_refused(place, members, validation):
    """Another seed, or a model that does not say: the reason and the way out in one line, nothing written."""
    other = trained(place / "other", place / "start", seed=8, shift=0.01, drawn=5)
    settings = {"out": str(place / "none"), "rule": "soup", "validation": (str(validation),)}
    with pytest.raises(
        BundleError, match=r"trained with seed 7 and 8: their heads began with different weights"
    ):
        ensemble_build(BuildSettings(members=(str(members[0]), str(other)), **settings))
    silent = make_classifier(place / "silent", seed=9)
    with pytest.raises(BundleError, match=r"does not say how it was trained"):
        ensemble_build(BuildSettings(members=(str(silent), str(members[0])), **settings))
    assert not (place / "none").exists()
