"""The docs check finds what is wrong in a page, and nothing in a page that is right."""

import sys
from pathlib import Path

import pytest

import check_docs

README = """# Assay

See [the guide](docs/guide.md#set-up), [the notes](CHANGELOG.md "changes") and [a site](https://example.com/x).

```
src/assay/
  errors.py   what can go wrong
  data/       sources in
    rows.py   a batch of rows
tests/        beside the package
```
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project in which every check holds."""
    files = {
        "README.md": README,
        "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n",
        "mkdocs.yml": "site_name: x\nnav:\n  - Guide: guide.md\n  # - Later: later.md\nplugins: []\n",
        "docs/guide.md": "# Guide\n\n## Set up\n\n`[not](a-link.md)`\n\n```md\n[nor](this.md)\n```\n",
        "docs/decisions/2026-01-01-note.md": "# Note\n\n[up](../guide.md)\n",
        "src/assay/__init__.py": "",
        "src/assay/errors.py": "",
        "src/assay/data/__init__.py": "",
        "src/assay/data/rows.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def change(project: Path, name: str, old: str, new: str) -> None:
    """Replaces text that must be there in one file of the project."""
    path = project / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_sound_project_has_no_problem(project: Path) -> None:
    """Links with anchors and titles, sites, links in code, commented nav entries and dated notes all pass."""
    assert check_docs.check(project) == []
    assert check_docs.main([str(project)]) == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("README.md", "docs/guide.md#set-up", "docs/gone.md", "docs/gone.md leads nowhere"),
        ("README.md", "#set-up", "#tear-down", "names no heading"),
        ("README.md", "docs/guide.md#set-up", "../elsewhere.md", "leaves the repository"),
        ("docs/guide.md", "`[not](a-link.md)`", "[out](../README.md)", "leaves docs/"),
        ("docs/guide.md", "`[not](a-link.md)`", "[ref]: gone.md", "gone.md leads nowhere"),
        ("docs/guide.md", "`[not](a-link.md)`", '<img alt="" src="gone.png">', "gone.png leads nowhere"),
        ("README.md", "  errors.py   what can go wrong\n", "", "lacks errors.py"),
        ("README.md", "sources in", "", "says nothing of data/"),
        ("README.md", "rows.py ", "columns.py ", "lists data/columns.py, which src/assay does not have"),
        ("README.md", "errors.py   what", "errors.py   what\n  errors.py   what", "errors.py 2 times"),
        ("README.md", "src/assay/\n", "", "no fenced block"),
        ("CHANGELOG.md", "## [Unreleased]", "## Soon", "no section"),
        ("mkdocs.yml", "# - Later", "- Later", "nav names later.md"),
        ("mkdocs.yml", "  - Guide: guide.md\n", "", "nav names no page"),
        ("mkdocs.yml", "  - Guide: guide.md\n", "", "docs/guide.md is in no nav entry"),
        (
            "docs/guide.md",
            "# Guide",
            "# Guide\n\nFrom pypi" + ".org.",
            "docs/guide.md:3: names the package registry",
        ),
    ],
)
def test_each_fault_is_named(project: Path, name: str, old: str, new: str, problem: str) -> None:
    """One fault gives a line that names it, and exit code 1."""
    change(project, name, old, new)
    problems = check_docs.check(project)
    assert any(problem in line for line in problems), problems
    assert check_docs.main([str(project)]) == 1


def test_a_room_without_a_line_is_named(project: Path) -> None:
    """A new room must be put into README's tree."""
    (project / "src/assay/runs").mkdir()
    (project / "src/assay/runs/plan.py").touch()
    assert check_docs.check(project) == ["README.md: the tree lacks runs/; add its line"]


def test_a_missing_page_is_one_line(project: Path) -> None:
    """Without README there is nothing to compare with, and no traceback either."""
    (project / "README.md").unlink()
    assert check_docs.check(project) == ["README.md: missing; every check needs it"]


def test_box_drawing_trees_are_read_too() -> None:
    """A tree drawn with lines gives the same entries as an indented one."""
    drawn = "```\nsrc/assay/\n├── data/       sources in\n│   └── rows.py rows\n└── cli/ verbs\n```\n"
    entries = check_docs.tree_entries(drawn, "src/assay/")
    assert entries is not None
    assert [(entry.path, entry.words) for entry in entries] == [
        ("data/", "sources in"),
        ("data/rows.py", "rows"),
        ("cli/", "verbs"),
    ]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("print('# Commands')", None),
        ("print('# Other commands')", "out of date"),
        ("raise SystemExit('no such verb')", "failed (no such verb)"),
    ],
)
def test_the_cli_page_equals_its_generator(project: Path, script: str, problem: str | None) -> None:
    """The page holds exactly what the generator prints; a generator that fails is a problem of its own."""
    page = project / "docs/reference/cli.md"
    page.parent.mkdir()
    page.write_text("# Commands\n", encoding="utf-8")
    problems = list(check_docs.check_reference(project, command=[sys.executable, "-c", script]))
    assert len(problems) == (problem is not None)
    assert problem is None or problem in problems[0]


def test_a_generator_without_its_page_is_named(project: Path) -> None:
    """Once the generator exists the page must; before that neither is missed."""
    assert list(check_docs.check_reference(project)) == []
    (project / "src/assay/cli").mkdir()
    (project / "src/assay/cli/reference.py").touch()
    assert "missing" in next(check_docs.check_reference(project))
