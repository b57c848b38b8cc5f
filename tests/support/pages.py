"""Code blocks of the Markdown pages: found with their marks, and run in order as a reader would.

    python tests/support/pages.py PAGE     runs a page in the current folder; status 1 with the reason

A mark is an HTML comment on the lines before a block, invisible in the built page:

    <!-- not run: REASON -->     the block is for reading only
    <!-- file: NAME -->          the block is written to this file instead of being run
    <!-- exit status: N -->      its last command ends with this status

`assay` lines run in this one process, so that torch is imported once a page; other lines go to bash.
Each line of a `text` block must be in the output of the block before it; figures and hashes may differ.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^ *```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (?P<name>not run|file|exit status): (?P<value>.+?) -->\s*\Z")
FIGURE = re.compile(r"\b[0-9a-f]{32}\b|-?\d[\d.,:e-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def is_run(self):
        """Whether the block is code that `run_page` executes."""
        return self.language in {"console", "python"} and not self.marks.keys() & {"not run", "file"}

    @property
    def where(self):
        """Page and line, to find the block again."""
        return f"{self.page}:{self.line}"


def read_blocks(page):
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        marks, before = {}, text[: fence.start()]
        while mark := MARK.search(before):
            marks[mark["name"]] = mark["value"]
            before = before[: mark.start()]
        found.append(
            Block(
                page=page.name,
                line=text.count("\n", 0, fence.start()) + 1,
                language=fence["language"],
                text=fence["text"],
                marks=marks,
            )
        )
    return found


def commands(block):
    """The commands of a console block, continued lines joined, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def masked(line):
    """A line without its figures and hashes and with single spaces, to compare what was said."""
    return " ".join(FIGURE.sub("#", line).split())


def run_page(page):
    """Run the blocks of a page in the current folder; raises AssertionError naming the block that failed."""
    names = {"__name__": "__main__"}
    output = ""
    for block in read_blocks(page):
        if "not run" in block.marks:
            output = None
        elif "file" in block.marks:
            Path(block.marks["file"]).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            output = _run_console(block)
        elif block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, block.where, "exec"), names)  # noqa: S102  our own pages
            output = printed.getvalue()
            print(output, flush=True)  # noqa: T201
        elif block.language == "text" and output is not None:
            said = {masked(line) for line in output.splitlines()}
            for line in block.text.splitlines():
                assert not line.strip() or masked(line) in said, (
                    f"{block.where}: {line!r} is not in:\n{output}"
                )


def _run_console(block):
    output = ""
    lines = commands(block)
    for number, line in enumerate(lines):
        print(f"$ {line}", flush=True)  # noqa: T201  a transcript, for whoever writes the page
        status, printed = _run_assay(line) if line.startswith("assay ") else _run_shell(line)
        print(printed, flush=True)  # noqa: T201
        output += printed
        wanted = int(block.marks.get("exit status", 0)) if number == len(lines) - 1 else 0
        assert status == wanted, f"{block.where}: {line} ended with {status}, not {wanted}:\n{printed}"
    return output


def _run_assay(line):
    from assay.cli.main import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(shlex.split(line)[1:])
    return status, printed.getvalue()


def _run_shell(line):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line], capture_output=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout + done.stderr


def shell_environment(**others):
    """The environment in which `assay` and `python` are those that run the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **others}


def start_page(page, folder):
    """Run a page in `folder` in a process of its own; the completed process."""
    return subprocess.run(
        [sys.executable, __file__, str(page)],
        cwd=folder,
        env=shell_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
