"""The report: one page that says what a run holds, whatever its documents are called."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.records import score_identity, score_record
from support.rendered import Page

from assay.cli.main import main
from assay.cli.status import StatusSettings
from assay.cli.status import run as run_status
from assay.data.sources import Columns, Source
from assay.errors import CheckError, SourceError, UsageError
from assay.runs.figures import write_figures
from assay.runs.manifest import new_manifest
from assay.runs.run import create_or_join, part_path
from assay.score.kind import SCORE
from assay.score.report.report import report
from assay.score.report.tally import Tally, count_parts
from assay.tokenize.kind import TOKENIZE, TokenizeIdentity, TokenizeRecord

START = 1_760_000_000.0
EVIL = "<script>alert('x')</script>"


def source_of(name, num_rows):
    """A source that is planned but never read."""
    return Source(
        uri=f"/data/{name}.parquet",
        name=name,
        format="parquet",
        size_bytes=num_rows * 900 + 1,
        version="1",
        fingerprint="f" * 32,
        num_rows=num_rows,
        splits=(0,),
        offsets=(),
        index_rows=0,
        schema=pa.schema([("id", pa.string()), ("text", pa.string())]),
        bytes_per_row=900.0,
    )


def schema_of(score_fields):
    """The schema of a scored part with these score columns."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("num_tokens", pa.int32()),
            ("truncated", pa.bool_()),
            ("error", pa.string()),
            *score_fields,
        ]
    )


def single_label_schema(labels):
    """The schema of a scored part of a single-label task."""
    scores = [("probability", pa.float32()), *((f"prob_{label}", pa.float32()) for label in labels)]
    return schema_of([("prediction", pa.string()), *scores])


def make_run(url, schema, *, rows_by_source, unit_rows=100, settings=None, identity=None, kind=SCORE):
    """A planned run without parts."""
    sources = [source_of(name, rows) for name, rows in rows_by_source.items()]
    boundaries = [
        tuple(range(0, rows + 1, unit_rows)) if rows else (0, 0) for rows in rows_by_source.values()
    ]
    manifest = new_manifest(
        kind=kind,
        assay_version="0.1.0",
        identity=identity or score_identity(),
        settings=settings or score_record(),
        columns=Columns(),
        sources=sources,
        boundaries=boundaries,
        part_schema=schema,
    )
    run, _ = create_or_join(str(url), manifest)
    return run


def single_label_batch(rng, schema, labels, num_rows, *, first_id=0, error_every=0, ids=None):
    """Random scores, lengths and errors in the layout of a scored part."""
    weights = rng.dirichlet(np.full(len(labels), 0.35), num_rows).astype(np.float32)
    bad = np.zeros(num_rows, bool)
    if error_every:
        bad[::error_every] = True
    lengths = np.minimum(np.exp(rng.normal(4.6, 0.8, num_rows)).astype(np.int32) + 2, 256)
    chosen = weights.argmax(axis=1)
    columns = {
        "id": pa.array(ids or [f"doc-{first_id + row:06}" for row in range(num_rows)]),
        "num_tokens": pa.array(np.where(bad, 0, lengths).astype(np.int32)),
        "truncated": pa.array((lengths == 256) & ~bad),
        "error": pa.array(["null" if row % 2 else "not_utf8" for row in range(num_rows)], mask=~bad),
        "prediction": pa.array([labels[label] for label in chosen], mask=bad),
        "probability": pa.array(weights.max(axis=1), mask=bad),
        **{f"prob_{label}": pa.array(weights[:, c], mask=bad) for c, label in enumerate(labels)},
    }
    return pa.record_batch(
        [columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema
    )


def publish_all(run, make_batch, *, workers=2, seconds=55.0, pause_after=None, pause_seconds=0.0, leave=0):
    """Publish the run's units as `workers` workers would, `seconds` apart."""
    units = run.manifest.units()
    for index, unit in enumerate(units[: len(units) - leave]):
        begun = START + (index // workers) * seconds
        if pause_after is not None and index >= pause_after:
            begun += pause_seconds
        times = iter((begun, begun + seconds * (0.9 + 0.1 * (index % 2))))
        batch = make_batch(unit)
        stats = {
            "num_tokens": 1,
            "duplicate_rows": 3,
            "empty_rows": 1,
            "padded_tokens": 10,
            "device_milliseconds": round(seconds * 800),
            "worker": f"host-{index % workers}",
            "engine": "cpu-packed",
        }
        run.publish(
            unit,
            [batch],
            rows_in=lambda unit=unit: unit.num_rows,
            stats=lambda stats=stats: stats,
            clock=lambda times=times: next(times),
        )


def news_run(
    url, *, labels=("business", "sport"), settings=None, leave=0, rows=1000, unit_rows=100, **options
):
    """A single-label run with random scores."""
    rng = np.random.default_rng(7)
    schema = single_label_schema(labels)
    run = make_run(url, schema, rows_by_source={"news": rows}, unit_rows=unit_rows, settings=settings)
    publish_all(
        run,
        lambda unit: single_label_batch(
            rng, schema, labels, unit.num_rows, first_id=unit.start, error_every=25
        ),
        leave=leave,
        **options,
    )
    return run


def page_of(summary):
    """The page that was written, parsed."""
    with open(summary.path, encoding="utf-8") as file:  # noqa: PTH123  the path is text
        return Page(file.read())


def test_a_report_counts_what_the_parts_hold(tmp_path):
    """Rows, errors, lengths, duplicates and rates on the page are those of the parts."""
    news_run(tmp_path / "run")
    summary = report(str(tmp_path / "run"))
    assert summary.path == f"{tmp_path}/run/report.html"
    assert (summary.rows, summary.rows_total, summary.is_complete) == (1000, 1000, True)
    assert summary.error_rows == 40
    assert summary.duplicate_rows == 30
    assert summary.rows_per_second == pytest.approx(1000 / (5 * 55), rel=0.01)
    assert summary.device_hours == pytest.approx(10 * 44 / 3600)
    assert summary.cost is None
    assert summary.parity_passed is None
    page = page_of(summary)
    assert page.headings[0] == "news, scored by minilm-bbc"
    for text in (
        "2.00%",
        "doc-000000",
        "not_utf8",
        "Complete:",
        summary.run_id,
        "cpu-packed",
        "10 (1.00%)",
    ):
        assert text in page.text
    assert str(summary) == f"{summary.path}: 1,000 rows, 40 with an error code, 3.6 docs/s"


def test_a_page_stands_alone(tmp_path):
    """No scripts, nothing loaded from anywhere, headings in order, a figure's numbers as a table too."""
    news_run(tmp_path / "run")
    page = page_of(report(str(tmp_path / "run")))
    assert "script" not in page.tags
    assert not {"img", "link", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in {"src", "href"} or name.startswith("on")]
    assert page.tags.count("h1") == 1
    assert page.tags.count("table") >= page.tags.count("figure") - 1
    assert ("content", "width=device-width, initial-scale=1") in page.attributes


def test_documents_cannot_write_into_the_page(tmp_path):
    """Ids, labels, source names, settings, codes and footers with markup come out as text."""
    labels = (EVIL, "b\" onload='x'")
    rng = np.random.default_rng(1)
    schema = single_label_schema(labels)
    run = make_run(
        tmp_path / "run",
        schema,
        rows_by_source={"n": 10},
        unit_rows=10,
        settings=score_record(
            bundle=f"/m/{EVIL}",
            labels=labels,
            calibration={
                "method": EVIL,
                "max_length": EVIL,
                "on_long": EVIL,
                EVIL: {EVIL: EVIL},
                "reliability": [{"confidence": EVIL, "accuracy": 1, "count": 2}],
            },
        ),
        identity=score_identity(bundle=EVIL, tokenizer=EVIL),
    )
    unit = run.manifest.units()[0]
    ids = [f"{EVIL}{row}" for row in range(10)]
    batch = single_label_batch(rng, schema, labels, 10, ids=ids, error_every=2)
    errors = pa.array([EVIL if value is not None else None for value in batch.column("error").to_pylist()])
    batch = batch.set_column(batch.schema.get_field_index("error"), "error", errors)
    stats = {"engine": EVIL, "worker": EVIL, "duplicate_rows": EVIL}
    run.publish(unit, [batch], rows_in=lambda: unit.num_rows, stats=lambda: stats)
    write_figures(run, {"passed": EVIL, EVIL: {"x": EVIL}})
    summary = report(run.url)
    page = page_of(summary)
    assert "script" not in page.tags
    assert EVIL in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_an_unfinished_run_says_so(tmp_path):
    """A report of a run under way has a banner with what is missing, and counts the rest."""
    news_run(tmp_path / "run", leave=3)
    summary = report(str(tmp_path / "run"))
    assert not summary.is_complete
    assert summary.rows == 700
    page = page_of(summary)
    assert "This run is not complete." in page.text
    assert "3 of 10 units (300 of 1,000 rows) are not published" in page.text
    assert "not complete" in str(summary)


def test_a_run_without_parts_has_a_report(tmp_path):
    """Nothing published yet, or no rows at all: a page without charts, no error."""
    schema = single_label_schema(("a", "b"))
    make_run(tmp_path / "begun", schema, rows_by_source={"n": 100})
    assert report(str(tmp_path / "begun")).rows == 0
    run = make_run(tmp_path / "empty", schema, rows_by_source={"n": 0})
    run.publish(run.manifest.units()[0], [], rows_in=lambda: 0)
    summary = report(run.url, price_per_hour=1.0)
    assert summary.is_complete
    page_of(summary)


def test_cost_is_worker_hours_at_the_price(tmp_path):
    """Cost is the time that workers had units under way times the price, and so for a million documents."""
    news_run(tmp_path / "run")
    summary = report(str(tmp_path / "run"), price_per_hour=3.6)
    assert summary.worker_hours == pytest.approx(5 * 55 * 1.9 / 3600)
    assert summary.cost == pytest.approx(summary.worker_hours * 3.6)
    assert f"{summary.cost / 1000 * 1e6:,.4g}" in page_of(summary).text


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf"), 1e300, "2.5"])
def test_a_price_is_a_number_of_zero_or_more(tmp_path, price):
    """Other prices are refused before anything is read."""
    with pytest.raises(UsageError, match="price_per_hour is "):
        report(str(tmp_path / "none"), price_per_hour=price)


def test_parity_and_calibration_are_shown(tmp_path):
    """All figures of the gate and the calibration are on the page, with the reliability diagram."""
    reliability = [
        {"confidence": 0.55, "accuracy": 0.5, "count": 20},
        {"confidence": 0.95, "accuracy": 0.97, "count": 180},
    ]
    calibration = {
        "temperature": 1.37,
        "method": "temperature",
        "n_samples": 2000,
        "max_length": 256,
        "on_long": "truncate",
        "nll": 0.31,
        "ece": 0.02,
        "before": {"nll": 0.44, "ece": 0.061},
        "cross_validated": {"nll": 0.32, "f0.5": 0.9, "ece": 0.025},
        "reliability": reliability,
    }
    settings = score_record(calibration=calibration, threshold=0.25, labels=("business", "sport"))
    run = news_run(tmp_path / "run", settings=settings)
    gate = {
        "num_documents": 32,
        "max_abs_difference": 2.5e-5,
        "tolerance": {"probability": 0.0001},
        "subject": {"precision": "fp32"},
        "passed": True,
    }
    write_figures(run, gate)
    summary = report(run.url)
    assert summary.parity_passed is True
    page = page_of(summary)
    gate_facts = (
        "documents compared",
        "allowed difference of a probability",
        "0.0001",
        "2.5e-05",
        "holds for this precision",
    )
    for text in (
        *gate_facts,
        "1.37",
        "2000",
        "threshold of sport",
        "0.2500",
        "Reliability",
        "0.9700",
        "In-sample figures",
    ):
        assert text in page.text
    assert "max_abs" not in page.text
    assert "negative log-likelihood (NLL)" in page.text
    assert ["expected calibration error (ECE)", "0.0610", "0.0200", "0.0250"] in page.cells
    assert "cross_validated.f0.5" in page.text, "all of the file is there, by its own names"
    assert "Take care" not in page.text


def test_lengths_other_than_those_of_the_calibration_are_said(tmp_path):
    """A bundle that was calibrated on texts cut otherwise: the report says so beside the calibration."""
    calibration = {"method": "temperature", "max_length": 128, "on_long": "truncate"}
    run = news_run(tmp_path / "run", settings=score_record(calibration=calibration))
    text = page_of(report(run.url)).text
    assert "Take care: calibrated on texts of up to 128 tokens under truncate, used here on up to 256" in text
    assert "not calibrated" not in text


def test_one_unit_is_no_units(tmp_path):
    """What there is one of is said so."""
    run = news_run(tmp_path / "run", rows=10, unit_rows=10)
    text = page_of(report(run.url)).text
    assert "1 unit is published, none is missing." in text
    assert "1 source, 10 rows" in text


def test_a_failed_gate_is_plain_to_see(tmp_path):
    """A gate that did not pass says NOT passed, at the top too."""
    run = news_run(tmp_path / "run")
    write_figures(run, {"passed": False, "subject": {"device": "cpu"}, "engine": "packed on CPU"})
    write_figures(run, {"passed": True, "subject": {"device": "NVIDIA H100"}, "engine": "packed on a GPU"})
    summary = report(run.url)
    assert summary.parity_passed is False
    text = page_of(summary).text
    assert text.count("NOT passed") == 3  # at the top, beside the heading, and for the worker that it was
    assert text.index("packed on a GPU") < text.index("another kind of worker") < text.index("packed on CPU")


def test_a_folder_in_the_place_of_a_part_is_named(tmp_path):
    """What stands in the way of a part, and what to do, is on the page and in the line; the status is 0."""
    run = news_run(tmp_path / "run", leave=1)
    place = tmp_path / "run" / part_path(run.manifest.units()[-1])
    place.mkdir()
    summary = report(run.url)
    told = f"{place} is in the way and is not a file (a folder, a broken link); remove it"
    assert str(summary).endswith(f"; {told}")
    assert f"{told}." in page_of(summary).text
    assert main(["report", run.url]) == main(["status", run.url]) == 0
    assert main(["verify", run.url]) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"passed": true}', b'{"passed": true, "others": 3, "digest": ""}']
)
def test_a_gate_that_no_worker_wrote_says_nothing(tmp_path, content):
    """A parity.json that was edited or damaged is named as that."""
    run = news_run(tmp_path / "run")
    run.store.create("parity.json", content)
    summary = report(run.url)
    assert summary.parity_passed is None
    assert "not as a worker wrote it" in page_of(summary).text


def multi_label_run(url, labels, rows, *, threshold=None):
    """A run of one unit; each row holds a probability a label and its decided labels, or None for an error."""
    schema = schema_of(
        [("labels", pa.list_(pa.string())), *((f"prob_{label}", pa.float32()) for label in labels)]
    )
    record = score_record(task="multi_label", labels=labels, threshold=threshold)
    run = make_run(url, schema, rows_by_source={"n": len(rows)}, unit_rows=len(rows), settings=record)
    batch = pa.record_batch(
        [
            [f"d{index}" for index in range(len(rows))],
            [5] * len(rows),
            [False] * len(rows),
            pa.array([None if row else "null" for row in rows], pa.string()),
            pa.array([row and row[1] for row in rows], pa.list_(pa.string())),
            *(pa.array([row and row[0][c] for row in rows], pa.float32()) for c in range(len(labels))),
        ],
        schema=schema,
    )
    run.publish(run.manifest.units()[0], [batch], rows_in=lambda: batch.num_rows)
    return run


def test_multi_label_decisions_are_counted_as_they_were_made(tmp_path):
    """Labels count where the parts' `labels` say that they hold, by thresholds of their own, not from 0.5 on."""
    rows = [
        ((0.9, 0.10, 0.2), ["strict"]),
        ((0.7, 0.30, 0.2), ["lax"]),
        None,
        ((0.6, 0.25, 0.2), ["lax"]),
        ((0.8, 0.05, 0.2), ["strict"]),
        ((0.1, 0.21, 0.2), ["lax"]),
        ((0.5, 0.01, 0.2), []),
    ]
    labels = ("strict", "lax", "never")
    run = multi_label_run(tmp_path / "run", labels, rows, threshold=(0.8, 0.2, 0.5))
    tally = count_parts(run)
    assert [tally.decisions[label] for label in labels] == [2, 3, 0]
    others, decided = tally.scores["lax"]
    assert (others.sum(), decided.sum()) == (3, 3)
    assert decided[4:7].tolist() == [1, 1, 1], "0.21, 0.25 and 0.3 are in the bins from 0.2, 0.25 and 0.3 on"
    text = page_of(report(run.url)).text
    assert "Documents by label that holds" in text
    for cell in ("2 (33.33%)", "3 (50.00%)", "0.8000", "0.2000"):
        assert cell in text


def test_a_multi_label_run_without_thresholds_decides_at_one_half(tmp_path):
    """Without a calibration the table names 0.5 as each label's threshold."""
    run = multi_label_run(tmp_path / "run", ("a",), [((0.5,), ["a"]), ((0.49,), []), ((1.0,), ["a"])])
    text = page_of(report(run.url)).text
    assert "0.5000" in text
    assert "2 (66.67%)" in text


def test_many_labels_are_capped(tmp_path):
    """Of many labels those that hold most often are drawn, and the page says so."""
    labels = tuple(f"tag{index}" for index in range(15))
    held = [((0.9,) * 15, list(labels[first:])) for first in range(4)]
    text = page_of(report(multi_label_run(tmp_path / "run", labels, held).url)).text
    assert "12 of 15 labels are drawn, those that hold most often." in text
    assert "Probability of tag0" not in text
    assert "Probability of tag3" in text
    assert "Probability of tag14" in text


def test_the_threshold_of_two_labels_is_beside_them(tmp_path):
    """Of two labels the second is predicted from its threshold on; the table says which that is."""
    record = score_record(labels=("business", "sport"), threshold=0.8125)
    text = page_of(report(news_run(tmp_path / "run", settings=record).url)).text
    assert "0.8125" in text
    assert "threshold" in text


def test_regression_scores(tmp_path):
    """A regression has a histogram of its predictions over their own range."""
    schema = schema_of([("prediction", pa.float32())])
    run = make_run(tmp_path / "run", schema, rows_by_source={"n": 300})
    rng = np.random.default_rng(3)

    def make_batch(unit):
        values = rng.normal(2.5, 1.0, unit.num_rows).astype(np.float32)
        columns = [[f"{unit.start + row}" for row in range(unit.num_rows)], [9] * unit.num_rows]
        return pa.record_batch(
            [
                *map(pa.array, columns),
                pa.array([False] * unit.num_rows),
                pa.nulls(unit.num_rows, pa.string()),
                values,
            ],
            schema=schema,
        )

    publish_all(run, make_batch)
    tally = count_parts(run)
    assert tally.values["prediction"].counts.sum() == 300
    assert "Documents by prediction" in page_of(report(run.url)).text


def test_a_tokenize_run_has_a_report(tmp_path):
    """Token parts have lengths and errors, no scores; windows-long documents are counted too."""
    schema = pa.schema(
        [
            ("source_row", pa.int64()),
            ("input_ids", pa.list_(pa.uint16())),
            ("truncated", pa.bool_()),
            ("error", pa.string()),
        ]
    )
    run = make_run(
        tmp_path / "run",
        schema,
        rows_by_source={"n": 4},
        unit_rows=4,
        kind=TOKENIZE,
        identity=TokenizeIdentity(tokenizer="t", max_length=256, on_long="truncate", stride=0),
        settings=TokenizeRecord(bundle="/models/minilm-bbc", strict=False),
    )
    ids = [[1] * 200_000, [1, 2], [1, 2, 3], []]
    batch = pa.record_batch(
        [pa.array(range(4)), pa.array(ids, pa.list_(pa.uint16())), [False] * 4, [None, None, None, "null"]],
        schema=schema,
    )
    run.publish(run.manifest.units()[0], [batch], rows_in=lambda: batch.num_rows)
    summary = report(run.url)
    assert summary.num_tokens == 200_005
    page = page_of(summary)
    assert page.headings[0] == "n, tokenized for minilm-bbc"
    assert "98,305 to 200,000" in page.text
    assert "Parity gate" not in page.headings
    assert "Scores" not in page.headings


def test_the_fingerprint_and_the_sources_are_listed(tmp_path):
    """Identity, settings and the first fifty sources are on the page."""
    schema = single_label_schema(("a", "b"))
    run = make_run(
        tmp_path / "run", schema, rows_by_source={f"s{index:03}": 10 for index in range(60)}, unit_rows=10
    )
    text = page_of(report(run.url)).text
    assert "60 sources, 600 rows" in text
    assert "the first 50 are listed" in text
    assert "s049" in text
    assert "s050" not in text
    assert "b" * 32 in text


def test_out_names_another_file(tmp_path):
    """`out` is written atomically, its folder made, and nothing else is left beside it."""
    run = news_run(tmp_path / "run")
    summary = report(run.url, out=str(tmp_path / "new" / "page.html"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    assert not (tmp_path / "run" / "report.html").exists()
    assert page_of(summary).headings[0] == "news, scored by minilm-bbc"


@pytest.mark.parametrize("name", ["run.json", "parts/news-0-2.parquet", "other.txt"])
def test_a_page_replaces_no_file_of_its_run(tmp_path, name):
    """Whatever lies in the run but a page, the manifest and parts above all, and its sources; nothing is written."""
    run = news_run(tmp_path / "run")
    before = {path: path.read_bytes() for path in Path(run.url).rglob("*") if path.is_file()}
    for write in (
        lambda out: report(run.url, out=out),
        lambda out: run_status(StatusSettings(run=run.url, html=out)),
    ):
        with pytest.raises(UsageError, match=r"lies in the run and is not a \.html file"):
            write(f"{run.url}/{name}")
        for source in run.manifest.sources:
            if Path(source.uri).exists():
                with pytest.raises(UsageError, match="is a source of the run, and would be replaced"):
                    write(source.uri)
    assert before == {path: path.read_bytes() for path in Path(run.url).rglob("*") if path.is_file()}


def test_there_must_be_a_run(tmp_path):
    """A directory without run.json is refused."""
    with pytest.raises(SourceError, match="holds no run"):
        report(str(tmp_path))


def test_a_damaged_part_is_named(tmp_path):
    """A part with flipped bytes, or that is not Parquet, stops the report and is named with the way out."""
    run = news_run(tmp_path / "run")
    unit = run.manifest.units()[2]
    content = bytearray(run.store.read_bytes(part_path(unit)))
    content[60] ^= 0xFF
    for damaged in (bytes(content), b"PAR1 not really"):
        run.store.replace(part_path(unit), damaged)
        with pytest.raises(CheckError, match=rf"{re.escape(part_path(unit))} cannot be read .* --repair`"):
            report(run.url)


def test_a_part_of_another_unit_is_not_counted(tmp_path):
    """A part that is not its unit's stops the report: else some rows would count twice and others never."""
    run = news_run(tmp_path / "run")
    first, second = run.manifest.units()[:2]
    run.store.replace(part_path(first), run.store.read_bytes(part_path(second)))
    with pytest.raises(CheckError, match=rf"{re.escape(part_path(first))}: assay.unit is .* --repair`"):
        report(run.url)


def test_counts_do_not_depend_on_threads(tmp_path):
    """One thread or many: the same counts and the same examples, in unit order."""
    run = news_run(tmp_path / "run")
    one, many = count_parts(run, num_threads=1), count_parts(run, num_threads=7)
    assert one.examples == many.examples
    assert one.examples["not_utf8"][0] == "doc-000000"
    assert one.decisions == many.decisions
    assert one.errors == many.errors
    assert (one.lengths == many.lengths).all()
    assert all((one.scores[label] == many.scores[label]).all() for label in one.scores)
    assert one.num_tokens == many.num_tokens


def test_memory_does_not_grow_with_rows(tmp_path):
    """Counting ten times the rows takes no more Python memory and no more Arrow memory."""
    peaks = []
    for rows in (20_000, 200_000):
        run = news_run(tmp_path / str(rows), rows=rows, unit_rows=20_000)
        count_parts(run, num_threads=1)
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        count_parts(run, num_threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pa.total_allocated_bytes() <= before + 1_000_000
    assert peaks[1] < 1.3 * peaks[0] + 500_000


def test_error_codes_are_capped():
    """Past fifty codes the rest is counted under one name, without losing a row."""
    tally = Tally()
    for code in range(80):
        tally.count_error(f"code{code}", 2)
    assert len(tally.errors) == 51
    assert tally.error_rows == 160
