"""`assay VERB ...`: find the verb, parse its settings, run it, translate an error into one line.

0 done | 1 the work failed or a check did not hold | 2 bad usage or input | 3 refused | 130 interrupted
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from assay import __version__
from assay.cli import flags
from assay.cli.verbs import VERBS, Verb
from assay.errors import AssayError, InputError, RefusedError, UsageError, WorkError

EXIT_CODES: tuple[tuple[type[AssayError], int], ...] = (
    (UsageError, 2),
    (InputError, 2),
    (RefusedError, 3),
    (WorkError, 1),
)
EXIT_UNEXPECTED = 1
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors are one line on stderr, `--debug` adds the traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a preempted pod stops as on Ctrl-C
    try:
        return dispatch(words)
    except AssayError as error:
        return _report(error, exit_code(error), debug=debug)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing half is published; run the same command again to go on\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  the last resort of a command line
        return _report(error, EXIT_UNEXPECTED, debug=debug)


def exit_code(error: AssayError) -> int:
    """The exit status of an error of ours."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), EXIT_UNEXPECTED)


def dispatch(words: Sequence[str]) -> int:
    """Run the verb that the words begin with."""
    if not words or words[0] in {"-h", "--help", "help"}:
        flags.stdout(overview())
        return 0
    if words[0] == "--version":
        flags.stdout(f"assay {__version__}")
        return 0
    verb = VERBS.get(words[0])
    if verb is None:
        flags.refuse_unknown(words[0], list(VERBS), "command", "assay --help")
    parser = verb_parser(verb)
    if any(word in {"-h", "--help"} for word in words[1:]):
        flags.stdout(parser.format_help().rstrip())
        return 0
    return verb.run(flags.parse_settings(parser, verb.settings, words[1:]))


def verb_parser(verb: Verb) -> flags.Parser:
    """The parser of one verb, made from its settings class."""
    parser = flags.Parser(
        prog=f"assay {verb.name}",
        usage=flags.usage(f"assay {verb.name}", verb.settings, verb.config),
        description=verb.summary,
        epilog=verb.example,
        allow_abbrev=False,
        formatter_class=flags.HelpFormatter,
    )
    flags.add_flags(parser, verb.settings)
    if verb.config == "flag":
        parser.add_argument("--config", metavar="FILE", help="TOML or YAML file with the same settings.")
    if verb.config == "positional":
        parser.add_argument(
            "config", nargs="?", metavar="CONFIG", help="TOML or YAML file with the settings."
        )
    return parser


def overview() -> str:
    """The help of `assay` itself: what it is, and a line a verb."""
    width = max(len(name) for name in VERBS)
    lines = [f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "assay: grade every document in a corpus with a transformer text classifier, exactly once.",
            "",
            "usage: assay COMMAND [...]   (assay COMMAND --help shows one screen)",
            "",
            *lines,
            "",
            "`--debug` after any command adds the traceback to an error; `--version` prints the version.",
            "Start with `assay quickstart`; `assay completion bash` prints shell completion.",
        ]
    )


def _report(error: Exception, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    text = (
        str(error)
        if isinstance(error, AssayError)
        else f"{type(error).__name__}: {error} (--debug shows where)"
    )
    sys.stderr.write("assay: error: " + " ".join(line.strip() for line in text.splitlines()) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
