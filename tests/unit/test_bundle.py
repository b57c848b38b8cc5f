"""What makes a folder a bundle, what is refused, and what its fingerprint hangs on."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from assay.bundle import (
    Calibration,
    Description,
    load_bundle,
    load_calibration,
    publish_folder,
    save_calibration,
    tokenizer_fingerprint,
    write_description,
)
from assay.errors import BundleError, StorageError, UsageError

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
    ("config", "match"),
    [
        ({"label2id": {"ham": 1, "spam": 0}}, "label2id .* does not match id2label"),
        ({"label2id": {"ham": 0}}, "does not match"),
        (
            {"id2label": {"0": "ham", "2": "spam"}, "label2id": None},
            r"keys \['0', '2'\]; they must be 0\.\.1",
        ),
        ({"id2label": {"0": "ham", "1": "ham"}, "label2id": None}, "each needs a name of its own"),
        ({"id2label": {"0": "ham", "1": 7}, "label2id": None}, "each needs a name of its own"),
        ({"id2label": {}}, "must map 0, 1"),
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
    assert "weights_only" in load_bundle(folder).notes[0]


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
        (b"", "0 bytes that are no whole safetensors file"),
        (b'\x08\0\0\0\0\0\0\0{"a": 1}', "no whole safetensors file"),
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
    with pytest.raises(BundleError, match="no whole safetensors file"):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_config_is_refused(tmp_path, content):
    """Not JSON, or JSON that is no object."""
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
    ]
    assert len({base, *(load_bundle(folder).fingerprint for folder in others)}) == 5


def test_the_fingerprint_ignores_what_changes_no_score(tmp_path):
    """Dates, provenance and the metrics of a calibration are no part of the identity."""
    first = make(
        tmp_path / "a", assay={"created": "x"}, calibration={"temperature": 2.0, "meta": {"n_samples": 1}}
    )
    second = make(tmp_path / "b", assay={"provenance": {"n": 1}}, calibration={"temperature": 2.0})
    assert load_bundle(first).fingerprint == load_bundle(second).fingerprint


def test_the_tokenizer_fingerprint_ignores_truncation_padding_and_key_order(tmp_path):
    """Both are set by whoever encodes; the vocabulary is not."""
    first = make(tmp_path / "a")
    fingerprint = tokenizer_fingerprint(first)
    changed = {
        **dict(reversed(TOKENIZER.items())),
        "truncation": {"max_length": 9},
        "padding": {"strategy": "x"},
    }
    (first / "tokenizer.json").write_text(json.dumps(changed, indent=1))
    assert tokenizer_fingerprint(first / "tokenizer.json") == fingerprint
    (first / "tokenizer.json").write_text(json.dumps({**TOKENIZER, "model": {"type": "BPE"}}))
    assert tokenizer_fingerprint(first) != fingerprint


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
    assert load_calibration(folder) == calibration
    assert load_bundle(folder).calibration == calibration
    save_calibration(folder, Calibration(temperature=3.0))
    assert load_bundle(folder).calibration == Calibration(temperature=3.0)
    assert sorted(file.name for file in folder.iterdir() if file.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"format_version": 2, "temperature": 1.0}, "format_version 2; this release reads up to 1"),
        ({"temperature": 0}, "temperature 0; it must be a number above 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": "hot"}, "temperature 'hot'"),
        ({"temperature": 1.0, "method": "isotonic"}, "method 'isotonic'"),
        ({"temperature": 1.0, "threshold": 1.5}, "threshold 1.5"),
        ({"temperature": 1.0, "threshold": [0.5]}, "1 thresholds for 2 labels"),
    ],
)
def test_a_calibration_that_cannot_be_applied_is_refused(tmp_path, content, match):
    """A future version, a method unknown here, values out of range: never ignored in silence."""
    with pytest.raises(BundleError, match=match):
        load_bundle(make(tmp_path / "b", calibration=content))


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
    code = f"import sys, assay.bundle, assay.metrics; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"
