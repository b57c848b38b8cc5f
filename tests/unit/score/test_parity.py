"""The parity gate of a run: a wrong engine scores nothing."""

import json
import shutil
import threading

import numpy as np
import pytest
from support.models import change_json
from support.scoring import make_classifier, make_texts, open_work, read_parts, score_here, write_parquet

from assay import proofs
from assay.embed.gate import EARLIER
from assay.engine import load
from assay.errors import CheckError, SourceError
from assay.runs.figures import PARITY_PATH, read_figures, write_figures
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join
from assay.score import parity
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here
from assay.score.worker import open_score_work
from assay.tokenize.sample import take_sample

pytestmark = pytest.mark.usefixtures("kept_threads")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small classifier and 50 documents, some of them null."""
    folder = tmp_path_factory.mktemp("parity")
    make_classifier(folder / "bundle")
    texts = [None if row % 9 == 4 else text for row, text in enumerate(make_texts(50, longest=30))]
    write_parquet(folder / "data.parquet", texts)
    return folder


def plan(folder, run, **changes):
    """A run over the documents, created."""
    settings = ScoreSettings(
        sources=(str(folder / "data.parquet"),),
        bundle=str(folder / "bundle"),
        run=str(run),
        unit_rows=10,
        **changes,
    )
    return create_or_join(settings.run, plan_here(settings)[0])[0]


def figures(run):
    """What parity.json says."""
    return json.loads(run.store.read_bytes(PARITY_PATH))


@pytest.fixture
def forget(monkeypatch, tmp_path):
    """Nothing is noted on this machine from now on."""
    return lambda: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def wrong_by(monkeypatch, forget):
    """Engines from now on give a first logit that is off by so much, on a machine that knows of none."""
    right = load.load_engine

    def use(offset):
        forget()

        def load_wrong(*arguments, **options):
            engine = right(*arguments, **options)
            forward = engine.forward

            def forward_wrong(batch):
                logits = forward(batch).clone()
                logits[:, 0] += offset
                return logits

            monkeypatch.setattr(engine, "forward", forward_wrong, raising=False)
            return engine

        monkeypatch.setattr(load, "load_engine", load_wrong)

    return use


def test_the_engine_passes(folder, tmp_path):
    """The engine agrees with fp32 on documents of the corpus; parity.json keeps the figures and what they are of."""
    run = plan(folder, tmp_path / "run")
    open_work(run)
    found = figures(run)
    assert found["passed"]
    assert 0 < found["max_abs_difference"] < 1e-4 or found["max_abs_difference"] == 0
    assert found["max_abs_probability_difference"] < 1e-5
    assert found["label_agreement"] == 1.0
    assert 20 <= found["num_documents"] <= 40
    assert found["tolerance"] == {"probability": 1e-4, "logit": 1e-3, "agreement": 0.95}
    assert "cpu" in found["engine"].lower()


@pytest.mark.parametrize("offset", [0.1, float("nan")])
def test_a_wrong_engine_stops_the_run(offset, folder, tmp_path, wrong_by):
    """A wrong engine scores nothing; parity.json says so, and a later try is refused with the same words."""
    wrong_by(offset)
    run = plan(folder, tmp_path / "run")
    with pytest.raises(CheckError, match=r"the parity gate did not hold: on .* documents") as first:
        open_work(run)
    assert "new --run" in str(first.value)
    assert not figures(run)["passed"]
    assert run.part_files() == {}
    again = plan(folder, tmp_path / "run")
    with pytest.raises(CheckError) as second:
        open_work(again)
    assert str(second.value) == str(first.value)


def test_a_gate_that_fails_late_publishes_nothing(folder, tmp_path, wrong_by, monkeypatch):
    """Units are computed beside the gate; the part of none is there before it has passed, nor left half."""
    wrong_by(0.1)
    run = plan(folder, tmp_path / "run")
    computed = threading.Event()
    load_reference = parity.load_reference

    def load_late(*arguments, **options):
        assert computed.wait(60), "the first unit is computed meanwhile"
        return load_reference(*arguments, **options)

    monkeypatch.setattr(parity, "load_reference", load_late)
    work = open_score_work(run, device="cpu", num_threads=1)
    work.load()
    finish = work.finish

    def finish_then_tell(unit, chunks):
        for batch in finish(unit, chunks):
            yield batch
            computed.set()

    monkeypatch.setattr(work, "finish", finish_then_tell)
    first, second, *_ = run.manifest.units()
    with pytest.raises(CheckError, match="the parity gate did not hold"):
        run_unit(run, work, first)
    with pytest.raises(CheckError, match="the parity gate did not hold"):
        run_unit(run, work, second)
    assert run.part_files() == {}
    assert sorted(file.name for file in (tmp_path / "run").rglob("*") if file.is_file()) == [
        PARITY_PATH,
        "run.json",
    ]


def test_what_passed_is_not_measured_again(folder, tmp_path, forget, monkeypatch):
    """Another run of the same documents and files needs no reference; parity.json says where its figures are from."""
    forget()
    first = plan(folder, tmp_path / "first")
    open_work(first)
    monkeypatch.setattr(parity, "load_reference", None)
    second = plan(folder, tmp_path / "second")
    open_work(second)
    (before,), (after,) = read_figures(first), read_figures(second)
    assert after.pop("measured") == EARLIER
    assert "measured" not in before
    assert {**after, "digest": None} == {**before, "digest": None}


@pytest.mark.parametrize(
    "changed", ["documents", "tokenizer_config.json", "weights", "source", "tolerance", "note"]
)
def test_nothing_noted_outlives_a_change(changed, folder, tmp_path, forget, monkeypatch):
    """Other documents, files of the bundle, source files of Assay or tolerances are measured; so is a damaged note."""
    forget()
    copied = shutil.copytree(folder, tmp_path / "copy")
    open_work(plan(copied, tmp_path / "first"))
    settings = {}
    if changed == "documents":
        write_parquet(copied / "data.parquet", ["Another text", *make_texts(20)])
    elif changed == "weights":
        make_classifier(copied / "bundle", seed=1)
    elif changed == "source":
        monkeypatch.setattr(proofs, "_code_state", lambda: "edited")
    elif changed == "tolerance":
        settings["parity_tolerance"] = 0.5
    elif changed == "note":
        for note in (tmp_path / "cache" / "assay" / "proofs").iterdir():
            note.write_text(note.read_text().replace("label_agreement", "label_agrees"))
    else:
        change_json(copied / "bundle" / changed, added=1)
    second = plan(copied, tmp_path / "second", **settings)
    open_work(second)
    (found,) = read_figures(second)
    assert found["passed"]
    assert "measured" not in found


def test_what_failed_is_measured_by_every_run(folder, tmp_path, wrong_by):
    """A failure is kept with its run, and nowhere else."""
    wrong_by(0.1)
    for name in ("first", "second"):
        run = plan(folder, tmp_path / name)
        with pytest.raises(CheckError, match="the parity gate did not hold"):
            open_work(run)
        assert "measured" not in figures(run)


def test_a_later_worker_takes_the_word_of_the_first(folder, tmp_path, wrong_by):
    """The gate is measured once a run, whichever worker comes first."""
    run = plan(folder, tmp_path / "run")
    open_work(run)
    before = figures(run)
    wrong_by(0.1)
    open_work(run)
    assert figures(run) == before


@pytest.mark.parametrize(
    "changed", ["engine", "device", "torch", "transformers", "bundle", "precision", None], ids=str
)
def test_the_word_of_another_start_is_not_taken(changed, folder, tmp_path, wrong_by):
    """Figures that name another engine, device, version, model or precision, or nothing, are measured again."""
    run = plan(folder, tmp_path / "run")
    open_work(run)
    (found,) = read_figures(run)
    if changed is None:
        del found["subject"]
    else:
        found["subject"][changed] = "another"
    run.store.delete(PARITY_PATH)
    write_figures(run, found)
    wrong_by(0.1)
    with pytest.raises(CheckError, match="the parity gate did not hold"):
        open_work(run)
    assert not figures(run)["passed"]
    assert read_figures(run)[1] == found, "what was measured of another kind of worker is kept"


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"{",
        lambda _: b"[" * 100_000,
        lambda found: json.dumps([found]).encode(),
        lambda found: json.dumps({**found, "format_version": 9}).encode(),
        lambda found: json.dumps({**found, "label_agreement": 0.99}).encode(),
        lambda found: json.dumps({"subject": found["subject"], "passed": True}).encode(),
    ],
    ids=["empty", "cut", "deep", "list", "newer", "edited", "short"],
)
def test_a_file_that_no_worker_wrote_is_measured_again(damage, folder, tmp_path, wrong_by):
    """A parity.json that is damaged or edited proves nothing and stops nothing."""
    run = plan(folder, tmp_path / "run")
    open_work(run)
    run.store.replace(PARITY_PATH, damage(figures(run)))
    open_work(run)
    found = figures(run)
    assert found["passed"]
    run.store.replace(PARITY_PATH, damage(found))
    wrong_by(0.1)
    with pytest.raises(CheckError, match="the parity gate did not hold"):
        open_work(run)


def test_a_folder_in_the_place_of_the_file_is_named(folder, tmp_path):
    """It can be neither read nor replaced."""
    run = plan(folder, tmp_path / "run")
    (tmp_path / "run" / PARITY_PATH).mkdir()
    with pytest.raises(SourceError, match=r"parity\.json is a folder; remove it"):
        open_work(run)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"do_lower_case": False}, "by AutoTokenizer, which follows tokenizer_config.json"),
        (
            {
                "added_tokens_decoder": {
                    "8000": {"content": "Document", "normalized": False, "special": False}
                }
            },
            r"token 1 of 'Document of 3' is 'document' \(6254\) by tokenizer.json and 'Document' \(8000\)",
        ),
    ],
)
def test_other_ids_than_those_of_transformers_stop_the_run(changes, match, folder, tmp_path):
    """The reference starts from text: where AutoTokenizer gives other ids, the first one is shown with the way out."""
    copied = shutil.copytree(folder, tmp_path / "copy")
    write_parquet(copied / "data.parquet", ["Document of 3", "a document", None])
    change_json(copied / "bundle" / "tokenizer_config.json", **changes)
    run = plan(copied, tmp_path / "run")
    with pytest.raises(CheckError, match=match) as error:
        open_work(run)
    assert "save_pretrained()" in str(error.value)
    assert "\n" not in str(error.value)
    assert figures(run)["token_difference"]
    open_work(plan(copied, tmp_path / "off", parity_documents=0))


def test_equal_ids_are_told(folder, tmp_path):
    """parity.json says that the texts were compared."""
    run = plan(folder, tmp_path / "run")
    open_work(run)
    assert figures(run)["tokenizer"].startswith("the same ids as transformers on ")
    assert figures(run)["token_difference"] is None


def test_the_tolerance_is_as_set(folder, tmp_path, wrong_by):
    """What --parity-tolerance allows passes, and no more."""
    wrong_by(0.01)
    open_work(plan(folder, tmp_path / "wide", parity_tolerance=0.02))
    with pytest.raises(CheckError, match=r"allowed 0\.001"):
        open_work(plan(folder, tmp_path / "narrow", parity_tolerance=0.001))


def test_the_gate_can_be_turned_off(folder, tmp_path, wrong_by):
    """Without documents to compare nothing is measured."""
    wrong_by(1.0)
    run = plan(folder, tmp_path / "run", parity_documents=0)
    open_work(run)
    assert run.store.info(PARITY_PATH) is None


def test_the_sample_is_of_the_whole_corpus(folder, tmp_path):
    """The sample's documents come from units spread over the corpus, its windows and all, none of them empty."""
    run = plan(folder, tmp_path / "run")
    work, _ = open_work(run)
    scorer = work._finisher()
    sample = take_sample(run.manifest, scorer.encoder, 10).sequences
    units = run.manifest.units()
    assert len(units) == 7
    assert 7 <= sample.num_sequences <= 14
    assert np.diff(sample.offsets).min() >= 1
    nothing = take_sample(run.manifest, scorer.encoder, 0).sequences
    assert nothing.num_sequences == 0


def test_the_sample_leaves_the_work_as_it_was(folder, tmp_path):
    """A run with the gate has the scores of a run without."""
    with_gate = score_here(folder / "data.parquet", folder / "bundle", tmp_path / "a", parity_documents=32)
    without = score_here(folder / "data.parquet", folder / "bundle", tmp_path / "b", parity_documents=0)
    assert read_parts(with_gate).equals(read_parts(without))


def test_a_corpus_without_documents_passes(folder, tmp_path):
    """Where no row has a document there is nothing to compare, and the run goes on to its error codes."""
    write_parquet(tmp_path / "nulls.parquet", [None] * 5)
    run = score_here(tmp_path / "nulls.parquet", folder / "bundle", tmp_path / "run", parity_documents=32)
    assert figures(run)["num_documents"] == 0
    assert read_parts(run)["error"].to_pylist() == ["null"] * 5
    write_parquet(tmp_path / "none.parquet", [])
    empty = score_here(tmp_path / "none.parquet", folder / "bundle", tmp_path / "none", parity_documents=32)
    assert figures(empty)["passed"]


def test_pairs_and_windows_are_compared_as_the_model_gets_them(folder, tmp_path):
    """The gate holds for windows of long documents and for pairs with their token types."""
    texts = make_texts(20)
    write_parquet(tmp_path / "pairs.parquet", texts, other=texts[::-1])
    source, bundle = tmp_path / "pairs.parquet", folder / "bundle"
    pairs = score_here(source, bundle, tmp_path / "pairs", parity_documents=8, text_pair_column="other")
    windows = score_here(source, bundle, tmp_path / "windows", parity_documents=8, on_long="window-max")
    assert figures(pairs)["passed"]
    assert figures(windows)["passed"]
    assert figures(windows)["num_documents"] > 8
