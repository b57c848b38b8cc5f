"""Ctrl-C and SIGTERM from the first moment of a command: status 130, and never a traceback."""

import os
import signal
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
NUMBERS = [signal.SIGINT, signal.SIGTERM]
# Sends itself a signal so many seconds after the command's own first line. Earlier Python itself is starting:
# a signal then ends it as it ends any Python program.
TIMED = """
    import os, signal, sys
    from assay.__main__ import main

    number, delay = int(sys.argv[1]), float(sys.argv[2])
    sys.argv = ["assay", *sys.argv[3:]]
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
    signal.setitimer(signal.ITIMER_REAL, delay)
    sys.exit(main())
"""
# The verb of a command that takes long, in words of its own: what it does when the signal comes.
VERB = """
    import os, signal, sys
    from assay.__main__ import main
    from assay.cli import main as command

    def run(words):
        {body}

    command.dispatch = run
    sys.exit(main())
"""


def start(code, *words, **options):
    """A Python process that runs these lines."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
        **options,
    )


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("words", [["doctor"], ["train", "--data", "none", "--base", "b", "--out", "o"]])
def test_a_signal_at_any_moment(number, words):
    """Whenever it comes, also while torch is imported, the command ends with 130 and one line; or was done."""
    interrupted = 0
    for delay in (1e-4, 1e-3, 0.003, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5):
        done = start(TIMED, int(number), delay, *words)
        assert "Traceback" not in done.stderr, (delay, done.stderr)
        assert "KeyboardInterrupt" not in done.stderr, (delay, done.stderr)
        if "interrupted" in done.stderr:
            interrupted += 1
            assert done.returncode == 130, (delay, done.stderr)
    assert interrupted >= 5


def test_an_interrupt_within_an_import_cannot_be_swallowed():
    """A library that catches everything while it is imported does not keep the command running."""
    body = """
        import builtins, importlib.util, types
        class Greedy:
            def create_module(self, spec): return None
            def exec_module(self, module):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    for _ in range(10_000_000): pass
                except BaseException: print("swallowed", flush=True)
        class Finder:
            def find_spec(self, name, path=None, target=None):
                return importlib.util.spec_from_loader(name, Greedy()) if name == "greedy" else None
        sys.meta_path.insert(0, Finder())
        import greedy
        print("went on", flush=True)
        return 0
    """
    done = start(VERB.replace("{body}", textwrap.indent(textwrap.dedent(body), "        ").strip()))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_at_work_says_how_to_go_on(number):
    """Outside of imports it is an interrupt that rooms can answer, and the command says what comes next."""
    code = VERB.replace("{body}", f"os.kill(os.getpid(), {int(number)})")
    done = start(code)
    message = "interrupted: nothing half is published; run the same command again to go on\n"
    assert (done.returncode, done.stderr) == (130, message)


def test_a_second_signal_ends_at_once():
    """Whoever presses Ctrl-C again while the interpreter ends sees no traceback either."""
    code = VERB.replace(
        "{body}", "import atexit; atexit.register(os.kill, os.getpid(), signal.SIGINT); return 0"
    )
    done = start(code)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def ignore_sigint():
    """As `nohup` and `&` in a script leave it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 7), (signal.SIGTERM, 130)])
def test_a_command_started_with_sigint_ignored(number, status):
    """It goes on ignoring SIGINT, as whoever started it wished; SIGTERM stops it."""
    code = VERB.replace("{body}", f"os.kill(os.getpid(), {int(number)}); return 7")
    done = start(code, preexec_fn=ignore_sigint)
    assert done.returncode == status, done.stderr


def test_the_installed_script_is_the_same_command():
    """The script that installing makes begins where `python -m assay` does."""
    script = PROJECT["scripts"]["assay"]
    assert script == "assay.__main__:main"
    command = [sys.executable, "-m", "assay", "--version"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "assay")


def test_nothing_slow_is_imported_before_signals_are_minded():
    """The entry imports only what Python has loaded anyway; a module more is a moment with a traceback."""
    code = "import sys; before = set(sys.modules); import assay.__main__; print(*sorted(set(sys.modules) - before))"
    done = start(code, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.stdout.split() == ["assay", "assay.__main__", "assay._version"]
