"""Settings from flags, config files and defaults: one name each, and nothing taken silently."""

from dataclasses import MISSING, fields

import pytest
from support import commands
from support.commands import VERBS

from assay.cli.flags import field_docs
from assay.errors import UsageError
from assay.score.settings import ScoreSettings

REQUIRED = {"sources": ("a",), "bundle": "b", "run": "r"}
TOML = 'sources = ["a", "c"]\nbundle = "b"\nrun = "r"\n'
YAML = "sources: [a, c]\nbundle: b\nrun: r\n"


def parse(*words, verb="score"):
    """The settings that these words give."""
    return commands.parse(verb, words)


@pytest.fixture
def config(tmp_path):
    """Write a config file and give its path."""

    def write(content, name="config.toml"):
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", VERBS)
def test_every_setting_is_documented_and_reachable(name):
    """Each field of a settings class has a docstring, and a flag or a place under its own name."""
    documents = field_docs(VERBS[name].settings)
    places = {action.dest for action in commands.parser(name)._actions}
    for field in fields(VERBS[name].settings):
        assert documents.get(field.name), f"{name}: {field.name} has no docstring"
        assert field.name in places


def test_no_words_give_the_defaults():
    """What is not given is the default of the settings class, so the API and the command agree."""
    assert parse("a", "--bundle", "b", "--run", "r") == ScoreSettings(**REQUIRED)


def test_flags_around_and_between_sources():
    """Sources are a list, wherever the flags stand; `--flag=value` and `--flag value` are one."""
    wanted = ScoreSettings(sources=("a", "c"), bundle="b", run="r", max_length=9)
    assert parse("a", "c", "--bundle", "b", "--run", "r", "--max-length", "9") == wanted
    assert parse("--bundle=b", "a", "--run=r", "c", "--max-length=9") == wanted


def test_a_list_flag_takes_several_names():
    """`--columns a b` is a tuple of both."""
    assert parse("r", "--out", "o", "--columns", "a", "b", verb="merge").columns == ("a", "b")


@pytest.mark.parametrize(("content", "name"), [(TOML, "c.toml"), (YAML, "c.yaml"), (YAML, "c.yml")])
def test_a_config_file_gives_the_same_settings(config, content, name):
    """TOML and YAML files hold the fields under their own names; the list of sources too."""
    found = parse("--config", config(content, name))
    assert found == ScoreSettings(sources=("a", "c"), bundle="b", run="r")


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(config):
    """Precedence is flag, file, default, setting by setting; flags that are booleans too."""
    file = config(TOML + "max_length = 32\nstride = 4\nstrict = true\ndeduplicate = false\n")
    found = parse("--config", file, "--max-length", "16", "d")
    assert (found.sources, found.max_length, found.stride, found.unit_rows) == (("d",), 16, 4, None)
    assert (found.strict, found.deduplicate) == (True, False)
    found = parse("--config", file, "--no-strict", "--deduplicate")
    assert (found.strict, found.deduplicate) == (False, True)


def test_train_takes_its_config_by_place(config):
    """`assay train FILE` reads the settings from FILE; flags win there too."""
    file = config('data = ["rows.csv"]\nbase = "base"\nout = "model"\nlearning_rate = 1\n')
    found = parse(file, "--out", "other", verb="train")
    assert (found.data, found.base, found.out, found.learning_rate) == (("rows.csv",), "base", "other", 1)


@pytest.mark.parametrize("verb", ["score", "tokenize", "train"])
def test_every_setting_may_stand_in_the_file(config, verb):
    """No field is for flags alone: a file may set each to its own default."""
    settings = VERBS[verb].settings
    lines = []
    for field in fields(settings):
        required = field.default is MISSING
        value = (("x",) if str(field.type).startswith("tuple") else "x") if required else field.default
        if value is not None:
            shown = list(value) if isinstance(value, tuple) else value
            lines.append(f"{field.name} = {str(shown).lower() if isinstance(shown, bool) else repr(shown)}")
    file = config("\n".join(lines))
    assert parse(*([file] if verb == "train" else ["--config", file]), verb=verb)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("max_lenght = 3", "unknown key in {file} max_lenght; did you mean max_length?"),
        ("max-length = 3", "unknown key in {file} max-length; did you mean max_length?"),
        ("zzz = 3", "unknown key in {file} zzz; see the fields of this command's --help"),
        ('max_length = "3"', "max_length in {file} is '3'; it must be a whole number"),
        ("max_length = 3.0", "max_length in {file} is 3.0; it must be a whole number"),
        ("max_length = true", "max_length in {file} is True; it must be a whole number"),
        ("strict = 1", "strict in {file} is 1; it must be true or false"),
        ('strict = "yes"', "strict in {file} is 'yes'; it must be true or false"),
        (
            'parity_tolerance = "x"',
            "parity_tolerance in {file} is 'x'; it must be a number, written as 5.0e-4",
        ),
        (
            'on_long = "cut"',
            "on_long in {file} is 'cut'; it must be one of truncate, head-tail, window-mean, window-max, error",
        ),
        (
            "on_long = [1]",
            "on_long in {file} is [1]; it must be one of truncate, head-tail, window-mean, window-max, error",
        ),
        (
            "on_long = 3",
            "on_long in {file} is 3; it must be one of truncate, head-tail, window-mean, window-max, error",
        ),
        ("text_column = 3", 'text_column in {file} is 3; it must be a string, written as "3"'),
    ],
)
def test_a_wrong_line_of_a_file_is_refused(config, line, shown):
    """An unknown key names the nearest; a value of the wrong type is shown with what it must be."""
    file = config(TOML + line)
    with pytest.raises(UsageError) as caught:
        parse("--config", file)
    assert str(caught.value) == shown.format(file=file)


@pytest.mark.parametrize(
    ("content", "name", "shown"),
    [
        ('sources = "a"', "c.toml", "sources in {file} is 'a'; it must be a list of strings"),
        ("sources = [1]", "c.toml", "sources in {file} is [1]; it must be a list of strings"),
        ("a = = b", "c.toml", "config {file} is not TOML ("),
        (
            "{a: 1}",
            "c.json",
            "config {file} is not TOML (Invalid statement (at line 1, column 1)); name it .yaml if",
        ),
        ("a: [b", "c.yaml", "config {file} is not YAML ("),
        ("a: 2024-99-99", "c.yaml", "config {file} is not YAML ("),
        ("1: x", "c.yaml", "unknown key in {file} 1; "),
        ("- a\n- b", "c.yaml", "config {file} holds list; write key = value lines"),
        ("max_length:", "c.yaml", "max_length in {file} is None; it must be a whole number"),
        ("max_length: 1_0", "c.yaml", "max_length in {file} is '1_0'; it must be a whole number"),
        ("max_length: 010", "c.yaml", "max_length in {file} is '010'; it must be a whole number"),
        ("max_length: 1:30", "c.yaml", "max_length in {file} is '1:30'; it must be a whole number"),
    ],
)
def test_a_file_that_is_no_config_is_refused(config, content, name, shown):
    """What cannot be parsed, or is not a table of settings, is one line with the file and what is wrong."""
    file = config(content, name)
    with pytest.raises(UsageError) as caught:
        parse("--config", file)
    assert str(caught.value).startswith(shown.format(file=file))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    """A missing config file, a folder, and one that is not UTF-8 are named, each once and in plain words."""
    (tmp_path / "c.toml").write_bytes(b"\xff\xfe")
    for file in (tmp_path / "none.toml", tmp_path, tmp_path / "c.toml"):
        with pytest.raises(UsageError, match=r"cannot be read \((?!\[Errno).*\); give a TOML or YAML file"):
            parse("--config", file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.csv", b"text,label\na,b\n"),
        ("rows.jsonl", b'{"text": "a", "label": "b"}\n'),
        ("rows.parquet", b"PAR1\xff\xfe"),
        ("rows.tsv", b"text\tlabel\n"),
        ("none.csv", None),
        ("*.jsonl", None),
    ],
)
def test_rows_in_the_place_of_a_config_are_told_where_to_go(tmp_path, name, content):
    """`assay train data.csv` names the flag for rows, whatever their format, and so do more of them."""
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    for words in ([file], ["--out", "o", file], ["train.toml", file]):
        with pytest.raises(UsageError) as caught:
            parse(*map(str, words), verb="train")
        assert str(caught.value).endswith(f"a config holds settings, rows go to --data: --data {file}")


def test_a_url_of_rows_is_shown_as_it_was_given():
    """With both its slashes, so that it can be copied behind the flag."""
    with pytest.raises(UsageError, match=r"--data s3://bucket/rows\.parquet$"):
        parse("s3://bucket/rows.parquet", verb="train")


def test_a_config_that_is_wrong_is_not_taken_for_rows(config):
    """A file that is called TOML is one."""
    with pytest.raises(UsageError, match=r"is not TOML .*; fix it$"):
        parse(str(config("a = = b")), verb="train")
