"""Vectors of a run: what they are, what becomes of bad rows, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.encoders import embed_here, make_encoder_folder, open_work, plan_here, settings_of, write
from support.scoring import make_classifier, make_texts, read_parts, write_parquet
from transformers import AutoModel, AutoTokenizer

from assay.bundle.embedder import load_embedder
from assay.engine.fake import FakeEngine
from assay.errors import BundleError, CheckError, RefusedError, UsageError
from assay.runs.figures import read_figures
from assay.runs.pipeline import run_unit
from assay.runs.verify import verify

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_TEXTS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small encoder and some documents, one of them null."""
    folder = tmp_path_factory.mktemp("embed")
    make_encoder_folder(folder / "encoder")
    texts = make_texts(NUM_TEXTS, longest=60)
    texts[11] = None
    write_parquet(folder / "texts.parquet", texts)
    return folder


def vectors_of(table):
    """The vectors of a table's rows, [N, D]; of the rows without error."""
    column = table["embedding"].combine_chunks()
    return np.stack([np.asarray(row) for row in column.to_pylist() if row is not None])


def reference(folder, texts, *, pooling="mean", normalize=True, max_length=48):
    """What transformers gives, a text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state[0]
        vector = hidden.mean(0) if pooling == "mean" else hidden[0]
        found.append((vector / vector.norm() if normalize else vector).numpy())
    return np.stack(found)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize(("pooling", "ours"), [("mean", "mean"), ("cls", "first_token")])
def test_vectors_are_those_of_transformers(folder, tmp_path, family, pooling, ours):
    """Mean and first token, whatever the family: what the model's files say is what is computed."""
    made = make_encoder_folder(tmp_path / "encoder", family=family, pooling=pooling)
    run = embed_here(folder / "texts.parquet", made, tmp_path / "run")
    table = read_parts(run)
    texts = [text for text in pq.read_table(folder / "texts.parquet")["text"].to_pylist() if text is not None]
    expected = reference(made, texts, pooling="mean" if ours == "mean" else "first")
    np.testing.assert_allclose(vectors_of(table), expected, atol=2e-5)
    assert json.loads(json.dumps(run.manifest.identity))["pooling"] == ours


def test_a_part_has_its_schema(folder, tmp_path):
    """Ids, counts, errors and vectors of a fixed length; a null text is a null vector with a code."""
    run = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "run", unit_rows=16)
    table = read_parts(run)
    assert table.schema.names == ["id", "num_tokens", "truncated", "error", "embedding"]
    kind = table.schema.field("embedding").type
    assert pa.types.is_fixed_size_list(kind)
    assert kind.list_size == load_embedder(folder / "encoder").dimension
    assert kind.value_type == pa.float32()
    assert table["error"].to_pylist()[11] == "null"
    assert table["embedding"].to_pylist()[11] is None
    assert table["embedding"].null_count == 1
    assert max(table["num_tokens"].to_pylist()) == 48
    assert any(table["truncated"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors_of(table), axis=1), 1.0, atol=1e-5)
    proof = verify(run.url, sources=True)
    assert proof.holds, proof
    assert proof.error_rows == 1


def test_half_precision_parts_hold_the_same_vectors(folder, tmp_path):
    """`dtype` float16 rounds what float32 keeps, and is another run."""
    full = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "full")
    half = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "half", dtype="float16")
    table = read_parts(half)
    assert table.schema.field("embedding").type.value_type == pa.float16()
    np.testing.assert_allclose(vectors_of(table), vectors_of(read_parts(full)), atol=1e-3)
    assert full.manifest.run_id != half.manifest.run_id
    with pytest.raises(RefusedError, match="dtype was float32, now float16"):
        plan_here(
            settings_of(folder / "texts.parquet", folder / "encoder", tmp_path / "full", dtype="float16")
        )


def test_settings_win_over_the_files(folder, tmp_path):
    """`pooling` and `normalize` say otherwise than the model's own files."""
    run = embed_here(
        folder / "texts.parquet", folder / "encoder", tmp_path / "run", pooling="first_token", normalize="no"
    )
    texts = [text for text in pq.read_table(folder / "texts.parquet")["text"].to_pylist() if text is not None]
    expected = reference(folder / "encoder", texts, pooling="first", normalize=False)
    np.testing.assert_allclose(vectors_of(read_parts(run)), expected, atol=1e-4)


def test_attention_and_dense_modules(folder, tmp_path):
    """Weights of a pooling and of a projection are read from their folders and applied."""
    made = make_encoder_folder(tmp_path / "encoder", pooling="attention", dense=6)
    run = embed_here(folder / "texts.parquet", made, tmp_path / "run", parity_documents=8)
    vectors = vectors_of(read_parts(run))
    assert vectors.shape == (NUM_TEXTS - 1, 6)
    assert read_figures(run)[0]["passed"]
    # by hand, for the first text
    from safetensors.torch import load_file

    tokenizer, model = AutoTokenizer.from_pretrained(made), AutoModel.from_pretrained(made).eval()
    text = pq.read_table(folder / "texts.parquet")["text"][0].as_py()
    inputs = tokenizer(text, truncation=True, max_length=48, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state[0]
    pool, dense = (
        load_file(made / "1_Pooling/model.safetensors"),
        load_file(made / "2_Dense/model.safetensors"),
    )
    inner = torch.tanh(hidden @ pool["dense.weight"].T + pool["dense.bias"])
    weights = (inner @ pool["score.weight"].T + pool["score.bias"]).softmax(dim=0)
    pooled = (weights * hidden).sum(0)
    vector = torch.tanh(dense["linear.weight"] @ pooled + dense["linear.bias"])
    np.testing.assert_allclose(vectors[0], (vector / vector.norm()).numpy(), atol=1e-5)


def test_windows_give_the_mean_of_their_vectors_at_length_one(folder, tmp_path):
    """A long text under `window-mean` is one vector of length 1; a short one is as under `truncate`."""
    cut = read_parts(embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "cut"))
    wide = read_parts(
        embed_here(
            folder / "texts.parquet",
            folder / "encoder",
            tmp_path / "windows",
            on_long="window-mean",
            max_length=32,
        )
    )
    np.testing.assert_allclose(np.linalg.norm(vectors_of(wide), axis=1), 1.0, atol=1e-5)
    short = [k for k, count in enumerate(wide["num_tokens"].to_pylist()) if 0 < count <= 32]
    assert short
    assert max(wide["num_tokens"].to_pylist()) > 48
    for row in short:
        np.testing.assert_allclose(wide["embedding"][row].as_py(), cut["embedding"][row].as_py(), atol=1e-5)
    with pytest.raises(UsageError, match="window-max"):
        plan_here(
            settings_of(folder / "texts.parquet", folder / "encoder", tmp_path / "no", on_long="window-max")
        )


def test_the_gate_measures_and_stops(folder, tmp_path, monkeypatch):
    """The sample's cosine to fp32 is written down; an engine that is wrong publishes nothing."""
    run = plan_here(
        settings_of(folder / "texts.parquet", folder / "encoder", tmp_path / "run", parity_documents=8)
    )
    open_work(run)
    (figures,) = read_figures(run)
    assert figures["passed"]
    assert figures["least_cosine"] > 0.999999
    assert figures["num_documents"] == 8
    from assay.engine import load

    original = load.load_engine

    def load_wrong(*args, **named):
        engine = original(*args, **named)
        forward = engine.forward
        engine.forward = lambda batch: forward(batch) + 0.1
        return engine

    monkeypatch.setattr(load, "load_engine", load_wrong)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where the right one has passed is noted
    other = plan_here(
        settings_of(folder / "texts.parquet", folder / "encoder", tmp_path / "b", parity_documents=8)
    )
    with pytest.raises(
        CheckError, match="the parity gate did not hold: on 8 documents of the corpus vectors"
    ):
        open_work(other)


def test_not_finite_vectors_are_null(folder, tmp_path, monkeypatch):
    """A vector that is not finite becomes a null with a code, and stops nothing."""

    class Odd(FakeEngine):
        def forward(self, batch):
            found = super().forward(batch)
            found[0, 0] = float("nan")
            return found

    monkeypatch.setattr("assay.engine.fake.FakeEngine", Odd)
    run = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "run", engine="fake")
    errors = read_parts(run)["error"].to_pylist()
    assert "not_finite" in errors
    assert verify(run.url).holds


def test_a_folder_without_modules_is_pooled_by_mean_and_says_so(folder, tmp_path):
    """A plain transformers encoder, and a classifier's body: means of length 1, and a note."""
    plain = make_encoder_folder(tmp_path / "plain", pooling=None)
    texts = [text for text in pq.read_table(folder / "texts.parquet")["text"].to_pylist() if text is not None]
    assert any("no modules.json" in note for note in load_embedder(plain).notes)
    run = embed_here(folder / "texts.parquet", plain, tmp_path / "run", max_length=48)
    np.testing.assert_allclose(vectors_of(read_parts(run)), reference(plain, texts), atol=2e-5)
    classifier = make_classifier(tmp_path / "classifier")
    run = embed_here(folder / "texts.parquet", classifier, tmp_path / "run2", max_length=48)
    np.testing.assert_allclose(vectors_of(read_parts(run)), reference(classifier, texts), atol=2e-5)


def test_a_padded_engine_gives_the_same_vectors(folder, tmp_path):
    """`engine` padded is the transformers model itself, pooled under the mask."""
    packed = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "packed")
    padded = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "padded", engine="padded")
    np.testing.assert_allclose(vectors_of(read_parts(padded)), vectors_of(read_parts(packed)), atol=2e-5)


def test_a_run_goes_on_where_it_stopped(folder, tmp_path):
    """Published units stay as they are; the same vectors come out as of one go."""
    whole = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "whole", unit_rows=9)
    run = plan_here(settings_of(folder / "texts.parquet", folder / "encoder", tmp_path / "run", unit_rows=9))
    run_unit(run, open_work(run), run.manifest.units()[1])
    again = embed_here(folder / "texts.parquet", folder / "encoder", tmp_path / "run", unit_rows=9)
    np.testing.assert_allclose(vectors_of(read_parts(again)), vectors_of(read_parts(whole)), atol=1e-5)
    assert verify(again.url, sources=True).holds


def test_another_model_is_refused(folder, tmp_path):
    """A run's model may not change: not when it is joined, and not under a worker."""
    made = make_encoder_folder(tmp_path / "encoder")
    run = plan_here(settings_of(folder / "texts.parquet", made, tmp_path / "run"))
    make_encoder_folder(made, seed=1)
    with pytest.raises(RefusedError, match="bundle was"):
        plan_here(settings_of(folder / "texts.parquet", made, tmp_path / "run"))
    with pytest.raises(RefusedError, match="when the run was planned"):
        open_work(run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda at: write(at / "1_Pooling/config.json", {"pooling_mode": "max"}), "pooling max"),
        (lambda at: write(at / "1_Pooling/config.json", {"pooling_mode_max_tokens": True}), "pooling max"),
        (lambda at: write(at / "1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}), "mean and cls"),
        (
            lambda at: write(at / "modules.json", [{"path": "", "type": "x.Transformer"}]),
            "the modules Transformer",
        ),
        (lambda at: write(at / "modules.json", {}), "a list of modules"),
        (lambda at: (at / "modules.json").write_text("{"), "not JSON"),
        (lambda at: (at / "1_Pooling/config.json").unlink(), "no config.json"),
        (lambda at: (at / "tokenizer.json").unlink(), "no tokenizer.json"),
        (
            lambda at: write(
                at / "config_sentence_transformers.json",
                {"default_prompt_name": "query", "prompts": {"query": "query: "}},
            ),
            "'query: ' before every text",
        ),
    ],
)
def test_what_would_give_other_vectors_is_refused(folder, tmp_path, change, said):
    """Modules that are not computed here, and damaged files: one line with the way out."""
    made = make_encoder_folder(tmp_path / "encoder")
    change(made)
    with pytest.raises(BundleError, match=said) as caught:
        plan_here(settings_of(folder / "texts.parquet", made, tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_attention_that_the_model_has_not_is_refused(folder, tmp_path):
    """Its weights are trained: they cannot be made up."""
    with pytest.raises(UsageError, match="has no weights for it"):
        plan_here(
            settings_of(folder / "texts.parquet", folder / "encoder", tmp_path / "run", pooling="attention")
        )


def test_the_old_names_of_poolings_are_known(tmp_path):
    """What sentence-transformers wrote before it had one word for the pooling."""
    made = make_encoder_folder(tmp_path / "encoder")
    write(made / "1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    assert load_embedder(made).pooling("auto") == "first_token"


def test_the_fingerprint_is_of_all_that_changes_a_vector(tmp_path):
    """The weights, and the modules' files too."""
    made = make_encoder_folder(tmp_path / "encoder", dense=4)
    before = load_embedder(made).fingerprint
    assert load_embedder(made).fingerprint == before
    make_encoder_folder(tmp_path / "other", dense=4, seed=3)
    (made / "2_Dense/model.safetensors").write_bytes(
        (tmp_path / "other/2_Dense/model.safetensors").read_bytes()
    )
    assert load_embedder(made).fingerprint != before
