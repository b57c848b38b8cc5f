"""`assay COMMAND ...`: find the command, parse its settings, run it, translate an error into one line.

0 done | 1 the work failed or a check did not hold | 2 bad usage or input | 3 refused | 75 drained | 130 interrupted
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from assay._version import __version__
from assay.cli import flags
from assay.cli.help import find, overview, parser_of
from assay.cli.verb import Group
from assay.cli.verbs import ASSAY
from assay.errors import AssayError, InputError, RefusedError, UsageError, WorkError
from assay.exits import BAD_INPUT, DRAINED, FAILED, INTERRUPTED, REFUSED

EXIT_CODES: tuple[tuple[type[AssayError], int], ...] = (
    (UsageError, BAD_INPUT),
    (InputError, BAD_INPUT),
    (RefusedError, REFUSED),
    (WorkError, FAILED),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors are one line on stderr, `--debug` adds the traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, behind = _split(words)
    debug = "--debug" in own
    words = [*(word for word in own if word != "--debug"), *behind]
    try:
        return dispatch(words)
    except AssayError as error:
        return _report(error, exit_code(error), debug=debug)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing half is published; run the same command again to go on\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  the last resort of a command line
        return _report(error, FAILED, debug=debug)


def exit_code(error: AssayError) -> int:
    """The exit status of an error of ours."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)


def dispatch(words: Sequence[str]) -> int:
    """Run the command that the words begin with."""
    if words and words[0] == "--version":
        flags.stdout(f"assay {__version__}")
        return 0
    name, node, rest = find(ASSAY, words)
    if isinstance(node, Group):
        flags.stdout(overview(name, node))
        return 0
    verb = node.load()
    parser = parser_of(name, node.summary, verb)
    if any(word in {"-h", "--help"} for word in _split(rest)[0]):
        flags.stdout(parser.format_help().rstrip())
        return 0
    settings: object = flags.parse_settings(parser, verb.settings, rest)
    try:
        return verb.run(settings)
    except KeyboardInterrupt as stop:
        if not verb.is_of_a_run:
            sys.stderr.write("interrupted: nothing half is published; run the same command again\n")
            return INTERRUPTED
        if not {signal.SIGTERM, signal.SIGUSR1} & {*stop.args}:
            raise
        sys.stderr.write("drained: nothing half is published; run the same command again to go on\n")
        return DRAINED


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words before the first `--`, and the rest with it, which may be another command's."""
    at = list(words).index("--") if "--" in words else len(words)
    return words[:at], words[at:]


def _report(error: Exception, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    match error:
        case AssayError():
            text = str(error)
        case PermissionError(filename=str(path)):  # of any path that a user named, whoever looks at it first
            text = f"{path}: Permission denied; give this user the right to it and to its folder"
        case _:
            text = f"{type(error).__name__}: {error} (--debug shows where)"
    sys.stderr.write("assay: error: " + " ".join(line.strip() for line in text.splitlines()) + "\n")
    return code
