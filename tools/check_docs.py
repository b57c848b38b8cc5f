"""Checks what the pages claim against what is there; `make check` runs it.

    python tools/check_docs.py [ROOT]

It prints one line a problem (file, what was seen, the rule) and exits 1 when there is one.
Not covered: links to other sites, and whether a command in a page works (tests run those).
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import performance_page

FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)|<img[^>]*\ssrc=\"([^\"]+)\"",
    re.MULTILINE,
)
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
TREE_LINE = re.compile(r"^(?P<lead>[\s│├└─|`+-]*)(?P<name>[\w./-]+)(?:\s+(?P<words>\S.*))?$")
NAV_PAGE = re.compile(r"^\s+-.*?([\w./-]+\.md)\s*$")
VERSION_SECTION = re.compile(r"^## \[?(Unreleased|\d+\.\d+\.\d+)", re.MULTILINE | re.IGNORECASE)
REGISTRY_HOST = re.compile(
    r"\b(pypi\.org|pythonhosted\.org|download\.pytorch\.org|npmjs\.(org|com)|anaconda\.org)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeEntry:
    """One line of a printed tree: a path below the tree's root and what is said of it."""

    path: str
    words: str


def pages(root: Path) -> list[Path]:
    """The Markdown pages a reader meets: those at the root, and all of docs/."""
    return sorted(root.glob("*.md")) + sorted((root / "docs").rglob("*.md"))


def without_code(text: str) -> str:
    """The text with fenced blocks and inline code blanked: no link and no heading is read from code."""
    return INLINE_CODE.sub("", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs spell them."""
    plain = (re.sub(r"[`*]", "", heading).lower() for heading in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain}


def check_links(root: Path, page: Path) -> Iterator[str]:
    """A problem for each relative link of the page that leads nowhere."""
    docs = root / "docs"
    name = page.relative_to(root)
    for found in LINK.finditer(without_code(page.read_text(encoding="utf-8"))):
        link = next(group for group in found.groups() if group)
        if SCHEME.match(link):
            continue
        target_name, _, anchor = link.partition("#")
        target = (page.parent / target_name).resolve() if target_name else page.resolve()
        if target_name.startswith("/") or not target.is_relative_to(root.resolve()):
            yield f"{name}: link {link} leaves the repository; make it relative to the page"
        elif not target.exists():
            yield f"{name}: link {link} leads nowhere; fix the path or remove the link"
        elif page.is_relative_to(docs) and not target.is_relative_to(docs.resolve()):
            yield f"{name}: link {link} leaves docs/, so the built site lacks it; name the file instead"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"{name}: link {link} names no heading of {target.name}; fix the anchor"


def tree_entries(text: str, tree_root: str) -> list[TreeEntry] | None:
    """The entries of the fenced tree under the line `tree_root`, in order; None where no block prints it.

    Depth is the column of the name, so plain indentation and box-drawing lines both work. The tree ends
    with its block, or at the first line that is no deeper than its root.
    """
    for block in FENCE.finditer(text):
        lines = [
            matched for line in block[0].splitlines()[1:-1] if (matched := TREE_LINE.match(line.rstrip()))
        ]
        starts = [index for index, line in enumerate(lines) if line["name"] == tree_root]
        if not starts:
            continue
        root_column = lines[starts[0]].start("name")
        folders: list[tuple[int, str]] = []  # (column of the name, path) of each folder we are in
        entries = []
        for line in lines[starts[0] + 1 :]:
            column = line.start("name")
            if column <= root_column:
                break
            folders = [folder for folder in folders if folder[0] < column]
            path = (folders[-1][1] if folders else "") + line["name"]
            if path.endswith("/"):
                folders.append((column, path))
            entries.append(TreeEntry(path=path, words=line["words"] or ""))
        return entries
    return None


def rooms(package: Path) -> set[str]:
    """The names a tree gives to the children of the package: `data/` for a room, `errors.py` for a module."""
    folders = {f"{path.parent.name}/" for path in package.glob("*/*.py")}
    return folders | {path.name for path in package.glob("*.py") if path.name != "__init__.py"}


def check_tree(root: Path) -> Iterator[str]:
    """A problem for each way in which README's tree and src/assay differ."""
    entries = tree_entries((root / "README.md").read_text(encoding="utf-8"), "src/assay/")
    if entries is None:
        yield "README.md: no fenced block has a line `src/assay/`; print the tree of rooms, one line each"
        return
    package = root / "src" / "assay"
    paths = [entry.path for entry in entries]
    listed = {path for path in paths if "/" not in path.removesuffix("/")}
    for room in sorted(rooms(package) - listed):
        yield f"README.md: the tree lacks {room}; add its line"
    for entry in entries:
        if not (package / entry.path).exists():
            yield f"README.md: the tree lists {entry.path}, which src/assay does not have; remove the line"
        elif not entry.words:
            yield f"README.md: the tree says nothing of {entry.path}; say in one line what it is for"
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield f"README.md: the tree lists {path} {paths.count(path)} times; keep one line"


def nav_pages(config: str) -> list[str]:
    """The pages named under `nav:` in a MkDocs configuration, relative to docs/."""
    _, _, nav = config.partition("\nnav:\n")
    found = []
    for line in nav.splitlines():
        if line and not line[0].isspace() and not line.startswith(("#", "-")):
            break  # the next top-level key
        if not line.lstrip().startswith("#") and (page := NAV_PAGE.match(" " + line)):
            found.append(page[1])
    return found


def check_nav(root: Path) -> Iterator[str]:
    """A problem for each nav entry without a page, and each page without a nav entry.

    Dated notes in docs/decisions/ need no entry of their own: the folder's README leads to them.
    """
    named = nav_pages((root / "mkdocs.yml").read_text(encoding="utf-8"))
    docs = root / "docs"
    if not named:
        yield "mkdocs.yml: nav names no page; list the pages of docs/"
    for page in named:
        if not (docs / page).is_file():
            yield f"mkdocs.yml: nav names {page}, which docs/ does not have; write it or remove the entry"
    for path in sorted(docs.rglob("*.md")):
        page = path.relative_to(docs).as_posix()
        if page not in named and not page.startswith("decisions/"):
            yield f"mkdocs.yml: docs/{page} is in no nav entry, so no reader finds it; add it"


def check_changelog(text: str) -> Iterator[str]:
    """A problem where the changelog has neither an Unreleased section nor one of a version."""
    if not VERSION_SECTION.search(text):
        yield "CHANGELOG.md: no section `## [Unreleased]` or `## [1.2.3]`; add one (Keep a Changelog)"


def check_hosts(root: Path, path: Path) -> Iterator[str]:
    """A problem for each line that names a package registry's host: which one to use is up to the reader."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if found := REGISTRY_HOST.search(line):
            yield f"{path.relative_to(root)}:{number}: names the package registry {found[0]}; leave it out"


def check_reference(
    root: Path, command: Sequence[str] = (sys.executable, "-m", "assay.cli.reference")
) -> Iterator[str]:
    """A problem where docs/reference/cli.md is not what the command prints."""
    page = root / "docs" / "reference" / "cli.md"
    spelled = " ".join(command[1:])
    has_generator = (root / "src" / "assay" / "cli" / "reference.py").exists()
    if not page.exists():
        if has_generator:
            yield f"docs/reference/cli.md: missing; write it with {spelled} > docs/reference/cli.md"
        return
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8", check=False)
    if printed.returncode != 0:
        last_line = (printed.stderr.strip().splitlines() or ["no message"])[-1]
        yield f"docs/reference/cli.md: {spelled} failed ({last_line}); fix it or remove the page"
    elif printed.stdout != page.read_text(encoding="utf-8"):
        yield f"docs/reference/cli.md: out of date; write it with {spelled} > docs/reference/cli.md"


def check_performance(root: Path) -> Iterator[str]:
    """A problem for each of docs/performance.md and its charts that is not what the recorded results give."""
    if not (root / "benchmarks").is_dir():
        return
    try:
        wanted = performance_page.performance_files(root)
    except ValueError as error:
        yield f"{performance_page.PAGE}: {error}"
        return
    drawn = {path.relative_to(root).as_posix() for path in (root / performance_page.CHARTS).glob("*.svg")}
    for name in sorted(wanted.keys() | drawn):
        page = root / name
        if not page.exists() or name not in wanted or page.read_text(encoding="utf-8") != wanted[name]:
            yield f"{name}: out of date; run python tools/performance_page.py"


def check(root: Path) -> list[str]:
    """Every problem of the project at `root`, one line each, in the order of the pages."""
    missing = [name for name in ("README.md", "CHANGELOG.md", "mkdocs.yml") if not (root / name).is_file()]
    if missing:
        return [f"{name}: missing; every check needs it" for name in missing]
    all_pages = pages(root)
    problems = [problem for page in all_pages for problem in check_links(root, page)]
    problems += check_tree(root)
    problems += check_nav(root)
    problems += check_changelog((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    problems += check_reference(root)
    problems += check_performance(root)
    settings = [root / name for name in ("mkdocs.yml", "pyproject.toml", "constraints.txt", "Makefile")]
    for path in all_pages + [path for path in settings if path.exists()]:
        problems += check_hosts(root, path)
    return problems


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 where every check holds, else 1, with a line printed for each problem."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    problems = check(root)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
