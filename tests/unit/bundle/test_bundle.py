"""What makes a folder a bundle, what is refused, and what its fingerprint depends on."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from assay.bundle.calibration import load_style_calibration, save_calibration
from assay.bundle.description import Description, write_description
from assay.bundle.load import load_bundle
from assay.bundle.publish import publish_folder
from assay.errors import BundleError, StorageError, UsageError
from assay.model.tokenizer_files import read_tokenizer, tokenizer_fingerprint
from assay.outcome.calibration import Calibration, Curve

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "id2label": {"0": "ham", "1": "spam"},
    "label2id": {"ham": 0, "spam": 1},
}
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "model": {"type": "WordPiece", "vocab": {"a": 0}},
}


REGRESSION = {"id2label": {"0": "score"}, "label2id": {"score": 0}}
CALIBRATIONS = [
    {"method": "vector", "scale": [1.0, 2.0], "bias": [0.0, 0.5]},
    {"method": "vector", "scale": [1.0, 2.5], "bias": [0.0, 0.5]},
    {"method": "vector", "scale": [1.0, 2.0], "bias": [0.1, 0.5]},
    {"method": "logistic", "scale": [1.5], "bias": [0.5]},
    {"method": "isotonic", "isotonic": [{"x": [0.1, 0.9], "y": [0.2, 0.7]}]},
    {"method": "isotonic", "isotonic": [{"x": [0.1, 0.9], "y": [0.2, 0.8]}]},
]
"""Each another map of two labels."""


def make(folder, *, config=None, weights=None, **files):
    """A bundle folder with the given changes; `config` entries of None are dropped."""
    folder.mkdir(exist_ok=True)
    merged = {name: value for name, value in {**CONFIG, **(config or {})}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(merged))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    save_file({"w": np.zeros(3, np.float32) if weights is None else weights}, folder / "model.safetensors")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_plain_transformers_folder_is_a_bundle(tmp_path):
    """No file of ours is needed; what nothing states is None or empty."""
    bundle = load_bundle(make(tmp_path / "b"))
    assert (bundle.task, bundle.labels, bundle.max_length) == ("single_label", ("ham", "spam"), 512)
    assert bundle.default_max_length == 512
    assert bundle.calibration is None
    assert bundle.is_pair is None
    assert bundle.provenance == {}
    assert bundle.notes == ()
    assert len(bundle.fingerprint) == len(bundle.tokenizer_fingerprint) == 32


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"problem_type": "multi_label_classification"}, "multi_label"),
        ({"problem_type": "single_label_classification"}, "single_label"),
        ({"id2label": {"0": "score"}, "label2id": {"score": 0}}, "regression"),
        (
            {"id2label": {"0": "x"}, "label2id": {"x": 0}, "problem_type": "multi_label_classification"},
            "multi_label",
        ),
    ],
)
def test_task_comes_from_problem_type_then_from_the_number_of_outputs(tmp_path, config, task):
    """problem_type rules; one output alone means regression."""
    assert load_bundle(make(tmp_path / "b", config=config)).task == task


def test_labels_are_in_index_order_and_default_to_two(tmp_path):
    """Order of the logits, not of the file; transformers omits the default pair."""
    labels = {str(index): f"l{index}" for index in reversed(range(12))}
    assert (
        load_bundle(make(tmp_path / "a", config={"id2label": labels, "label2id": None})).labels[10] == "l10"
    )
    plain = make(tmp_path / "b", config={"id2label": None, "label2id": None})
    assert load_bundle(plain).labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"id2label": {"0": 0, "1": 1}, "label2id": {"0": 0, "1": 1}}, ("0", "1")),
        ({"id2label": {"0": 1.0, "1": 0.5, "2": True}, "label2id": None}, ("1", "0.5", "true")),
        ({"label2id": {"ham": "0", "spam": "1"}}, ("ham", "spam")),
        ({"label2id": {"ham": 0.0, "spam": 1.0}}, ("ham", "spam")),
        ({"label2id": {}}, ("ham", "spam")),
        ({"label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("ham", "spam")),
        ({"id2label": {"00": "ham", "01": "spam"}}, ("ham", "spam")),
    ],
)
def test_label_maps_are_taken_as_transformers_takes_them(tmp_path, config, labels):
    """Numbers as names, numbers as text, and a label2id that says nothing are all read."""
    assert load_bundle(make(tmp_path / "b", config=config)).labels == labels


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"label2id": {"ham": 1, "spam": 0}}, "label2id .* does not match id2label"),
        ({"label2id": {"ham": 0}}, "does not match"),
        (
            {"id2label": {"0": "ham", "2": "spam"}, "label2id": None},
            r"keys \['0', '2'\]; they must be 0\.\.1",
        ),
        ({"id2label": {"0": "ham", "1": "ham"}, "label2id": None}, "each needs a name of its own"),
        ({"id2label": {"0": "ham", "1": None}, "label2id": None}, "each needs a name of its own"),
        ({"id2label": {"0": 1, "1": "1"}, "label2id": None}, "each needs a name of its own"),
        ({"id2label": ["ham", "spam"], "label2id": None}, "must be an object that maps 0, 1"),
        ({"id2label": {"a": "ham", "b": "spam"}, "label2id": None}, r"they must be 0\.\.1"),
        ({"label2id": {"ham": "1", "spam": "0"}}, "label2id .* does not match id2label"),
        ({"label2id": ["ham", "spam"]}, "label2id .* does not match id2label"),
        ({"id2label": None}, "stands without id2label"),
        ({"id2label": None, "label2id": None, "num_labels": "3"}, "must be a whole number from 1"),
        (
            {"id2label": {"0": "x"}, "label2id": None, "problem_type": "single_label_classification"},
            "single_label_classification with one output; it needs two or more",
        ),
        ({"id2label": {}, "label2id": None}, "must be an object that maps 0, 1"),
        ({"num_labels": 3}, "num_labels=3 but id2label names 2"),
        ({"problem_type": "ranking"}, "problem_type 'ranking'"),
        ({"problem_type": "regression"}, "regression with 2 outputs"),
        ({"architectures": ["BertModel"]}, "BertModel has no classification head.*assay train"),
        ({"auto_map": {"AutoModel": "m.M"}}, "remote code"),
    ],
)
def test_a_config_that_cannot_be_trusted_is_refused(tmp_path, config, match):
    """Labels that disagree, no head, remote code: one line with the way out."""
    with pytest.raises(BundleError, match=match) as caught:
        load_bundle(make(tmp_path / "b", config=config))
    assert "\n" not in str(caught.value)


def test_remote_code_of_the_tokenizer_is_refused(tmp_path):
    """auto_map in tokenizer_config.json asks for code too."""
    with pytest.raises(BundleError, match=r"tokenizer_config.json: auto_map asks for remote code"):
        load_bundle(make(tmp_path / "b", tokenizer_config={"auto_map": {"AutoTokenizer": ["t.T", None]}}))


@pytest.mark.parametrize(
    ("config", "stated", "expected"),
    [
        ({}, 256, 256),
        ({}, 1000000000000000019884624838656, 512),
        ({}, None, 512),
        ({}, 2048, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, None, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512, 512),
        ({"model_type": "modernbert", "max_position_embeddings": 8192, "pad_token_id": 50283}, None, 8192),
    ],
)
def test_max_length_is_the_smallest_limit_stated(tmp_path, config, stated, expected):
    """Positions after padding are no room for text; the tokenizer's 'no limit' is none."""
    folder = make(tmp_path / "b", config=config, tokenizer_config={"model_max_length": stated})
    assert load_bundle(folder).max_length == expected


@pytest.mark.parametrize(
    ("missing", "match"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer.json"),
        ("model.safetensors", "no model.safetensors"),
    ],
)
def test_a_missing_file_is_named(tmp_path, missing, match):
    """Each needed file has its message."""
    folder = make(tmp_path / "b")
    (folder / missing).unlink()
    with pytest.raises(BundleError, match=match):
        load_bundle(folder)


def test_a_missing_folder_or_a_file_is_refused(tmp_path):
    """The path itself is checked first."""
    with pytest.raises(BundleError, match="no such folder"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="a file; a bundle is a folder"):
        load_bundle(tmp_path / "file")


@pytest.mark.parametrize("name", ["model.pkl", "clf.joblib", "model.pt", "W.PICKLE"])
def test_pickles_are_never_weights(tmp_path, name):
    """A folder whose weights are a pickle is refused by name, with or without a config."""
    folder = make(tmp_path / "b")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"\x80\x04.")
    with pytest.raises(BundleError, match=f"{name}.*pickles can run code"):
        load_bundle(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BundleError, match=f"{name}.*pickles can run code"):
        load_bundle(folder)


def test_legacy_weights_are_taken_with_a_note(tmp_path):
    """pytorch_model.bin is left to its own loader, and the user is told."""
    folder = make(tmp_path / "b")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "tensors alone are read" in load_bundle(folder).notes[0]


def test_sharded_weights_need_every_shard(tmp_path):
    """The index names the files; a missing one is named."""
    folder = make(tmp_path / "b")
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"w": "model-1-of-2.safetensors", "v": "model-2-of-2.safetensors"}})
    )
    with pytest.raises(BundleError, match=r"model-2-of-2.safetensors: missing"):
        load_bundle(folder)
    save_file({"v": np.ones(2, np.float32)}, folder / "model-2-of-2.safetensors")
    assert load_bundle(folder).labels == ("ham", "spam")
    index.write_text(json.dumps({"weight_map": {"w": "../elsewhere.safetensors"}}))
    with pytest.raises(BundleError, match="does not list files of this folder"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"", "0 bytes that are not a whole safetensors file"),
        (b'\x08\0\0\0\0\0\0\0{"a": 1}', "not a whole safetensors file"),
    ],
)
def test_damaged_weights_are_refused_before_they_are_mapped(tmp_path, content, match):
    """A pointer, an empty file and nonsense each get a message."""
    folder = make(tmp_path / "b")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=match):
        load_bundle(folder)


def test_weights_cut_short_are_refused(tmp_path):
    """A download that stopped early is found by the size that the header promises."""
    folder = make(tmp_path / "b")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match="not a whole safetensors file"):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_config_is_refused(tmp_path, content):
    """Not JSON, or JSON that is not an object."""
    folder = make(tmp_path / "b")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"config.json: "):
        load_bundle(folder)


# ---------------------------------------------------------------- identity


def test_the_fingerprint_changes_with_all_that_changes_a_score(tmp_path):
    """Weights, configuration, calibration: each makes another bundle; a copy is the same one."""
    base = load_bundle(make(tmp_path / "a")).fingerprint
    assert load_bundle(make(tmp_path / "copy")).fingerprint == base
    others = [
        make(tmp_path / "b", weights=np.ones(3, np.float32)),
        make(tmp_path / "c", config={"layer_norm_eps": 1e-5}),
        make(tmp_path / "d", calibration={"temperature": 2.0}),
        make(tmp_path / "e", calibration={"temperature": 1.0, "threshold": 0.5}),
        *(
            make(tmp_path / f"f{number}", calibration=calibration)
            for number, calibration in enumerate(CALIBRATIONS)
        ),
    ]
    assert len({base, *(load_bundle(folder).fingerprint for folder in others)}) == 5 + len(CALIBRATIONS)


def test_the_fingerprint_of_an_older_calibration_stays(tmp_path):
    """A run that was begun before the other methods came goes on: the same file, the same identity."""
    bundle = load_bundle(make(tmp_path / "b", calibration={"temperature": 2.0, "threshold": 0.5}))
    config = {name: value for name, value in CONFIG.items() if value is not None}
    weights = hashlib.sha256((tmp_path / "b" / "model.safetensors").read_bytes()).hexdigest()
    parts = {
        "config": config,
        "weights": {"model.safetensors": weights},
        "description": dict.fromkeys(("task", "labels", "max_length", "is_pair")),
        "calibration": {"method": "temperature", "temperature": 2.0, "threshold": 0.5},
    }
    content = json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()
    assert bundle.fingerprint == hashlib.sha256(content).hexdigest()[:32]


def test_the_fingerprint_changes_with_the_interval_and_the_whole_scores(tmp_path):
    """A regression's columns depend on both."""
    interval = {"method": "conformal", "half_width": 0.5, "coverage": 0.9}
    folders = [
        make(tmp_path / "a", config=REGRESSION),
        make(tmp_path / "b", config=REGRESSION, calibration=interval),
        make(tmp_path / "c", config=REGRESSION, calibration={**interval, "half_width": 0.6}),
        make(tmp_path / "d", config=REGRESSION, calibration={**interval, "coverage": 0.8}),
        make(tmp_path / "e", config=REGRESSION, assay={"int_score": [1, 5]}),
        make(tmp_path / "f", config=REGRESSION, assay={"int_score": [0, 5]}),
    ]
    assert len({load_bundle(folder).fingerprint for folder in folders}) == 6


def test_the_fingerprint_ignores_what_changes_no_score(tmp_path):
    """Dates, provenance and the metrics of a calibration are not part of the identity."""
    first = make(
        tmp_path / "a", assay={"created": "x"}, calibration={"temperature": 2.0, "meta": {"n_samples": 1}}
    )
    second = make(tmp_path / "b", assay={"provenance": {"n": 1}}, calibration={"temperature": 2.0})
    assert load_bundle(first).fingerprint == load_bundle(second).fingerprint


def test_the_tokenizer_fingerprint_ignores_truncation_padding_and_key_order(tmp_path):
    """Both are set by whoever encodes; the vocabulary is not."""
    first = make(tmp_path / "a")
    fingerprint = tokenizer_fingerprint(read_tokenizer(first))
    changed = {
        **dict(reversed(TOKENIZER.items())),
        "truncation": {"max_length": 9},
        "padding": {"strategy": "x"},
    }
    (first / "tokenizer.json").write_text(json.dumps(changed, indent=1))
    assert tokenizer_fingerprint(read_tokenizer(first)) == fingerprint
    (first / "tokenizer.json").write_text(json.dumps({**TOKENIZER, "model": {"type": "BPE"}}))
    assert tokenizer_fingerprint(read_tokenizer(first)) != fingerprint


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_cannot_be_read_is_named(tmp_path, name):
    """A file that the system does not let us read: which, why, and what to check."""
    folder = make(tmp_path / "b")
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(BundleError, match=rf"{name}: Is a directory; .*check the path and its permissions"):
        load_bundle(folder)


# ---------------------------------------------------------------- calibration.json and assay.json


def test_a_calibration_survives_the_file(tmp_path):
    """What was saved is what is loaded, and the bundle carries it."""
    folder = make(tmp_path / "b")
    calibration = Calibration(
        temperature=1.5,
        threshold=(0.25, 0.5),
        opt_metric="nll",
        selection_metrics={"nll": 0.1},
        meta={"n_samples": 7},
    )
    save_calibration(folder, calibration)
    assert load_bundle(folder).calibration == calibration
    save_calibration(folder, Calibration(temperature=3.0))
    assert load_bundle(folder).calibration == Calibration(temperature=3.0)
    assert sorted(file.name for file in folder.iterdir() if file.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"format_version": 2, "temperature": 1.0}, "format_version 2; this release reads up to 1"),
        ({"a": 1}, "without method, temperature or threshold"),
        ({}, "without method, temperature or threshold"),
        ({"temperature": 0}, "temperature 0; it must be a number above 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": "hot"}, "temperature 'hot'"),
        ({"temperature": 1.0, "method": "beta"}, "method 'beta'; this release applies temperature, vector"),
        ({"method": "isotonic"}, "method 'isotonic' with 0 parameters; 1 of each are needed"),
        ({"method": "isotonic", "isotonic": [{"x": [0.5], "y": [0.1, 0.2]}]}, "rising lists of one length"),
        ({"method": "isotonic", "isotonic": [{"x": [0.5, 0.1], "y": [0.1, 0.2]}]}, "rising lists"),
        ({"method": "isotonic", "isotonic": [{"x": [0.1, 0.5], "y": [0.3, 0.2]}]}, "rising lists"),
        ({"method": "isotonic", "isotonic": [{"x": [0.1, 0.5], "y": [0.3, 1.2]}]}, "y from 0 to 1"),
        ({"method": "isotonic", "isotonic": 7}, "rising lists"),
        ({"method": "vector", "scale": [1.0, "x"], "bias": [0, 0]}, "scale .* must be finite numbers"),
        ({"method": "vector", "scale": [1.0], "bias": [0.0, 0.0]}, "with 1 and 2 parameters; 2 of each"),
        ({"method": "logistic", "scale": [float("inf")], "bias": [0.0]}, "scale .* must be finite"),
        ({"method": "conformal", "half_width": 1.0, "coverage": 0.9}, "method 'conformal' for 2 outputs"),
        ({"method": "conformal", "half_width": -1.0, "coverage": 0.9}, "half_width -1.0 with coverage 0.9"),
        ({"temperature": 1.0, "threshold": 1.5}, "threshold 1.5"),
        ({"temperature": 1.0, "threshold": [0.5]}, "1 thresholds for 2 labels"),
    ],
)
def test_a_calibration_that_cannot_be_applied_is_refused(tmp_path, content, match):
    """A future version, a method unknown here, values out of range: never ignored in silence."""
    with pytest.raises(BundleError, match=match):
        load_bundle(make(tmp_path / "b", calibration=content))


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(method="vector", scale=(0.1 + 0.2, 2.0), bias=(1e-17, -3.0), opt_metric="nll"),
        Calibration(method="logistic", scale=(1.5,), bias=(0.25,), threshold=0.1 + 0.2),
        Calibration(method="isotonic", steps=(Curve(x=(0.0, 1 / 3), y=(0.1, 2 / 3)),)),
        Calibration(temperature=2.0, provenance={"text_hashes": {"calibration": "AAAA"}}),
    ],
)
def test_every_method_survives_the_file(tmp_path, calibration):
    """To the last digit: what was fitted is what is applied."""
    folder = make(tmp_path / "b")
    save_calibration(folder, calibration)
    assert load_bundle(folder).calibration == calibration


def test_an_interval_survives_the_file(tmp_path):
    """A regression's half width and the coverage that it promises."""
    folder = make(tmp_path / "b", config=REGRESSION)
    calibration = Calibration(method="conformal", half_width=0.1 + 0.2, coverage=0.9)
    save_calibration(folder, calibration)
    assert load_bundle(folder).calibration == calibration


PAIR_MODEL = {
    "temperature": 1.37,
    "threshold": 0.42,
    "opt_metric": "accuracy",
    "selection_metrics": {"threshold": 0.42, "accuracy": 0.9, "f0.5": 0.8},
}
"""A calibration as a trainer of pair models writes it beside its `final/` folder: no version, no method."""


def test_a_calibration_in_the_parent_folder_is_found(tmp_path):
    """`final/` beside `calibration.json`: it is applied, and the bundle says where it came from."""
    (tmp_path / "calibration.json").write_text(json.dumps(PAIR_MODEL))
    folder = make(tmp_path / "final")
    bundle = load_bundle(folder)
    assert (bundle.calibration.method, bundle.calibration.temperature) == ("temperature", 1.37)
    assert bundle.calibration.threshold == 0.42
    assert bundle.calibration.selection_metrics["f0.5"] == 0.8
    assert bundle.notes == (
        f"{tmp_path / 'calibration.json'}: the calibration is taken from the parent folder",
    )
    save_calibration(folder, Calibration(temperature=3.0))
    own = load_bundle(folder)
    assert own.calibration.temperature == 3.0
    assert own.notes == ()


def test_another_file_of_that_name_in_the_parent_folder_is_left_alone(tmp_path):
    """Whatever it calibrates: without a temperature or a method it is none of a bundle's."""
    (tmp_path / "calibration.json").write_text('{"focal_length": 35}')
    bundle = load_bundle(make(tmp_path / "model"))
    assert (bundle.calibration, bundle.notes) == (None, ())


def test_the_calibration_of_a_bundle_is_not_that_of_the_checkpoints_in_it(tmp_path):
    """A parent that is a bundle itself keeps its calibration to itself."""
    parent = make(tmp_path / "model", calibration=PAIR_MODEL)
    assert load_bundle(make(parent / "checkpoint-100")).calibration is None
    assert load_bundle(parent).calibration.temperature == 1.37


@pytest.mark.parametrize("place", ["own", "parent"])
@pytest.mark.parametrize(
    ("fitted", "expected"),
    [
        (
            {"method": "logistic", "coef": 12.5, "intercept": -6.0},
            {"method": "logistic", "scale": (12.5,), "bias": (-6.0,)},
        ),
        (
            {"method": "logistic", "coef": [[12.5]], "intercept": [-6.0]},
            {"method": "logistic", "scale": (12.5,), "bias": (-6.0,)},
        ),
        (
            {"method": "isotonic", "x_thresholds": [-0.2, 0.9], "y_values": [0.0, 1.0]},
            {"method": "isotonic", "steps": (Curve(x=(-0.2, 0.9), y=(0.0, 1.0)),)},
        ),
    ],
)
def test_a_style_calibration_loads(tmp_path, place, fitted, expected):
    """Both methods, beside the weights or above; it maps similarities, so the head is not calibrated by it."""
    folder = make(tmp_path / "final")
    meta = {"n_samples": 5000, "num_chunks": 20}
    file = (folder if place == "own" else tmp_path) / "style_calibration.json"
    file.write_text(json.dumps({"style_calibration": fitted, "meta": meta}))
    assert load_style_calibration(folder) == Calibration(**expected, meta=meta)
    bundle = load_bundle(folder)
    assert bundle.calibration is None
    assert bundle.notes == (
        f"{file}: for assay compare: it maps numbers of documents, not logits, so scores do not use it",
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({}, "style_calibration None; it needs the method"),
        ({"style_calibration": {"method": "beta"}}, "it needs the method logistic or isotonic"),
        ({"style_calibration": {"method": "logistic", "coef": [1.0, 2.0], "intercept": 0}}, "1 and 2 param"),
        ({"style_calibration": {"method": "isotonic", "x_thresholds": [1]}}, "rising lists of one length"),
    ],
)
def test_a_style_calibration_that_cannot_be_applied_is_refused(tmp_path, content, match):
    """No method, another one, numbers that do not fit."""
    folder = make(tmp_path / "b")
    (folder / "style_calibration.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=match):
        load_style_calibration(folder)
    assert load_style_calibration(make(tmp_path / "c")) is None


@pytest.mark.parametrize(
    ("config", "calibration", "match"),
    [
        (
            {"problem_type": "multi_label_classification"},
            {"method": "logistic", "scale": [1.0], "bias": [0.0]},
            "with 1 parameters; 2 of each are needed",
        ),
        (
            {"problem_type": "multi_label_classification"},
            {"method": "vector", "scale": [1.0, 1.0], "bias": [0.0, 0.0]},
            "of a multi_label bundle; it takes isotonic, logistic, temperature",
        ),
        (REGRESSION, {"method": "vector", "scale": [1.0], "bias": [0.0]}, "takes conformal, temperature"),
        (
            {"id2label": {str(n): f"l{n}" for n in range(3)}, "label2id": None},
            {"method": "logistic", "scale": [1.0], "bias": [0.0]},
            "method 'logistic' for 3 outputs of a single_label bundle",
        ),
    ],
)
def test_a_method_that_the_head_cannot_have_is_refused(tmp_path, config, calibration, match):
    """A file copied from another bundle is found out before anything is scored."""
    with pytest.raises(BundleError, match=match):
        load_bundle(make(tmp_path / "b", config=config, calibration=calibration))


def test_whole_scores_survive_the_file(tmp_path):
    """assay.json says from where to where a regression's scores are rounded; a bundle without says nothing."""
    folder = make(tmp_path / "b", config=REGRESSION)
    assert load_bundle(folder).int_score is None
    write_description(
        folder,
        Description(
            assay_version="0",
            created="",
            task="regression",
            labels=("score",),
            max_length=8,
            is_pair=False,
            provenance={},
            int_score=(1, 5),
        ),
    )
    assert load_bundle(folder).int_score == (1, 5)


@pytest.mark.parametrize(
    ("config", "value", "match"),
    [
        (REGRESSION, [5, 1], "least and the greatest"),
        (REGRESSION, [1], "least and the greatest"),
        (REGRESSION, [1, 5.5], "least and the greatest"),
        (REGRESSION, [False, True], "least and the greatest"),
        (REGRESSION, [0, 2**40], "least and the greatest"),
        ({}, [1, 5], "of a single_label bundle; only a regression has one"),
    ],
)
def test_whole_scores_that_make_no_sense_are_refused(tmp_path, config, value, match):
    """Turned round, half, not whole, beyond the column, or of a classifier."""
    with pytest.raises(BundleError, match=match):
        load_bundle(make(tmp_path / "b", config=config, assay={"int_score": value}))


def test_a_description_survives_the_file(tmp_path):
    """assay.json gives the trained length, the pair flag and the provenance."""
    folder = make(tmp_path / "b")
    write_description(
        folder,
        Description(
            assay_version="0",
            created="2026-01-01T00:00:00+00:00",
            task="single_label",
            labels=("ham", "spam"),
            max_length=128,
            is_pair=False,
            provenance={"base": "x"},
        ),
    )
    bundle = load_bundle(folder)
    assert (bundle.default_max_length, bundle.max_length) == (128, 512)
    assert bundle.is_pair is False
    assert bundle.provenance == {"base": "x"}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"format_version": 9}, "format_version 9"),
        ({"labels": ["spam", "ham"]}, "labels .* but config.json says"),
        ({"task": "regression"}, "task 'regression' but config.json says 'single_label'"),
    ],
)
def test_a_description_that_disagrees_is_refused(tmp_path, content, match):
    """Two files of one bundle must tell the same story."""
    with pytest.raises(BundleError, match=match):
        load_bundle(make(tmp_path / "b", assay=content))


# ---------------------------------------------------------------- publishing


def test_a_published_folder_appears_whole_or_not_at_all(tmp_path):
    """On success only the result is left, on failure nothing."""
    out = tmp_path / "deep" / "bundle"
    with publish_folder(out) as scratch:
        (scratch / "config.json").write_text("{}")
        assert not out.exists()
    assert [file.name for file in out.parent.iterdir()] == ["bundle"]
    with pytest.raises(KeyError), publish_folder(tmp_path / "other") as scratch:
        json.loads((scratch / "config.json").write_text("{}") and "{}")["absent"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deep"]


def test_others_may_read_what_is_published(tmp_path):
    """Some writers let only the owner read; whoever serves the bundle often is another user."""
    old = os.umask(0o027)
    try:
        with publish_folder(tmp_path / "bundle") as scratch:
            (scratch / "model.safetensors").touch(mode=0o600)
    finally:
        os.umask(old)
    modes = [
        path.stat().st_mode & 0o777 for path in (tmp_path / "bundle", tmp_path / "bundle/model.safetensors")
    ]
    assert modes == [0o750, 0o640]


def test_a_folder_in_use_is_not_overwritten_unless_asked(tmp_path):
    """The old bundle stays until the new one is complete."""
    out = make(tmp_path / "b")
    with pytest.raises(UsageError, match="not empty"), publish_folder(out):
        pass
    with publish_folder(out, overwrite=True) as scratch:
        (scratch / "new.json").write_text("{}")
        assert (out / "config.json").exists()
    assert [file.name for file in out.iterdir()] == ["new.json"]
    assert [file.name for file in tmp_path.iterdir()] == ["b"]


def test_an_unwritable_place_is_a_storage_error(tmp_path):
    """The operating system's reason and a way out, in one line."""
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StorageError, match="could not be written"),
        publish_folder(tmp_path / "file" / "bundle"),
    ):
        pass


def test_importing_bundle_loads_neither_torch_nor_pyarrow():
    """Workers and the command line read bundles long before they need a tensor."""
    heavy = "{'torch', 'transformers', 'pyarrow'}"
    code = f"import sys, assay.bundle.load, assay.metrics; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"
