"""From training to answers: a Siamese model and a cross-encoder learn the same pairs, are tuned and asked."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.training import pair_rows, siamese_settings, write_base

from assay.cli.main import main
from assay.metrics import auc
from assay.train.train import fit

pytestmark = pytest.mark.usefixtures("one_thread", "kept_sigterm")


def written(file, rows):
    """The rows as `assay prepare books` names columns."""
    pq.write_table(pa.table({"text1": rows.texts, "text2": rows.text_pairs, "label": rows.labels}), file)
    return str(file)


@pytest.mark.slow
def test_two_models_are_trained_tuned_and_asked(tmp_path, capsys):
    """Commands alone after training: on pairs that nothing has seen recall and share are those of the tuning."""
    base = write_base(tmp_path / "base")
    fit(siamese_settings(base, tmp_path / "quick", epochs=2), pair_rows(300, seed=0), pair_rows(40, seed=1))
    fit(siamese_settings(base, tmp_path / "long", epochs=4), pair_rows(400, seed=0), pair_rows(80, seed=1))
    out, answered = tmp_path / "cascade.json", tmp_path / "answers"
    models = [str(tmp_path / "quick"), str(tmp_path / "long")]
    tuning = written(tmp_path / "tuning.parquet", pair_rows(400, seed=2))
    asked = ["--recall", "0.9", "--num-threads", "1"]
    assert main(["cascade", "tune", *models, tuning, "--out", str(out), *asked]) == 0
    content = json.loads(out.read_text())
    assert f"{content['chosen']['share']:.1%} reach the second model" in capsys.readouterr().out
    new = pair_rows(300, seed=3)
    words = ["--bundle", str(out), "--text-column", "text1", "--text-pair-column", "text2"]
    run = str(tmp_path / "run")
    source = written(tmp_path / "new.parquet", new)
    assert main(["score", source, *words, "--run", run, "--unit-rows", "64", "--num-threads", "1"]) == 0
    assert main(["verify", run]) == 0
    assert main(["merge", run, "--out", str(answered)]) == 0
    answers = pq.read_table(answered).to_pylist()
    holds = np.array(new.labels) == "1"
    goes_on = np.array([each["stage"] == "two-stage" for each in answers])
    final = np.array([each["final_probability"] for each in answers])
    assert goes_on.mean() == pytest.approx(content["chosen"]["share"], abs=0.12)
    # three deviations of a share of 0.9 of so many pairs
    assert goes_on[holds].mean() > 0.9 - 3 * (0.9 * 0.1 / holds.sum()) ** 0.5
    assert content["alone"]["second"]["auc"] > 0.95
    assert auc(holds, final) > 0.95
