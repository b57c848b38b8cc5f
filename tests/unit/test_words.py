"""Plain English: phrases at which a native speaker stumbles do not come back."""

import re

import pytest
from support.pages import ROOT

FINE_AFTER_NO = "longer|more|less|such|larger|smaller|other|better|deeper|reason|room|need"
INSTEAD = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\banew\b": "again, or from scratch",
    r"\bhangs? on\b(?! to)": "depends on",
    r"\bbegins? over\b": "start over",
    r"\bnone that is\b": "no known ..., none",
    r"\bthat is none\b": "that is not one",
    r"\bwhat is no\b": "what is not",
    rf"(?<![Tt]here )\b(is|are) no (?!{FINE_AFTER_NO})\w": "is not a",
}
"""What must not come back, as a pattern, and what to write."""
SUFFIXES = {".py", ".md", ".js", ".jinja", ".html", ".toml", ".yml", ".yaml"}


def texts():
    """The files that speak to users and contributors; dated decisions are not rewritten."""
    pages = [path for path in ROOT.glob("*") if path.is_file()]
    pages += [path for name in ("src", "docs", "deploy", "tools") for path in (ROOT / name).rglob("*")]
    return [
        path
        for path in pages
        if path.suffix in SUFFIXES and "decisions" not in path.parts[:-1] and path.is_file()
    ]


@pytest.mark.parametrize("pattern", INSTEAD)
def test_an_odd_phrase_does_not_come_back(pattern):
    """No page, message, comment or docstring has it; the failure says where, and what to write instead."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert found == [], f"write {INSTEAD[pattern]}"


def test_the_words_are_looked_for_where_they_stand():
    """The list of files has the README, the docs, the sources and the page in the browser."""
    names = {path.relative_to(ROOT).as_posix() for path in texts()}
    assert {"README.md", "docs/index.md", "src/assay/errors.py", "src/assay/serve/page/page.js"} <= names
