"""What `assay mine` writes is what `assay train` reads: the commands of the page, one after the other."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
from support.embedded import write_pairs
from support.encoders import embed_here, make_encoder_folder
from support.mining import mine_here, plan_here
from support.scoring import WORDS

import assay
from assay.bundle.load import load_bundle
from assay.cli.main import main
from assay.mine.kind import MINE


def test_mined_pairs_are_trained_on_and_the_model_guards_the_next_mining(tmp_path, capsys):
    """Vectors, pairs with their negatives, a model of pairs; no anchor is in training and validation."""
    chance = random.Random(0)
    texts = [f"{' '.join(chance.choices(WORDS, k=8))} {number}" for number in range(48)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "texts.parquet")
    encoder = make_encoder_folder(tmp_path / "encoder")
    vectors = embed_here(tmp_path / "texts.parquet", encoder, tmp_path / "vectors")
    sources = write_pairs(tmp_path / "pairs.parquet", list(zip(texts[:24], texts[24:], strict=True)))
    rows = mine_here(
        tmp_path,
        sources,
        (vectors.url,),
        name="negatives",
        output_format="pairs",
        num_negatives=2,
        unit_rows=10,
    )
    assert rows.column("label").to_pylist().count(0) == 48
    words = ["train", "--data", str(tmp_path / "negatives/parts/*.parquet"), "--text-column", "text1"]
    words += ["--text-pair-column", "text2", "--label-column", "label", "--group-column", "id1"]
    words += ["--base", str(encoder), "--out", str(tmp_path / "model"), "--epochs", "1", "--max-length", "40"]
    assert main([*words, "--validation-share", "0.25", "--num-threads", "1"]) == 0
    said = capsys.readouterr()
    assert "24 groups" in said.out + said.err
    bundle = load_bundle(tmp_path / "model")
    assert (bundle.is_pair, list(bundle.labels)) == (True, ["0", "1"])
    guarded = plan_here(tmp_path, sources, (vectors.url,), guard_bundle=str(tmp_path / "model"))
    guard = guarded.read(MINE)[0].guard
    assert (guard.bundle, guard.label) == (bundle.fingerprint, "1")
    scores = assay.load(tmp_path / "model").predict(texts[:2], texts[24:26])
    assert scores.num_rows == 2
