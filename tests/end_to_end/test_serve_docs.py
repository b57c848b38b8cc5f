"""What the page on serving tells a reader to type works as it stands there, on a server of a small model."""

import contextlib
import io
import json
import re

import pytest
from support.encoders import make_encoder_folder
from support.models import write_model
from support.pages import ROOT, commands, read_blocks
from support.serving import served

PAGE = ROOT / "docs" / "how-to" / "serve.md"
ADDRESS = "http://127.0.0.1:8000"
OF_AN_ENCODER = "Vectors of an encoder"
BLOCKS = [block for block in read_blocks(PAGE) if block.language in {"console", "python", "json"}]


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """The addresses of servers: of a classifier of the page's two labels, and of an encoder."""
    place = tmp_path_factory.mktemp("docs")
    classifier = write_model(place / "model", labels=("Business", "Sports"))
    with served(classifier) as server, served(make_encoder_folder(place / "encoder", dense=3)) as other:
        yield {False: server.url, True: other.url}


def is_of_an_encoder(block):
    """Whether a block stands in the section on encoders."""
    above = PAGE.read_text(encoding="utf-8").splitlines()[: block.line]
    return [line for line in above if line.startswith("## ")][-1:] == [f"## {OF_AN_ENCODER}"]


def shape(value):
    """A JSON value without its values: names, types, and lists by their first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def test_the_page_runs_as_written(urls, monkeypatch):
    """Each curl line answers in the shape that the page shows; each Python block runs, in order, and prints."""
    import subprocess

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    names, said = {"__name__": "__main__"}, ""
    for block in BLOCKS:
        text = block.text.replace(ADDRESS, urls[is_of_an_encoder(block)])
        if "not run" in block.marks:
            assert "assay serve" in text, block.where
            said = None
        elif block.language == "console":
            for line in text.splitlines():
                said = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", line], capture_output=True, check=True
                ).stdout
                assert json.loads(said), f"{block.where}: {line}"
        elif block.language == "json" and said is None:
            continue  # what an example that is not run would answer
        elif block.language == "json":
            assert shape(json.loads(said)) == shape(json.loads(block.text)), f"{block.where}: {said}"
        else:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, block.where, "exec"), names)  # noqa: S102  our own page
            assert printed.getvalue().strip(), block.where


def test_the_section_on_encoders_is_found():
    """Some blocks are for a server of an encoder, and most are not."""
    of_encoder = sum(map(is_of_an_encoder, BLOCKS))
    assert 5 <= of_encoder < len(BLOCKS) / 2


def test_every_address_of_the_page_is_the_default_one():
    """The address in the examples is where `assay serve model/` listens, and the flags are complete."""
    from assay.serve.settings import ServeSettings

    settings = ServeSettings(bundle="model/")
    assert f"http://{settings.host}:{settings.port}" == ADDRESS
    assert set(re.findall(r"http://[\w.:]+", PAGE.read_text(encoding="utf-8"))) == {ADDRESS}
    assert [line for block in BLOCKS if block.language == "console" for line in commands(block)]
