"""Settings, bundle and sources to the manifest of a scoring run."""

import dataclasses
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle
from support.cli import use_fake_workers
from support.records import score_identity, score_record

from assay.bundle.calibration import save_calibration
from assay.bundle.load import load_bundle
from assay.cli.main import main
from assay.data.sources import Columns, Source
from assay.errors import RefusedError, SourceError, UsageError
from assay.outcome.calibration import Calibration
from assay.runs.cut import cut_sources, id_field
from assay.runs.drive import drive_run
from assay.runs.manifest import new_manifest, parse_manifest
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join
from assay.score.kind import SCORE
from assay.score.plan import other_lengths_of
from assay.score.schema import part_schema
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here, score
from assay.tokenize.plan import plan_tokenize
from assay.tokenize.settings import TokenizeSettings
from assay.tokenize.worker import open_tokenize_work

NUM_SOURCES = 10_000
ROWS_EACH = 100_000


@pytest.fixture(scope="module")
def place_of(tmp_path_factory):
    """A folder with a source of several columns, a second source, and two bundles."""
    folder = tmp_path_factory.mktemp("plan")
    table = pa.table(
        {
            "id": [f"r{row}" for row in range(600)],
            "text": [f"document {row % 100}" for row in range(600)],
            "title": [f"of {row % 100}" for row in range(600)],
            "key": range(600),
            "ids": [[2, 5, 3]] * 600,
        }
    )
    pq.write_table(table, folder / "a.parquet", row_group_size=100)
    pq.write_table(table.slice(0, 300), folder / "b.parquet", row_group_size=100)
    # a text column whichever of the two is the delimiter
    (folder / "c.csv").write_text("text,a;text\nx,y;z\n")
    write_bundle(folder / "bundle")
    write_bundle(folder / "other", weight=1.0)
    return folder


def settings_of(folder, **changes):
    """Settings with `changes` to a plain run."""
    base = {
        "sources": (str(folder / "a.parquet"),),
        "bundle": str(folder / "bundle"),
        "run": str(folder / "run"),
        "engine": "fake",
    }
    return ScoreSettings(**{**base, **changes})


def plan(folder, **changes):
    """The manifest of a plain run with these changes."""
    settings = settings_of(folder, **changes)
    return plan_here(settings)[0]


# ------------------------------------------------------------ the run's identity

CHANGES_A_NUMBER = {
    "sources": lambda folder: (str(folder / "b.parquet"),),
    "bundle": lambda folder: str(folder / "other"),
    "text_column": "title",
    "text_pair_column": "title",
    "id_column": "key",
    "input_ids_column": "ids",
    "max_length": 32,
    "on_long": "head-tail",
    "stride": 4,
    "delimiter": ";",
    "precision": "bf16",
    "plan_for": "cuda",
    "deterministic": True,
    "engine": "padded",
    "limit_rows": 10,
    "parity_share": 0.5,
}
NEEDS = {
    "parity_share": {"precision": lambda _: "bf16", "engine": lambda _: "auto"},
    "stride": {"on_long": lambda _: "window-mean"},
    "delimiter": {"sources": lambda folder: (str(folder / "c.csv"),)},
}
CHANGES_NONE = {
    "run": "elsewhere",
    "format": "parquet",
    "devices": "3",
    "num_threads": 2,
    "max_batch_tokens": 100,
    "deduplicate": False,
    "executor": "static",
    "ray_address": "node:6379",
    "rank": 1,
    "world_size": 4,
    "unit_rows": 7,
    "parity_documents": 0,
    "parity_tolerance": 0.5,
    "strict": True,
    "unique_ids": True,
    "dry_run": True,
}


def test_every_setting_is_accounted_for():
    """Each setting either changes a number or changes none: a new one must be put into one list here."""
    names = {field.name for field in dataclasses.fields(ScoreSettings)}
    assert names == CHANGES_A_NUMBER.keys() | CHANGES_NONE.keys()
    assert not CHANGES_A_NUMBER.keys() & CHANGES_NONE.keys()


@pytest.mark.parametrize("name", CHANGES_A_NUMBER)
def test_what_changes_a_number_makes_another_run(name, place_of):
    """A setting that can change a number or a row changes the run id, and a join says what changed."""
    value = CHANGES_A_NUMBER[name]
    value = value(place_of) if callable(value) else value
    others = {key: choose(place_of) for key, choose in NEEDS.get(name, {}).items()}
    assert plan(place_of, **others, **{name: value}).run_id != plan(place_of, **others).run_id


@pytest.mark.parametrize("name", CHANGES_NONE)
def test_what_changes_no_number_makes_the_same_run(name, place_of):
    """Worker counts, unit sizes and the like are free to change between two tries."""
    assert plan(place_of, **{name: CHANGES_NONE[name]}).run_id == plan(place_of).run_id


def test_a_calibration_makes_another_run(place_of, tmp_path):
    """A bundle that was calibrated again gives other probabilities."""
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "calibration.json").write_text('{"format_version": 1, "temperature": 2.0}')
    calibrated = plan(place_of, bundle=str(bundle))
    assert calibrated.run_id != plan(place_of).run_id
    assert calibrated.arrow_schema().metadata[b"assay.calibration"] == b"temperature"


def test_lengths_other_than_those_of_the_calibration_are_said(place_of, tmp_path):
    """Before the run begins, what the calibration was fitted on and the flags that agree; else nothing is said."""
    bundle = write_bundle(tmp_path / "bundle")
    calibration = Calibration(temperature=2.0, meta={"max_length": 8, "on_long": "truncate"})
    save_calibration(bundle, calibration)
    said = []
    for changes in ({"max_length": 8}, {"max_length": 9}, {"max_length": 8, "on_long": "error"}):
        settings = settings_of(
            place_of, bundle=str(bundle), run=str(tmp_path / "run"), dry_run=True, **changes
        )
        score(settings, on_message=said.append)
    (note,) = said
    assert note.startswith("calibrated on texts of up to 8 tokens under truncate, used here on up to 9 under")
    assert note.endswith("; use --max-length 8 --on-long truncate, or calibrate again")


def test_windows_other_than_those_of_the_calibration_are_said(place_of, tmp_path):
    """A run whose windows overlap otherwise than those of the calibration says so; one that agrees does not."""
    bundle = write_bundle(tmp_path / "bundle")
    meta = {"max_length": 8, "on_long": "window-mean", "stride": 2}
    save_calibration(bundle, Calibration(temperature=2.0, meta=meta))
    for stride, is_said in ((2, False), (3, True)):
        manifest = plan(place_of, bundle=str(bundle), max_length=8, on_long="window-mean", stride=stride)
        assert (other_lengths_of(manifest) is not None) == is_said


def test_a_copy_elsewhere_is_the_same_run(place_of, tmp_path):
    """Where sources and bundle lie is not part of a run: another machine may have them elsewhere."""
    copy = tmp_path / "a.parquet"
    copy.write_bytes((place_of / "a.parquet").read_bytes())
    bundle = write_bundle(tmp_path / "bundle")
    assert plan(place_of, sources=(str(copy),), bundle=str(bundle)).run_id == plan(place_of).run_id


# ------------------------------------------------------------ size


def test_a_billion_rows_are_planned_in_megabytes(place_of):
    """10,000 sources of 100,000 rows: cut, written and read back in little memory, run.json in megabytes."""
    schema = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string())])
    bundle, columns = load_bundle(place_of / "bundle"), Columns()
    tracemalloc.start()
    try:
        sources = [
            Source(
                uri=f"/corpus/2026/part-{number:05}.parquet",
                name=f"part-{number:05}",
                format="parquet",
                size_bytes=200_000_000 + number,
                version=str(1_700_000_000_000_000_000 + number),
                fingerprint=f"{number:032x}",
                num_rows=ROWS_EACH,
                splits=tuple(range(0, ROWS_EACH, 10_000)),
                schema=schema,
                bytes_per_row=2000.0,
            )
            for number in range(NUM_SOURCES)
        ]
        boundaries = cut_sources(
            sources, unit_rows=None, limit_rows=None, max_length=512, tokens_per_second=50_000, num_workers=1
        )
        manifest = new_manifest(
            kind=SCORE,
            assay_version="0",
            identity=score_identity(),
            settings=score_record(),
            columns=columns,
            sources=sources,
            boundaries=boundaries,
            part_schema=part_schema(id_field(sources, columns), bundle),
        )
        content = manifest.model_dump_json(indent=1).encode()
        again = parse_manifest(content, "run.json")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert again == manifest
    units = again.units()
    assert again.planned_rows == NUM_SOURCES * ROWS_EACH
    assert sum(unit.num_rows for unit in units) == NUM_SOURCES * ROWS_EACH
    assert len({unit.name for unit in units}) == len(units)
    assert 100_000 < len(units) < 1_000_000
    assert len(again.schemas) == 1
    assert len(content) < 20_000_000
    assert peak < 200_000_000


# ------------------------------------------------------------ token runs


def tokenize_here(folder, run, *, publish=True, **changes):
    """A tokenize run of the first source, in this process."""
    base = {"sources": (str(folder / "a.parquet"),), "bundle": str(folder / "bundle"), "run": str(run)}
    made, _ = create_or_join(str(run), plan_tokenize(TokenizeSettings(**{**base, **changes})))
    if publish:
        work = open_tokenize_work(made)
        for unit in made.manifest.units():
            run_unit(made, work, unit)
    return made


def test_a_token_run_is_planned_as_its_text(place_of, tmp_path):
    """Tokenizer, limit and policy come from the token run; columns and ids of the part are those of the text."""
    for given in ("tokens", "tokens/", "tokens/parts"):
        tokenize_here(
            place_of, tmp_path / "tokens", on_long="window-max", stride=3, max_length=16, unit_rows=200
        )
        manifest = plan(place_of, sources=(str(tmp_path / given),))
        direct = plan(place_of, on_long="window-max", stride=3, max_length=16)
        assert manifest.identity == direct.identity
        assert manifest.arrow_schema() == direct.arrow_schema()
        assert manifest.planned_rows == 600
        assert manifest.columns.input_ids == "input_ids"


def test_rows_that_were_counted_are_still_row_numbers(place_of, tmp_path, monkeypatch, worker_host):
    """A source without ids, tokenized and scored: the parts say source_row, and --unique-ids has nothing to refuse."""
    for name in ("a", "b"):
        pq.write_table(pa.table({"text": ["of 1", "of 2"]}), tmp_path / f"{name}.parquet")
    tokenize_here(place_of, tmp_path / "tokens", sources=(str(tmp_path / "*.parquet"),))
    settings = settings_of(
        place_of, sources=(str(tmp_path / "tokens"),), run=str(tmp_path / "run"), unique_ids=True
    )
    use_fake_workers(monkeypatch.setattr, host=worker_host)
    result = score(settings)
    assert result.outcome is not None
    schema = result.manifest.arrow_schema()
    assert schema.field(0) == pa.field("source_row", pa.int64(), nullable=False)


@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "intermediate_size"])
def test_a_size_of_zero_in_the_config_does_not_stop_the_plan(place_of, tmp_path, name):
    """Sizes only say how long a unit takes; what the model makes of them is its loader's to say."""
    bundle = write_bundle(tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**config, name: 0}))
    assert plan(place_of, bundle=str(bundle), engine="auto").planned_rows


def test_another_tokenizer_is_refused(place_of, tmp_path, capsys):
    """Token ids of another tokenizer are refused with status 3, and the line says how to go on."""
    tokenize_here(place_of, tmp_path / "tokens")
    other = write_bundle(tmp_path / "bundle")
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["vocab"]["zebra"] = len(content["model"]["vocab"])
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(RefusedError, match=r"was made with tokenizer .* tokenize again with --bundle"):
        plan(place_of, sources=(str(tmp_path / "tokens"),), bundle=str(other))
    words = ["score", str(tmp_path / "tokens"), "--bundle", str(other), "--run", str(tmp_path / "run")]
    assert main([*words, "--engine", "fake"]) == 3
    assert capsys.readouterr().err.splitlines()[-1].startswith("assay: error: ")
    assert not (tmp_path / "run").exists()


def test_longer_documents_than_the_model_takes_are_refused(place_of, tmp_path):
    """Token parts of up to 64 tokens do not go into a model of 32."""
    tokenize_here(place_of, tmp_path / "tokens")
    small = write_bundle(tmp_path / "bundle")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    with pytest.raises(
        RefusedError, match=r"up to 64 tokens, .* takes 32; tokenize again with --max-length 32"
    ):
        plan(place_of, sources=(str(tmp_path / "tokens"),), bundle=str(small))


def test_an_unfinished_token_run_is_refused(place_of, tmp_path):
    """A tokenize run with units left is not a source yet."""
    tokenize_here(place_of, tmp_path / "tokens", publish=False, unit_rows=200)
    with pytest.raises(
        SourceError, match=r"3 of 3 units of the tokenize run .* are not published; finish it first"
    ):
        plan(place_of, sources=(str(tmp_path / "tokens"),))


def test_a_score_run_is_no_source(place_of, tmp_path):
    """Scores are not scored again."""
    create_or_join(str(tmp_path / "run"), plan(place_of))
    with pytest.raises(SourceError, match="is a score run; a source is data or a tokenize run"):
        plan(place_of, sources=(str(tmp_path / "run"),))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_length": 8}, "max_length 8; .* was tokenized with 64; leave --max-length out"),
        (
            {"on_long": "window-mean"},
            "on_long window-mean; .* was tokenized with truncate; leave --on-long out",
        ),
        ({"stride": 5}, "stride 5; .* was tokenized with 0; leave --stride out"),
    ],
)
def test_settings_that_a_token_run_was_not_made_with(changes, said, place_of, tmp_path):
    """A setting that the token parts can no longer follow is refused, not ignored."""
    tokenize_here(place_of, tmp_path / "tokens")
    with pytest.raises(UsageError, match=said):
        plan(place_of, sources=(str(tmp_path / "tokens"),), **changes)
    plan(place_of, sources=(str(tmp_path / "tokens"),), max_length=64, on_long="truncate")


# ------------------------------------------------------------ before anything is created


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_length": 65}, "takes 1 to 64 tokens"),
        ({"max_length": 2}, "use at least 3"),
        ({"on_long": "window-mean", "stride": 62}, "use 0 to 61"),
        ({"on_long": "window-max", "text_pair_column": "title"}, "single texts, not for pairs"),
    ],
)
def test_what_no_worker_could_do_makes_no_run(changes, said, place_of, tmp_path):
    """Settings that the tokenizer cannot follow are refused before run.json is written.

    A run of such settings would refuse the corrected ones as those of another run.
    """
    with pytest.raises(UsageError, match=said):
        score(settings_of(place_of, run=str(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_creates_nothing(place_of, tmp_path):
    """--dry-run plans and leaves no trace."""
    result = score(settings_of(place_of, run=str(tmp_path / "run"), dry_run=True, limit_rows=130))
    assert result.outcome is None
    assert result.manifest.planned_rows == 130
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------ the precision of a run


def test_a_machine_that_joins_takes_the_precision_of_the_run(place_of, tmp_path):
    """`auto` is decided once: a CPU machine joins a run that was planned for GPUs, does its work, and says so."""
    run = str(tmp_path / "run")
    create_or_join(run, plan(place_of, run=run, plan_for="cuda"))
    said = []
    result = score(settings_of(place_of, run=run), on_message=said.append)
    assert result.outcome.units_published == result.outcome.units_total
    assert result.precision == "fp16"
    assert "the run is in fp16, as it was planned; auto would be fp32 here" in said
    with pytest.raises(RefusedError, match="precision was fp16, now fp32"):
        score(settings_of(place_of, run=run, precision="fp32"))


def test_a_run_that_another_machine_creates_meanwhile(place_of, tmp_path, monkeypatch):
    """Two machines start at once and `auto` means two things there: who comes second joins the first."""
    run = str(tmp_path / "run")
    theirs = plan(place_of, run=run, plan_for="cuda")

    def create_first(*arguments, **options):
        create_or_join(run, theirs)
        return drive_run(*arguments, **options)

    monkeypatch.setattr("assay.runs.drive.drive_run", create_first)
    result = score(settings_of(place_of, run=run))
    assert result.manifest.run_id == theirs.run_id
    assert result.outcome.units_published == result.outcome.units_total
