"""A labelled corpus to splits: every row in one place, nothing on two sides, the same on every machine."""

import gzip
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.training import animal_rows, write_base

from assay.cli.main import main
from assay.errors import UsageError
from assay.labelled.near_duplicates import group_by_signatures, group_near_duplicates, signatures_of
from assay.labelled.provenance import text_hashes
from assay.labelled.read import read_labelled
from assay.labelled.settings import LabelledSources
from assay.prepare.labelled import prepare as room
from assay.prepare.labelled.cleaning import clean_text
from assay.prepare.labelled.prepare import prepare_labelled
from assay.prepare.labelled.settings import LabelledSettings
from assay.tasks import Task
from assay.tokenize.encode import Encoder

SPLITS = ("train", "validation", "test")


def sentences(num_rows, *, seed=0):
    """Texts of fifteen words that resemble no other."""
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(3000)}" for _ in range(15)) for _ in range(num_rows)]


@pytest.fixture
def corpus(tmp_path):
    """Writes rows as JSON Lines; texts and labels by default those of 200 different rows."""

    def write(name="rows.jsonl", **columns):
        columns = {"text": sentences(200), "label": ["cat", "dog"] * 100, **columns}
        rows = zip(*columns.values(), strict=True)
        path = tmp_path / name
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def prepare(tmp_path):
    """Prepares sources into `out`; returns the rows of each split, the dropped ones and the report."""

    def run(*sources, out="out", **options):
        settings = LabelledSettings(sources=tuple(map(str, sources)), out=str(tmp_path / out), **options)
        result = prepare_labelled(settings)
        tables = {name: pq.read_table(result.out / f"{name}.parquet").to_pylist() for name in settings.shares}
        return tables, pq.read_table(result.out / "dropped.parquet").to_pylist(), result

    return run


def test_every_row_is_in_one_split_or_dropped_with_its_reason(corpus, prepare):
    """Rows of every kind of defect, beside 200 good ones."""
    texts = sentences(200)
    source = corpus(
        text=[*texts, f" {texts[0]}\r\n", texts[1], "  ", None, "no label here", "cafe\u0301 \x00noir"],
        label=["cat", "dog"] * 100 + ["cat", "cat", "cat", "cat", None, "dog"],
    )
    splits, dropped, result = prepare(source)
    assert {row["source_row"]: row["reason"] for row in dropped} == {
        1: "other_label",
        200: "duplicate",
        201: "other_label",
        202: "too_short",
        203: "null",
        204: "without a label",
    }
    assert [row["kept_source_row"] for row in dropped if row["source_row"] == 200] == [0]
    placed = [row["source_row"] for rows in splits.values() for row in rows]
    assert sorted([*placed, *(row["source_row"] for row in dropped)]) == list(range(206))
    assert "caf\u00e9 noir" in {row["text"] for rows in splits.values() for row in rows}
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 160, "validation": 20, "test": 20}
    assert result.report.num_read == 206
    for rows in splits.values():
        assert [row["source_row"] for row in rows] == sorted(row["source_row"] for row in rows)


def test_no_near_duplicate_and_no_group_crosses(corpus, prepare):
    """Forty texts that nearly repeat another one, and groups of four rows."""
    texts = sentences(160)
    near = [f"{text.rpartition(' ')[0]} changed" for text in texts[:40]]
    groups = [f"author {row // 4}" for row in range(200)]
    source = corpus(text=texts + near, author=groups)
    splits, dropped, _ = prepare(source, group_column="author", validation_share=0.2, test_share=0.2)
    assert dropped == []
    everything = [(name, row) for name, rows in splits.items() for row in rows]
    for key in (
        [row["author"] for _, row in everything],
        group_near_duplicates([row["text"] for _, row in everything]),
    ):
        sides = {}
        for value, (name, _) in zip(key, everything, strict=True):
            sides.setdefault(value, set()).add(name)
        assert all(len(names) == 1 for names in sides.values())
    assert all(len(rows) >= 20 for rows in splits.values())


def test_near_duplicates_are_dropped_or_ignored_on_request(corpus, prepare):
    """The first row of a group stays, whatever its label; that labels differ is said."""
    texts = sentences(100)
    near = [f"{text.rpartition(' ')[0]} changed" for text in texts]
    source = corpus(text=texts + near, label=["cat", "dog"] * 50 + ["cat"] * 100)
    _, dropped, result = prepare(source, near_duplicates="drop")
    assert [(row["source_row"], row["kept_source_row"]) for row in dropped] == [
        (row + 100, row) for row in range(100)
    ]
    assert any("50 dropped near-duplicates have another label" in line for line in result.report.warnings)
    splits, dropped, _ = prepare(source, out="all", near_duplicates="ignore")
    assert dropped == []
    assert sum(map(len, splits.values())) == 200


def test_repeats_and_conflicts_are_kept_on_request(corpus, prepare):
    """Kept repeats lie in one split."""
    texts = sentences(100)
    source = corpus(text=texts + texts, label=["cat", "dog"] * 50 + ["cat"] * 100)
    splits, dropped, result = prepare(source, duplicates="keep", conflicts="keep")
    assert dropped == []
    sides = [{row["text"] for row in rows} for rows in splits.values()]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 100
    assert any(
        "100 rows have the text of a row with another label" in line for line in result.report.warnings
    )


@pytest.mark.parametrize(
    ("task", "labels", "kind"),
    [
        ("multi_label", [["a", "b"], [], ["b"], ["a"]] * 50, pa.list_(pa.string())),
        ("regression", [0.5, 1.5, 2.5, -3.25] * 50, pa.float64()),
        ("single_label", [1, 2, 1, 3] * 50, pa.string()),
    ],
)
def test_what_is_written_reads_back_as_it_was_labelled(corpus, prepare, task, labels, kind):
    """The labels of a split, read by the reader of training, are those of the source rows."""
    source = corpus(label=labels)
    _, _, result = prepare(source, task=task)
    path = result.out / "train.parquet"
    assert pq.read_schema(path).field("label").type == kind
    read = read_labelled([str(path)], LabelledSources(), task=Task(task))
    original = read_labelled([str(source)], LabelledSources(), task=Task(task))
    by_text = dict(zip(original.texts, original.labels, strict=True))
    assert read.num_rows == 160
    assert all(by_text[text] == label for text, label in zip(read.texts, read.labels, strict=True))


def test_pairs_columns_and_token_counts(corpus, prepare, tmp_path):
    """Columns keep the names they had; counts are of the whole text, special tokens included."""
    base = write_base(tmp_path / "base")
    source = corpus(
        name="a.jsonl", id=[f"r{row}" for row in range(200)], text=["cat " * 300, *sentences(199)]
    )
    splits, _, result = prepare(
        source, id_column="id", bundle=str(base), validation_share=0, calibration_share=0.25
    )
    assert set(splits) == {"train", "calibration", "test"}
    row = next(row for rows in splits.values() for row in rows if row["id"] == "r0")
    assert list(row) == ["id", "text", "label", "source_uri", "source_row", "num_tokens"]
    assert row["num_tokens"] >= 302
    assert row["source_uri"] == str(source)
    assert max(counts.longest for counts in result.report.tokens.values()) == row["num_tokens"]
    second = corpus(name="b.jsonl", other=sentences(200, seed=1))
    splits, _, _ = prepare(second, out="pairs", text_pair_column="other")
    assert {"text", "other"} < set(splits["train"][0])


def test_token_ids_are_those_that_scoring_would_make(corpus, prepare, tmp_path):
    """Cut to the length that was asked for; the count beside them is of the whole text, and the text stays whole."""
    base = write_base(tmp_path / "base")
    source = corpus(id=[f"r{row}" for row in range(200)], text=["cat " * 300, *sentences(199)])
    splits, _, _ = prepare(source, id_column="id", bundle=str(base), max_length=32)
    encoder = Encoder.from_bundle(base, max_length=32, on_long="truncate")
    rows = [row for name in SPLITS for row in splits[name]]
    assert len(rows) == 200
    tokens = encoder.encode(pa.array([row["text"] for row in rows]))
    expected = np.split(tokens.flat_ids, tokens.offsets[1:-1])
    assert [row["input_ids"] for row in rows] == [ids.tolist() for ids in expected]
    long = next(row for row in rows if row["id"] == "r0")
    assert (len(long["input_ids"]), long["num_tokens"] > 32, len(long["text"]) > 1000) == (32, True, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "add --bundle"), ({"bundle": "base", "text_pair_column": "other"}, "assay tokenize")],
)
def test_token_ids_that_cannot_be_had(options, said):
    """They need a tokenizer, and of pairs they would not be enough."""
    with pytest.raises(UsageError, match=said):
        LabelledSettings(sources=("a",), out="out", max_length=32, **options).check()


def test_splits_do_not_depend_on_how_rows_are_read(corpus, prepare, monkeypatch):
    """Other batches, compressed or in two files: the same texts in each split; the same file, the same bytes."""
    source = corpus()
    splits, _, first = prepare(source)
    monkeypatch.setattr("assay.data.reading.BATCH_BYTES", 512)
    _, _, again = prepare(source, out="again")
    for name in (*SPLITS, "dropped"):
        assert (first.out / f"{name}.parquet").read_bytes() == (again.out / f"{name}.parquet").read_bytes()
    lines = source.read_bytes().splitlines(keepends=True)
    halves = [source.with_name(f"half-{index}.jsonl.gz") for index in range(2)]
    for half, content in zip(halves, (lines[:70], lines[70:]), strict=True):
        half.write_bytes(gzip.compress(b"".join(content)))
    other, _, _ = prepare(*halves, out="halves")
    assert {name: {row["text"] for row in rows} for name, rows in splits.items()} == {
        name: {row["text"] for row in rows} for name, rows in other.items()
    }


def test_signatures_in_pieces_give_the_groups_of_all_at_once():
    """What is remembered of a text is enough to find its near-duplicates."""
    texts = sentences(60)
    texts += [f"{text.rpartition(' ')[0]} changed" for text in texts[:20]] + texts[:5] + [""]
    pieces = [signatures_of(texts[begin : begin + 7]) for begin in range(0, len(texts), 7)]
    grouped = group_by_signatures(text_hashes(texts), np.concatenate(pieces))
    assert grouped.tolist() == group_near_duplicates(texts)


@given(st.text(), st.sampled_from(["nfc", "nfkc", "as-is"]), st.sampled_from(["trim", "collapse", "as-is"]))
def test_cleaning_twice_is_cleaning_once(text, form, whitespace):
    """And what is clean is in the form that was asked for."""
    cleaned = clean_text(text, unicode_form=form, whitespace=whitespace)
    assert clean_text(cleaned, unicode_form=form, whitespace=whitespace) == cleaned
    if form != "as-is":
        assert unicodedata.is_normalized(form.upper(), cleaned)
    if whitespace != "as-is":
        assert "\r" not in cleaned
        assert cleaned == cleaned.strip()


class TestCommand:
    """`assay prepare labelled` as it is typed."""

    def test_a_rerun_says_that_all_is_done(self, corpus, tmp_path, capsys):
        """Nothing is written again; other settings are refused with both values; --overwrite replaces."""
        source, out = str(corpus()), tmp_path / "out"
        words = ["prepare", "labelled", source, "--out", str(out)]
        assert main(words) == 0
        assert "assay train --data" in capsys.readouterr().out
        before = {path.name: path.stat().st_ino for path in out.iterdir()}
        assert main(words) == 0
        assert "already prepared" in capsys.readouterr().out
        assert {path.name: path.stat().st_ino for path in out.iterdir()} == before
        assert main([*words, "--seed", "1"]) == 3
        line = capsys.readouterr().err.splitlines()[-1]
        assert "seed 0, now 1" in line
        assert "--overwrite" in line
        assert main([*words, "--seed", "1", "--overwrite"]) == 0
        assert {path.name for path in out.iterdir()} == set(before)

    def test_a_dry_run_writes_nothing(self, corpus, tmp_path, capsys):
        """It shows the same report."""
        words = ["prepare", "labelled", str(corpus()), "--out", str(tmp_path / "out")]
        assert main([*words, "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert not (tmp_path / "out").exists()
        assert main(words) == 0
        assert capsys.readouterr().out.splitlines()[:6] == shown.splitlines()[:6]

    @pytest.mark.parametrize(
        ("columns", "flags", "status", "said"),
        [
            ({}, ["--validation-share", "0.6", "--test-share", "0.5"], 2, "must be below 1"),
            ({}, ["--label-column", "text"], 2, "would be written twice"),
            ({"label": [None] * 200}, [], 2, "none of 200 rows can be used (200 without a label)"),
            ({"text": ["same"] * 200, "label": ["cat"] * 200}, [], 2, "leave a split empty: there is one row"),
            ({"text": [" "] * 200}, [], 2, "0 of 200 usable rows are left (200 too short)"),
            ({"label": ["cat"] * 199 + [None]}, ["--strict"], 2, "row 199 (from 0) cannot be used (without a label)"),
            ({"author": ["one"] * 200}, ["--group-column", "author"], 2, "group 'one' has 200 of 200 rows"),
            ({"label": [f"id {row}" for row in range(200)]}, [], 2, "name another one"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_prepared_is_one_line(
        self, corpus, tmp_path, capsys, columns, flags, status, said
    ):
        """With the value, the rule and the way out; nothing is left behind."""
        source = corpus(**columns)
        assert main(["prepare", "labelled", str(source), "--out", str(tmp_path / "out"), *flags]) == status
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("assay: error: ")]
        assert len(errors) == 1
        assert said in errors[0]
        assert ";" in errors[0]
        assert [path.name for path in tmp_path.iterdir()] == [source.name]

    def test_a_folder_of_other_files_is_left_alone(self, corpus, tmp_path, capsys):
        """Even with --overwrite."""
        out = tmp_path / "out"
        out.mkdir()
        (out / "novel.txt").write_text("mine")
        assert main(["prepare", "labelled", str(corpus()), "--out", str(out), "--overwrite"]) == 3
        assert "holds other files" in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == ["novel.txt"]


KILLED = """
import os, signal, sys
from assay.cli.main import main
from assay.prepare.labelled import prepare as room
def killed(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)
room.PrepareReport.to_bytes = killed
main(sys.argv[1:])
"""


def test_a_killed_command_leaves_nothing_under_the_final_name(corpus, tmp_path):
    """Killed once all files are written and none is published: the next try makes it, and removes the rest."""
    source, out = corpus(), tmp_path / "out"
    words = ["prepare", "labelled", str(source), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words], check=False, capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list(tmp_path.glob(".out.tmp-*"))) == 1
    assert main(words) == 0
    assert list(tmp_path.glob(".out.tmp-*")) == []
    assert sorted(path.name for path in out.iterdir()) == [
        "dropped.parquet", "prepare.json", "test.parquet", "train.parquet", "validation.parquet",
    ]  # fmt: skip


def test_a_source_that_changes_in_between_is_not_published(corpus, tmp_path, prepare, monkeypatch):
    """The second reading must give the texts of the first."""
    source = corpus()
    decide = room.decide

    def changed(*args):
        made = decide(*args)
        source.write_text(source.read_text().replace("cat", "fox"))
        os.utime(source, (1, 1))
        return made

    monkeypatch.setattr(room, "decide", changed)
    with pytest.raises(Exception, match="changed since the run began"):
        prepare(source)
    assert not (tmp_path / "out").exists()


def test_train_takes_what_was_prepared(tmp_path, capsys):
    """The command that is printed, with a base, trains, validates on its split and finds nothing shared."""
    rows = animal_rows(96, seed=1)
    table = pa.table({"body": [f" {text}\r" for text in rows.texts], "animal": rows.labels})
    pq.write_table(table, tmp_path / "animals.parquet")
    columns = ["--text-column", "body", "--label-column", "animal"]
    out = tmp_path / "prepared data"
    words = ["prepare", "labelled", str(tmp_path / "animals.parquet"), "--out", str(out), *columns]
    assert main([*words, "--near-duplicates", "ignore"]) == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    command = shlex.split(said.removeprefix("next: assay ").split(" --base ")[0])
    base = write_base(tmp_path / "base")
    small = ["--epochs", "1", "--max-length", "16", "--num-threads", "1"]
    assert main([*command, "--base", str(base), "--out", str(tmp_path / "model"), *small]) == 0
    assert "trained on 77 rows, 2 outputs" in capsys.readouterr().out
