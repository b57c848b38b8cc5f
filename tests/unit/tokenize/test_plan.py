"""Settings, tokenizer and sources to the manifest of a tokenize run."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle
from support.siamese import make_siamese_folder

from assay.bundle.load import load_bundle
from assay.errors import BundleError, RefusedError, SourceError, UsageError
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join
from assay.tokenize.kind import TOKENIZE, TokenizeIdentity
from assay.tokenize.plan import (
    find_token_run,
    other_lengths,
    plan_tokenize,
)
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.verb import tokenize
from assay.tokenize.worker import open_tokenize_work


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A source of two text columns and two bundles that share a tokenizer."""
    folder = tmp_path_factory.mktemp("plan")
    texts = [f"document {row % 100}" for row in range(500)]
    table = pa.table({"id": range(500), "text": texts, "title": texts, "key": texts})
    pq.write_table(table, folder / "a.parquet", row_group_size=100)
    pq.write_table(table.slice(1), folder / "b.parquet")
    # a text column whichever of the two is the delimiter
    (folder / "c.csv").write_text("id,text,a;text\n1,x,y;z\n")
    write_bundle(folder / "bundle")
    write_bundle(folder / "other", weight=1.0)
    return folder


def plan(folder, **changes):
    """The manifest of a plain tokenize run with these changes."""
    base = {
        "sources": (str(folder / "a.parquet"),),
        "bundle": str(folder / "bundle"),
        "run": str(folder / "run"),
    }
    known = {key: value(folder) if callable(value) else value for key, value in changes.items()}
    return plan_tokenize(TokenizeSettings(**{**base, **known}))


CHANGES_AN_ID = {
    "sources": lambda folder: (str(folder / "b.parquet"),),
    "text_column": "title",
    "text_pair_column": "title",
    "id_column": "key",
    "max_length": 32,
    "on_long": "head-tail",
    "stride": 4,
    "limit_rows": 10,
    "delimiter": ";",
}
NEEDS = {
    "stride": {"on_long": "window-mean"},
    "delimiter": {"sources": lambda folder: (str(folder / "c.csv"),)},
}
CHANGES_NONE = {
    "bundle": lambda folder: str(folder / "other"),
    "run": "elsewhere",
    "format": "parquet",
    "devices": "3",
    "num_threads": 2,
    "executor": "static",
    "ray_address": "node:6379",
    "rank": 1,
    "world_size": 4,
    "unit_rows": 7,
    "strict": True,
    "dry_run": True,
}


def test_every_setting_is_accounted_for():
    """Each setting either changes a token id or a row, or changes none; another model's weights change none."""
    names = {field.name for field in dataclasses.fields(TokenizeSettings)}
    assert names == CHANGES_AN_ID.keys() | CHANGES_NONE.keys()


@pytest.mark.parametrize("name", [*CHANGES_AN_ID, *CHANGES_NONE])
def test_the_run_id(name, folder):
    """The run id changes with what changes a token id or a row, and with nothing else."""
    changed = {name: {**CHANGES_AN_ID, **CHANGES_NONE}[name]}
    others = NEEDS.get(name, {})
    is_same = plan(folder, **others, **changed).run_id == plan(folder, **others).run_id
    assert is_same == (name in CHANGES_NONE)


def test_the_columns_of_a_token_part(folder):
    """The id, the ids as the smallest integers, whether it was cut, the code; a pair's second segment too."""
    names = ["id", "input_ids", "truncated", "error"]
    assert plan(folder).arrow_schema().names == names
    assert plan(folder).arrow_schema().field("input_ids").type.value_type == pa.uint16()
    paired = plan(folder, text_pair_column="title").arrow_schema()
    assert paired.names == [*names[:2], "second_start", *names[2:]]


def test_how_the_parts_were_made_is_read_back(folder, tmp_path):
    """A run that is found again says how its ids were made, by its folder, its parts, or with a slash."""
    manifest = plan(folder, on_long="window-mean", stride=3, max_length=20)
    run, _ = create_or_join(str(tmp_path / "run"), manifest)
    work = open_tokenize_work(run)
    for unit in run.manifest.units():
        run_unit(run, work, unit)
    for name in ("run", "run/", "run/parts", "run/parts/"):
        found = find_token_run([str(tmp_path / name)])
        identity, _ = found.manifest.read(TOKENIZE)
        assert identity == TokenizeIdentity(
            tokenizer=identity.tokenizer, max_length=20, on_long="window-mean", stride=3
        )
        assert identity.tokenizer == load_bundle(folder / "bundle").tokenizer_fingerprint


def test_what_is_no_run_is_data(folder, tmp_path):
    """Files, folders, globs and several sources are data, not runs."""
    for patterns in (
        [str(folder / "a.parquet")],
        [str(folder)],
        [str(folder / "*.parquet")],
        [str(folder), str(folder)],
        [str(tmp_path / "missing")],
    ):
        assert find_token_run(patterns) is None


def test_an_unfinished_run_is_refused(folder, tmp_path):
    """Units that are not published would be documents without scores."""
    create_or_join(str(tmp_path / "run"), plan(folder, unit_rows=100))
    with pytest.raises(SourceError, match="5 of 5 units"):
        find_token_run([str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_length": 65}, "takes 1 to 64 tokens"),
        ({"on_long": "window-mean", "stride": 62}, "use 0 to 61"),
        ({"on_long": "head-tail", "text_pair_column": "title"}, "single texts, not for pairs"),
        ({"max_length": 3, "text_pair_column": "title"}, "use at least 4"),
    ],
)
def test_what_no_worker_could_do_makes_no_run(changes, said, folder, tmp_path):
    """Settings that the tokenizer cannot follow are refused before run.json is written."""
    settings = TokenizeSettings(
        sources=(str(folder / "a.parquet"),),
        bundle=str(folder / "bundle"),
        run=str(tmp_path / "run"),
        **changes,
    )
    with pytest.raises(UsageError, match=said):
        tokenize(settings)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_changed_since_planning_is_refused(folder, tmp_path):
    """A worker does not mix the ids of two tokenizers in one run."""
    bundle = write_bundle(tmp_path / "bundle")
    run, _ = create_or_join(str(tmp_path / "run"), plan(folder, bundle=str(bundle)))
    open_tokenize_work(run)
    content = json.loads((bundle / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (bundle / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(RefusedError, match="changed since the run was planned"):
        open_tokenize_work(run)


WINDOWED = {"max_length": 256, "on_long": "window-mean", "stride": 32}


@pytest.mark.parametrize(
    ("calibrated", "max_length", "on_long", "stride", "is_said"),
    [
        (None, 256, "truncate", 0, False),
        ({"n_samples": 5}, 256, "truncate", 0, False),
        ({"max_length": 256, "on_long": "truncate"}, 256, "truncate", 0, False),
        ({"max_length": 256, "on_long": "truncate"}, 256, "error", 0, False),
        ({"max_length": 256}, 256, "window-max", 8, False),
        ({"max_length": 256, "on_long": "truncate"}, 512, "truncate", 0, True),
        ({"max_length": 256, "on_long": "truncate"}, 512, "error", 0, True),
        ({"max_length": 256, "on_long": "truncate"}, 256, "window-mean", 0, True),
        ({"max_length": 256, "on_long": "head-tail"}, 256, "truncate", 0, True),
        (WINDOWED, 256, "window-mean", 32, False),
        (WINDOWED, 256, "window-mean", 0, True),
        (WINDOWED, 256, "window-mean", 64, True),
        (WINDOWED, 256, "window-max", 32, True),
        (WINDOWED, 256, "truncate", 0, True),
        (WINDOWED, 256, "error", 0, False),
        ({"max_length": 256, "on_long": "window-max"}, 256, "window-max", 16, False),
        ({"max_length": 256, "on_long": ["window-max"]}, 256, "window-max", 16, True),
    ],
)
def test_other_lengths_than_the_calibrations(calibrated, max_length, on_long, stride, is_said):
    """Another limit, policy for longer texts or overlap of windows; what a calibration does not say is not doubted."""
    said = other_lengths(calibrated, max_length=max_length, on_long=on_long, stride=stride)
    assert (said is not None) == is_said
    assert said is None or "--max-length 256" in said


def test_another_overlap_of_windows_names_the_flag_that_agrees():
    """The sentence says both overlaps, and the flags under which scores are as they were calibrated."""
    said = other_lengths(WINDOWED, max_length=256, on_long="window-mean", stride=64)
    assert "under window-mean with stride 32, used here on up to 256 under window-mean with stride 64" in said
    assert said.endswith("use --max-length 256 --on-long window-mean --stride 32, or calibrate again")


def test_a_siamese_bundle_is_refused_with_what_takes_it(folder, tmp_path):
    """Its texts are encoded one by one, so that ids of pairs are of no use to it."""
    made = make_siamese_folder(tmp_path / "siamese")
    with pytest.raises(
        BundleError, match=r"is Siamese .*; give one, or use assay score, serve, .* with the texts of pairs"
    ):
        plan(folder, bundle=str(made), text_pair_column="title")
