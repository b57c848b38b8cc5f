"""What a file is: `assay score` and the web page see the same rows in it, or both refuse it."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from assay.data.finding import find_sources
from assay.data.reading import read_rows
from assay.data.sources import Columns
from assay.errors import AssayError
from assay.serve.page import FOLDER

SUPPORT = Path(__file__).parents[1] / "support"
CASES = json.loads((SUPPORT / "file_cases.json").read_text(encoding="utf-8"))
"""Name and content of a file; its texts in order, the error code where `errors` has the row; or `refused`."""


def content_of(case):
    """The bytes of a file."""
    if "base64" in case:
        return base64.b64decode(case["base64"])
    return case["text"].encode(case.get("encoding", "utf-8"), "surrogatepass")


def expected(case):
    """The rows as both sides are asked for them."""
    errors = set(case.get("errors", ()))
    return [{"error" if row in errors else "text": said} for row, said in enumerate(case["rows"])]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-{case.get('text', '')[:24]!a}")
def test_the_command_reads_the_file(case, tmp_path):
    """Rows, texts and error codes of a run, or one refusal."""
    file = tmp_path / case["name"]
    file.write_bytes(content_of(case))
    if case.get("refused"):
        with pytest.raises(AssayError):
            list(read_file(file))
        return
    assert list(read_file(file)) == expected(case)


def read_file(file):
    """Each row of a file as data gives it."""
    columns = Columns(text="text")
    (source,) = find_sources([str(file)], columns=columns)
    for rows in read_rows(source, columns, 0, source.num_rows):
        texts = rows.texts.to_pylist()
        for index, text in enumerate(texts):
            yield {"error": rows.errors[index]} if index in rows.errors else {"text": text}


def test_the_page_reads_the_same_rows():
    """The page's own code, run by node: the same rows, or a refusal in a sentence."""
    node = node_of()
    asked = [{"name": case["name"], "base64": base64.b64encode(content_of(case)).decode()} for case in CASES]
    done = subprocess.run(
        [node, str(SUPPORT / "read_files.mjs"), str(FOLDER / "rows.js")],
        input=json.dumps(asked), capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    for case, found in zip(CASES, json.loads(done.stdout), strict=True):
        if case.get("refused"):
            assert found["refused"].endswith("."), case
        else:
            assert found == expected(case), case


def node_of():
    """A node: that of the machine, or the one that playwright brings."""
    found = shutil.which("node")
    if found is None:
        driver = pytest.importorskip("playwright._impl._driver", reason="needs node or playwright")
        found = driver.compute_driver_executable()[0]
    return found
