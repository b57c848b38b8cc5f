"""Bad input through the command line: one line with the value and the way out, the right status, no row lost."""

import datetime as dt
import decimal
import gzip
import json
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import write_bundle
from support.cli import use_fake_workers, use_hosted_workers
from support.models import change_json, write_model

from assay.cli.main import main
from assay.runs.run import open_run


class Assay:
    """The command line in this process, over whatever a test puts into `tmp_path`."""

    def __init__(self, tmp_path, capsys):
        self.folder = tmp_path
        self.bundle = write_bundle(tmp_path / "bundle")
        self.run = tmp_path / "run"
        self._capsys = capsys

    def __call__(self, *words):
        """Exit status, stdout, and the lines on stderr."""
        self._capsys.readouterr()
        status = main([str(word) for word in words])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    def write(self, name, columns, **options):
        """A Parquet file of these columns, an Arrow table or a dictionary."""
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, self.folder / name, **options)
        return self.folder / name

    def score(self, *words, bundle=None):
        """`assay score` with the fake engine."""
        where = ["--bundle", bundle or self.bundle, "--run", self.run]
        return self("score", *words, *where, "--engine", "fake")

    def refused(self, *words, status=2, bundle=None):
        """The one line with which `assay score` refuses, once its status is as expected and no part is there."""
        found, out, lines = self.score(*words, bundle=bundle)
        assert (found, out) == (status, ""), (found, out, lines)
        errors = [line for line in lines if line.startswith("assay: error: ")]
        assert lines[-1:] == errors, lines
        return errors[0].removeprefix("assay: error: ")

    def parts(self):
        """All rows of the run, in order."""
        run = open_run(str(self.run))
        files = [self.run / "parts" / f"{unit.name}.parquet" for unit in run.manifest.units()]
        return pa.concat_tables([pq.read_table(file) for file in files])

    def merged(self, *sources):
        """Verifies against the sources, merges, and gives the merged file of each source."""
        status, out, lines = self("verify", self.run, "--check-sources")
        assert (status, lines) == (0, []), lines
        assert "verified: every row is there exactly once" in out
        status, _, lines = self("merge", self.run, "--out", self.folder / "merged")
        assert (status, lines) == (0, []), lines
        return [self.folder / "merged" / source.name for source in sources]


@pytest.fixture
def assay(tmp_path, capsys):
    """The command line and a bundle whose weights nobody reads."""
    before = signal.getsignal(signal.SIGTERM)
    yield Assay(tmp_path, capsys)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def score_workers(monkeypatch, score_worker_host):
    """Real workers without the seconds that each takes to start."""
    use_hosted_workers(monkeypatch.setattr, host=score_worker_host)


@pytest.fixture
def fake_workers(monkeypatch, worker_host):
    """Workers that start in milliseconds; they read rows as real ones do, and know no model."""
    use_fake_workers(monkeypatch.setattr, host=worker_host)


# ------------------------------------------------------------ columns


def test_a_missing_column(assay):
    """The nearest names and all columns are shown, and the flag to set; nothing is written."""
    file = assay.write("a.parquet", {"id": [1], "txt": ["a"], "texts": ["b"], "doc": [{"body": "c"}]})
    assert assay.refused(file) == (
        f"{file} has no column 'text'; nearest: 'texts', 'txt'. Columns: id, txt, texts, doc.body. "
        "Set --text-column."
    )
    assert "has no column 'doc.bodi'; nearest: 'doc.body'" in assay.refused(file, "--text-column", "doc.bodi")
    assert assay.refused(file, "--text-column", "txt", "--id-column", "key").endswith(". Set --id-column.")
    assert assay.refused(file, "--input-ids-column", "ids").endswith(". Set --input-ids-column.")
    assert not assay.run.exists()


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1, 2], "int64"), ([0.5, 1.5], "double"), ([True, False], "bool"), ([["a"], ["b"]], "list<")],
)
def test_a_text_column_that_holds_no_text(assay, values, kind):
    """Its name, its type and what it must be are in the line."""
    file = assay.write("a.parquet", {"text": values})
    error = assay.refused(file)
    assert str(file) in error
    assert "'text'" in error
    assert kind in error
    assert not assay.run.exists()


def test_token_ids_that_are_no_lists(assay):
    """A column for --input-ids-column must hold lists of integers."""
    file = assay.write("a.parquet", {"text": ["a"], "ids": ["1 2 3"]})
    assert "'ids'" in assay.refused(file, "--input-ids-column", "ids")


# ------------------------------------------------------------ texts


def test_texts_that_are_bad_or_odd(assay):
    """Null, no text and no UTF-8 become rows with codes; empty, blank and huge texts are scored like others.

    Parquet and JSON Lines in one run; verify holds and the merged files have every row in its place.
    """
    huge = ("document of 7 " * 750_000)[: 10 << 20]
    binary = [
        b"document 1",
        None,
        b"",
        b" \t\n ",
        huge.encode(),
        b"caf\xe9",
        b"\xed\xa0\x80",
        "naïve 🙂".encode(),
        b"\0",
    ]
    parquet = assay.write("a.parquet", {"id": [f"p{row}" for row in range(9)], "text": binary})
    texts = ["document 1", None, "", " \t\n ", huge, "\ud83d", 7, {"a": 1}, "naïve 🙂"]
    lines = [json.dumps({"id": f"j{row}", "text": text}) for row, text in enumerate(texts)]
    lines += ["{", "[1]", '{"id": "j11"}', '{"id": "j12", "text": "caf\\u00e9", "more": 1}']
    content = "\n".join(lines).encode() + b'\n{"id": "j13", "text": "caf\xe9"}\n'
    (assay.folder / "b.jsonl").write_bytes(content)

    status, out, _ = assay.score(parquet, assay.folder / "b.jsonl")
    assert status == 0
    assert "11 rows got an error code" in out
    scored = assay.parts()
    good = None
    assert scored["error"].to_pylist() == [
        *(good, "null", good, good, good, "not_utf8", "not_utf8", good, good),
        *(good, "null", good, good, good, "not_utf8", "not_text", "not_text", good),
        *("not_json", "not_json", "null", good, "not_utf8"),
    ]
    for row in scored.to_pylist():
        assert (row["probability"] is None) == (row["error"] is not None)
        assert (row["num_tokens"] == 0) == (row["error"] is not None)
    assert scored["num_tokens"].to_pylist()[:5] == [4, 0, 2, 2, 64]
    assert scored["truncated"].to_pylist()[4] is True
    # The same text has the same score, whatever the format and the neighbours.
    probabilities = scored["probability"].to_pylist()
    for left, right in ((0, 9), (2, 3), (2, 11), (4, 13), (7, 17)):
        assert probabilities[left] == probabilities[right]

    first, second = assay.merged(parquet, assay.folder / "b.jsonl")
    table = pq.read_table(first)
    assert table["text"].to_pylist() == binary
    assert table["error"].to_pylist() == scored["error"].to_pylist()[:9]
    rows = [line for line in second.read_bytes().split(b"\n") if line]
    assert len(rows) == 14
    assert json.loads(rows[8])["prediction"] == scored["prediction"][17].as_py()

    status, out, _ = assay("verify", assay.run)
    assert "23 in, 23 out, 11 of them with an error code" in out
    assert assay("report", assay.run)[0] == 0
    html = (assay.run / "report.html").read_text()
    assert all(code in html for code in ("null", "not_utf8", "not_text", "not_json"))


def test_strict_stops_at_a_bad_row(assay):
    """--strict ends with status 2 and names row, source and code; another run without it scores the rest."""
    texts = ["document 1", "of", None, "of", None]
    file = assay.write("corpus/a.parquet", {"text": texts})
    error = assay.refused(file, "--strict")
    assert error.endswith(
        "row 2 of source a is bad (null); --strict stops here; fix it, or leave "
        "--strict out to give it an error code; both need another --run"
    )
    assay.run = assay.folder / "other"
    assert assay.score(file)[0] == 0
    assert assay.parts()["error"].to_pylist() == [None, None, "null", None, "null"]


def test_long_texts_under_the_policy_error(assay):
    """--on-long error gives long documents a code and scores the rest; with --strict it names the first."""
    file = assay.write("a.parquet", {"text": ["of", "of " * 100, "document"]})
    error = assay.refused(file, "--on-long", "error", "--strict")
    assert "row 1 of source a is bad (too_long); " in error
    assay.run = assay.folder / "other"
    assert assay.score(file, "--on-long", "error")[0] == 0
    assert assay.parts()["error"].to_pylist() == [None, "too_long", None]
    assay.merged(file)


def test_a_model_that_gives_nan(assay):
    """Rows without a finite score get the code `not_finite`; the rest are scored; verify holds."""
    bundle = write_model(assay.folder / "model", nan_word="37")
    file = assay.write("a.parquet", {"text": ["of 1", "of 37", "document", "37 37", None]})
    options = ["--bundle", bundle, "--run", assay.run]
    status, _, lines = assay("score", file, *options, "--parity-documents", "0")
    assert status == 0, lines
    scored = assay.parts()
    assert scored["error"].to_pylist() == [None, "not_finite", None, "not_finite", "null"]
    assert [value is None for value in scored["probability"].to_pylist()] == [False, True, False, True, True]
    assay.merged(file)


# ------------------------------------------------------------ files


def test_a_parquet_file_cut_short(assay):
    """Named, status 2, wherever it is cut; the good file beside it changes nothing."""
    good = assay.write("in/a.parquet", {"text": ["of"] * 1000})
    whole = assay.write("in/b.parquet", {"text": [f"of {row}" for row in range(1000)]}).read_bytes()
    for size in (0, 3, 8, len(whole) // 2, len(whole) - 1):
        (good.parent / "b.parquet").write_bytes(whole[:size])
        error = assay.refused(good.parent)
        assert "b.parquet" in error, error
        assert not assay.run.exists()
    (good.parent / "b.parquet").write_bytes(whole)
    assert assay.score(good.parent)[0] == 0


def test_a_parquet_file_with_a_damaged_page(assay, fake_workers):
    """A whole footer over damaged data fails while reading: status 2, the file named; other units stay."""
    good = assay.write("in/a.parquet", {"text": [f"of {row}" for row in range(1000)]})
    bad = assay.write(
        "in/b.parquet",
        {"text": [f"of {row}" for row in range(5000)]},
        compression="zstd",
        use_dictionary=False,
    )
    content = bytearray(bad.read_bytes())
    content[100:3000] = bytes(2900)
    bad.write_bytes(bytes(content))
    error = assay.refused(good.parent)
    assert "b.parquet" in error
    whole = assay.write(
        "in/b.parquet",
        {"text": [f"of {row}" for row in range(5000)]},
        compression="zstd",
        use_dictionary=False,
    )
    assert assay.score(whole.parent)[0] == 0
    assert assay.parts().num_rows == 6000


def test_a_gzip_file_cut_short(assay):
    """Truncated and damaged JSON Lines in gzip are named, status 2, nothing written; fixed they are scored."""
    lines = "".join(json.dumps({"id": row, "text": f"of {row}"}) + "\n" for row in range(3000))
    whole = gzip.compress(lines.encode())
    file = assay.folder / "a.jsonl.gz"
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (whole[: len(whole) // 2], whole[:-4], bytes(damaged), b"no gzip at all", whole[:5]):
        file.write_bytes(content)
        assert "a.jsonl.gz" in assay.refused(file)
        assert not assay.run.exists()
    file.write_bytes(whole)
    status, out, _ = assay.score(file, "--dry-run")
    assert (status, "1 with 3,000 rows to do" in out) == (0, True)


def test_no_sources(assay):
    """A glob without a match, an empty folder, a missing file, an empty name and an unknown ending are named."""
    (assay.folder / "empty").mkdir()
    (assay.folder / "a.xyz").write_text("x")
    for pattern, shown in (
        (assay.folder / "*.parquet", "no sources in "),
        (assay.folder / "empty", "is an empty folder or does not exist"),
        (assay.folder / "none.parquet", "none.parquet does not exist"),
        (assay.folder / "a.xyz", "a.xyz is not in a known format"),
    ):
        error = assay.refused(pattern)
        assert shown in error
        assert "; " in error, "a way out"
    (assay.folder / "config.toml").write_text("sources = []\n")
    assert "no sources in an empty list" in assay.refused("--config", assay.folder / "config.toml")
    assert "format 'xml' is not known" in assay.refused(assay.folder / "a.xyz", "--format", "xml")
    assert not assay.run.exists()


def test_no_rows(assay, fake_workers):
    """Sources without rows make a whole run: empty row groups, empty files, and merged files of no rows."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    empty = assay.write("in/a.parquet", schema.empty_table())
    groups = assay.folder / "in" / "b.parquet"
    rows = pa.table({"id": [1, 2, 3], "text": ["of", None, "of"]}, schema)
    with pq.ParquetWriter(groups, schema) as writer:
        for table in (schema.empty_table(), rows.slice(0, 2), schema.empty_table(), rows.slice(2)):
            writer.write_table(table)
    assert pq.ParquetFile(groups).metadata.num_row_groups == 4
    assert assay.score(empty.parent, "--unit-rows", "2")[0] == 0
    assert assay.parts()["error"].to_pylist() == [None, "null", None]
    first, second = assay.merged(empty, groups)
    assert pq.read_metadata(first).num_rows == 0
    assert pq.read_table(second)["id"].to_pylist() == [1, 2, 3]
    assert pq.read_metadata(second).num_row_groups == 4
    assert pq.read_schema(first).names == pq.read_schema(second).names
    assert assay("report", assay.run)[0] == 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_run_of_no_rows_at_all(assay, fake_workers, name):
    """One source without a row is scored, verified, merged and reported on like any other."""
    file = assay.folder / name
    if name.endswith(".parquet"):
        assay.write(name, pa.table({"text": pa.array([], pa.string())}))
    else:
        file.write_text("text,more\n" if name.endswith(".csv") else "")
    assert assay.score(file)[0] == 0
    assert assay.parts().num_rows == 0
    assert assay.merged(file)[0].exists()
    assert assay("status", assay.run)[0] == 0
    assert assay("report", assay.run)[0] == 0


# ------------------------------------------------------------ names and ids


def test_two_sources_with_one_name(assay, fake_workers):
    """The same file name in two folders is two sources, kept apart to the end; one file twice is refused."""
    first = assay.write("x/data.parquet", {"id": [1, 2], "text": ["of", "of 1"]})
    second = assay.write("y/data.parquet", {"id": [3], "text": ["document"]})
    assert "is named twice; each row is scored once: name it once" in assay.refused(first, second, first)
    assert not assay.run.exists()
    assert assay.score(first, second)[0] == 0
    assert assay("verify", assay.run, "--check-sources")[0] == 0
    assert assay("merge", assay.run, "--out", assay.folder / "merged")[0] == 0
    files = sorted((assay.folder / "merged").rglob("*.parquet"))
    assert sorted(pq.read_table(file)["id"].to_pylist() for file in files) == [[1, 2], [3]]


def test_names_that_file_systems_dislike(assay, fake_workers):
    """Spaces, quotes, dots and letters of other scripts in file names become parts and merged files."""
    for number, name in enumerate(
        ["a b.parquet", "ä'\"ö.parquet", "文書.parquet", "x.y.z.parquet", "x.y.parquet"]
    ):
        assay.write(f"in/{name}", {"id": [number], "text": ["of"]})
    assert assay.score(assay.folder / "in")[0] == 0
    assert sorted(assay.parts()["id"].to_pylist()) == [0, 1, 2, 3, 4]
    assert assay("verify", assay.run, "--check-sources")[0] == 0
    assert assay("merge", assay.run, "--out", assay.folder / "merged")[0] == 0
    assert len(sorted((assay.folder / "merged").rglob("*.parquet"))) == 5


def test_ids_that_occur_twice(assay, fake_workers):
    """They are scored, counted by `verify --duplicates`, merged by place; --unique-ids refuses them."""
    first = assay.write("a.parquet", {"id": ["x", "y", "x", None, None], "text": ["of"] * 5})
    second = assay.write("b.parquet", {"id": ["y", "z"], "text": ["of"] * 2})
    assert assay.refused(first, second, "--unique-ids", "--dry-run").startswith("2 rows repeat an id")
    assert assay.score(first, "--dry-run")[0] == 0
    error = assay.refused(first, second, "--unique-ids")
    assert error.startswith("2 rows repeat an id, for example ")
    assert error.endswith("; --unique-ids refuses that; fix the ids, or leave --unique-ids out")
    assert not assay.run.exists()
    assert assay.score(first, second)[0] == 0
    status, out, _ = assay("verify", assay.run, "--duplicates")
    assert status == 0
    assert "repeats  2 rows have an id that an earlier row has too" in out
    status, out, _ = assay("verify", assay.run, "--duplicates", "--json")
    assert (json.loads(out)["duplicate_ids"], json.loads(out)["holds"]) == (2, True)
    assert pq.read_table(assay.merged(first, second)[0])["id"].to_pylist() == ["x", "y", "x", None, None]


IDS = {
    "int8": pa.array([1, -2, None], pa.int8()),
    "uint64": pa.array([0, 2**64 - 1, None], pa.uint64()),
    "float": pa.array([0.5, float("nan"), float("nan")], pa.float64()),
    "bool": pa.array([True, False, None]),
    "string": pa.array(["", "naïve", None]),
    "large_string": pa.array(["", "b", None], pa.large_string()),
    "string_view": pa.array(["", "b" * 50, None], pa.string_view()),
    "dictionary": pa.array(["x", "x", None]).dictionary_encode(),
    "binary": pa.array([b"\xff", b"", None]),
    "date": pa.array([dt.date(2024, 2, 29), dt.date(1, 1, 1), None]),
    "timestamp": pa.array([0, 2**53 + 1, None], pa.timestamp("ns", "UTC")),
    "time": pa.array([dt.time(1, 2, 3), dt.time(0), None], pa.time64("us")),
    "decimal": pa.array([decimal.Decimal("1.50"), decimal.Decimal("-0.01"), None], pa.decimal128(20, 2)),
    "fixed": pa.array([b"0123456789abcdef"] * 2 + [None], pa.binary(16)),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_pass_through_as_they_are_typed(assay, fake_workers, kind):
    """An id of any scalar type has that type in the parts and its value in the merged file, NaN and null too."""
    ids = IDS[kind]
    file = assay.write("a.parquet", {"id": ids, "text": ["of", None, "of 2"]})
    assert assay.score(file)[0] == 0
    scored = assay.parts()
    stored = pq.read_table(file)
    wanted = ids.dictionary_decode() if kind == "dictionary" else ids
    assert scored["id"].type == (wanted.type if kind not in {"dictionary", "string_view"} else pa.string())
    assert repr(scored["id"].to_pylist()) == repr(wanted.to_pylist())
    merged = pq.read_table(assay.merged(file)[0])
    assert merged.schema.field("id").type == stored.schema.field("id").type
    assert repr(merged["id"].to_pylist()) == repr(wanted.to_pylist())


def test_ids_that_are_no_scalars(assay):
    """A list or a struct cannot name a row."""
    for values in ([[1], [2]], [{"a": 1}, {"a": 2}]):
        file = assay.write("a.parquet", {"key": values, "text": ["of", "of"]})
        error = assay.refused(file, "--id-column", "key")
        assert "'key'" in error


def test_ids_of_two_types(assay):
    """One source with numbers and one with strings is refused, both named."""
    first = assay.write("a.parquet", {"id": [1], "text": ["of"]})
    second = assay.write("b.parquet", {"id": ["1"], "text": ["of"]})
    error = assay.refused(first, second)
    assert error == (
        f"ids are int64 in {first} and string in {second}; a run has ids of one type; score them in two runs, "
        "or cast one"
    )


# ------------------------------------------------------------ bundles


def _without_tokenizer(bundle):
    (bundle / "tokenizer.json").unlink()


def _with_a_pickle_only(bundle):
    (bundle / "model.safetensors").unlink()
    (bundle / "model.pkl").write_bytes(b"\x80\x04.")


def _with_a_pickle_alone(bundle):
    for file in bundle.iterdir():
        file.unlink()
    (bundle / "classifier.joblib").write_bytes(b"\x80\x04.")


def _with_remote_code(bundle):
    change_json(bundle / "config.json", auto_map={"AutoModelForSequenceClassification": "evil.Model"})
    (bundle / "evil.py").write_text("raise SystemExit('this code must never run')\n")


def _with_remote_tokenizer_code(bundle):
    change_json(bundle / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})


def _with_labels_that_disagree(bundle):
    change_json(bundle / "config.json", label2id={"ham": 1, "spam": 0})


def _with_a_label_too_few(bundle):
    change_json(bundle / "config.json", id2label={"0": "ham", "2": "spam"}, label2id=None)


def _with_one_label_twice(bundle):
    change_json(bundle / "config.json", id2label={"0": "ham", "1": "ham"}, label2id=None)


def _with_truncated_weights(bundle):
    content = (bundle / "model.safetensors").read_bytes()
    (bundle / "model.safetensors").write_bytes(content[:-1])


def _with_a_pointer_for_weights(bundle):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    (bundle / "model.safetensors").write_text(pointer)


def _without_weights(bundle):
    (bundle / "model.safetensors").unlink()


def _without_a_head(bundle):
    change_json(bundle / "config.json", architectures=["BertModel"])


def _with_a_config_that_is_no_json(bundle):
    (bundle / "config.json").write_text("{")


def _with_a_tokenizer_that_is_none(bundle):
    (bundle / "tokenizer.json").write_text('{"model": "x"}')


def _with_a_calibration_that_is_none(bundle):
    (bundle / "calibration.json").write_text('{"temperature": 0}')


@pytest.mark.parametrize(
    ("spoil", "shown"),
    [
        (_without_tokenizer, "no tokenizer.json"),
        (
            _with_a_pickle_only,
            "model.pkl; pickles can run code and are never loaded; export model.safetensors",
        ),
        (_with_a_pickle_alone, "classifier.joblib; pickles can run code and are never loaded; "),
        (_with_remote_code, "config.json: auto_map asks for remote code; code from a bundle is never run; "),
        (_with_remote_tokenizer_code, "tokenizer_config.json: auto_map asks for remote code; "),
        (_with_labels_that_disagree, "does not match id2label"),
        (_with_a_label_too_few, "they must be 0..1; correct config.json"),
        (_with_one_label_twice, "each needs a name of its own; correct id2label"),
        (
            _with_truncated_weights,
            "bytes that are not a whole safetensors file; the weights must be complete; ",
        ),
        (_with_a_pointer_for_weights, "a Git LFS pointer; the weights must be complete; "),
        (_without_weights, "no model.safetensors; "),
        (_without_a_head, "BertModel has no classification head; "),
        (_with_a_config_that_is_no_json, "config.json: not JSON ("),
        (_with_a_tokenizer_that_is_none, "tokenizer.json: not a tokenizer ("),
        (_with_a_calibration_that_is_none, "calibration.json"),
    ],
    ids=lambda value: getattr(value, "__name__", "").removeprefix("_"),
)
def test_a_bundle_that_cannot_or_must_not_be_used(assay, spoil, shown):
    """Refused with status 2 and what to do, by score, tokenize and doctor alike, before anything is written."""
    file = assay.write("a.parquet", {"text": ["of"]})
    spoil(assay.bundle)
    error = assay.refused(file)
    assert shown in error
    assert str(assay.bundle) in error
    assert not assay.run.exists()
    for words in (
        ["tokenize", file, "--bundle", assay.bundle, "--run", assay.run],
        ["doctor", "--bundle", assay.bundle],
    ):
        status, out, lines = assay(*words)
        assert (status, out, lines) == (2, "", [f"assay: error: {error}"])
    assert not assay.run.exists()


def test_weights_of_another_size(assay):
    """Weights that do not fit the labels of the configuration are refused by the workers, status 2, one line."""
    bundle = write_model(assay.folder / "model")
    labels = {"0": "a", "1": "b", "2": "c"}
    change_json(bundle / "config.json", id2label=labels, label2id={"a": 0, "b": 1, "c": 2})
    file = assay.write("a.parquet", {"text": ["of"]})
    status, _, lines = assay("score", file, "--bundle", bundle, "--run", assay.run)
    assert status == 2
    assert [line for line in lines if line.startswith("assay: error: ")] == lines[-1:]
    assert (
        "holds 2 weights in another shape than config.json asks for (classifier.bias: 2, not 3, " in lines[-1]
    )
    assert "classifier.weight: 2 x 16, not 3 x 16); correct the labels or sizes there" in lines[-1]
    assert not list((assay.run / "parts").glob("*"))


# ------------------------------------------------------------ lengths


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--max-length", "65"], "max_length 65; {bundle} takes 1 to 64 tokens; set --max-length within"),
        (["--max-length", "0"], "max_length is 0; it must be at least 1; change it or leave it out"),
        (["--max-length", "2"], "max_length 2; the tokenizer adds 2 special tokens; use at least 3"),
        (
            ["--on-long", "window-mean", "--max-length", "16", "--stride", "14"],
            "stride 14; windows of 14 tokens must overlap by fewer than that; use 0 to 13",
        ),
        (
            ["--on-long", "window-max", "--stride", "-1"],
            "stride is -1; it must be at least 0; set for example 0",
        ),
        (
            ["--stride", "5"],
            (
                "stride 5; truncate cuts no windows that could overlap; leave it out, or use on_long window-mean or "
                "window-max"
            ),
        ),
        (
            ["--on-long", "window-max", "--text-pair-column", "id"],
            "on_long 'window-max'; it is for single texts, not for pairs; use truncate or error",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["score", "tokenize"])
def test_lengths_that_cannot_be(assay, verb, options, shown):
    """Refused with status 2 and the range before there is a run, so that the fixed command is no other run."""
    file = assay.write("a.parquet", {"id": ["x"], "text": ["of"]})
    status, out, lines = assay(verb, file, "--bundle", assay.bundle, "--run", assay.run, *options)
    assert (status, out) == (2, "")
    assert lines == ["assay: error: " + shown.format(bundle=assay.bundle)]
    assert not assay.run.exists()


def test_stored_token_ids_that_do_not_fit(assay):
    """Ids beyond the vocabulary, empty, null and long rows have codes; the rest is scored."""
    lists = [[2, 7, 3], [], None, [2] * 65, [2, 9, 3]]
    file = assay.write("a.parquet", {"ids": pa.array(lists, pa.list_(pa.int64()))})
    assert assay.score(file, "--input-ids-column", "ids")[0] == 0
    assert assay.parts()["error"].to_pylist() == [None, "no_ids", "null", "too_long", None]
    assay.merged(file)
    other = assay.write("b.parquet", {"ids": pa.array([[2, 70_000, 3]], pa.list_(pa.int64()))})
    assay.run = assay.folder / "other"
    assert assay.score(other, "--input-ids-column", "ids")[0] == 0
    assert assay.parts()["error"].to_pylist() == ["id_out_of_range"]


# ------------------------------------------------------------ shards that show no id


@pytest.mark.parametrize("words", [[], ["--id-column", "id"]], ids=["by default", "named"])
def test_shards_that_show_no_id(assay, fake_workers, words):
    """Empty, header-only and all-null shards beside full ones of whole-number ids: one run, every row in its place."""
    files = {
        "a.jsonl": b'{"id": 1, "text": "a"}\n',
        "b.jsonl": b"",
        "bad.jsonl": b"oops\n",
        "null.jsonl": b'{"id": null, "text": "x"}\n' * 1500 + b'{"id": 7, "text": "y"}\n',
        "c.csv": b"id,text\n2,a\n",
        "d.csv": b"id,text\n",
        "e.csv": b"id,text\n,x\n",
        "z.csv": b"",
    }
    for name, content in files.items():
        (assay.folder / name).write_bytes(content)
    assay.write("p.parquet", {"id": pa.nulls(2), "text": ["p", None]})
    assay.write("q.parquet", {"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())})
    names = sorted([*files, "p.parquet", "q.parquet"], reverse=True)
    sources = [assay.folder / name for name in names]
    status, _, lines = assay.score(*sources, *words, "--unique-ids")
    assert status == 0, lines
    parts = assay.parts()
    assert parts.schema.field("id").type == pa.int64()
    assert sorted(parts["id"].drop_null().to_pylist()) == [1, 2, 7]
    assert parts["id"].null_count == 1500 + 4
    merged = assay.merged(*sources)
    assert b'"_line": "oops"' in merged[names.index("bad.jsonl")].read_bytes()
    status, out, _ = assay("verify", assay.run, "--duplicates")
    assert (status, "0 rows have an id that an earlier row has too" in out) == (0, True)


def test_columns_of_one_name(assay, fake_workers):
    """Two text or id columns are refused in one line; two columns that nobody reads go through, merged too."""
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array([1]), pa.array(["b"])], names=["text", "id", "text"]
    )
    file = assay.write("a.parquet", table)
    assert assay.refused(file).startswith(f"{file} has 2 columns named 'text'")
    file = assay.write(
        "a.parquet", table.rename_columns(["id", "text", "id"]).select([0, 1, 2]), row_group_size=1
    )
    assert "has 2 columns named 'id'" in assay.refused(file, "--text-column", "id")
    columns = [pa.array(["a", "b"]), *(pa.array([number, 9]) for number in range(3))]
    other = pa.Table.from_arrays(columns, names=["text", "id", "x", "x"])
    file = assay.write("b.parquet", other)
    assert assay.score(file)[0] == 0
    (merged,) = assay.merged(file)
    assert pq.ParquetFile(merged).schema_arrow.names[:4] == ["text", "id", "x", "x"]


@pytest.mark.parametrize(
    ("name", "delimiter", "words"),
    [
        ("a.csv", "|", ["--delimiter", "|"]),
        ("a.tsv", "\t", []),
        ("a.csv", ";", []),
        ("a.csv", ":", ["--delimiter=:"]),
    ],
)
def test_delimiters_are_kept(assay, fake_workers, name, delimiter, words):
    """A file with another delimiter is scored, verified and merged with it; run again with another it is refused."""
    file = assay.folder / name
    file.write_bytes(f'id,text\r\n1,"of {delimiter} x"\r\n2,of\r\n'.replace(",", delimiter).encode())
    assert assay.score(file, *words)[0] == 0
    assert assay.parts()["id"].to_pylist() == [1, 2]
    (merged,) = assay.merged(file)
    header, first, *_ = merged.read_bytes().splitlines()
    assert header.startswith(f"id{delimiter}text{delimiter}".encode())
    assert first.startswith(f'1{delimiter}"of {delimiter} x"{delimiter}'.encode())
    status, _, lines = assay.score(
        file, "--delimiter", ",", "--text-column", header.split(b",")[0].decode()[:7]
    )
    assert (status, assay.score(file, *words)[0]) == (2, 0), lines


def test_every_command_that_reads_csv_takes_a_delimiter():
    """Score, tokenize, train, calibrate, evaluate and bench have the setting."""
    from assay.calibrate.settings import CalibrateSettings
    from assay.evaluate.settings import EvaluateSettings
    from assay.score.bench.settings import BenchSettings
    from assay.score.settings import ScoreSettings
    from assay.tokenize.settings import TokenizeSettings
    from assay.train.settings import TrainSettings

    every = (
        ScoreSettings,
        TokenizeSettings,
        TrainSettings,
        CalibrateSettings,
        EvaluateSettings,
        BenchSettings,
    )
    assert all("delimiter" in settings.__dataclass_fields__ for settings in every)
