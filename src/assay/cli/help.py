"""Words to a command, and the help of each: overview, usage, flags."""

import argparse
from collections.abc import Sequence

from assay.cli import flags
from assay.cli.verb import Group, Listed, Verb
from assay.configs import refuse_unknown

VerbWords = tuple[str, ...]

_LAST_LINES = (
    "`--debug` after any command adds the traceback to an error; `--version` prints the version.",
    "Start with `assay quickstart`; `assay completion bash` prints shell completion.",
)


def find(root: Group, given: Sequence[str]) -> tuple[VerbWords, Listed | Group, Sequence[str]]:
    """The command or group that the given words begin with, the words that name it, and the words left over.

    A group is found where it is given alone or with `--help`; raises UsageError for a word that it
    does not have, with the nearest one that it has.
    """
    words: VerbWords = ()
    node: Listed | Group = root
    while isinstance(node, Group):
        rest = given[len(words) :]
        asks_for_help = not rest or rest[0] in {"-h", "--help", "help"}
        if node.own is not None and (asks_for_help or rest[0] not in node.commands):
            node = node.own
            break
        if asks_for_help:
            break
        if rest[0] not in node.commands:
            refuse_unknown(rest[0], list(node.commands), "command", f"{spelled(words)} --help")
        node = node.commands[rest[0]]
        words = (*words, rest[0])
    return words, node, given[len(words) :]


def spelled(words: VerbWords) -> str:
    """The command as it is typed."""
    return " ".join(("assay", *words))


def parser_of(words: VerbWords, summary: str, verb: Verb) -> flags.Parser:
    """The parser of one command, made from its settings class."""
    command = spelled(words)
    parser = flags.Parser(
        prog=command,
        usage=flags.usage(command, verb.settings, verb.config),
        description=summary,
        epilog=verb.example,
        allow_abbrev=False,
        formatter_class=flags.HelpFormatter,
    )
    add_arguments(parser, verb)
    return parser


def add_arguments(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Add all that a command can be given: its settings, and the config file where it takes one."""
    flags.add_flags(parser, verb.settings)
    if verb.config == "flag":
        parser.add_argument("--config", metavar="FILE", help="TOML or YAML file with the same settings.")
    if verb.config == "positional":
        parser.add_argument(
            "config", nargs="?", metavar="CONFIG", help="TOML or YAML file with the settings."
        )


def overview(words: VerbWords, group: Group) -> str:
    """The help of `assay` itself or of a group: what it is, and a line for each command below it."""
    width = max(len(name) for name in group.commands)
    command = spelled(words)
    return "\n".join(
        [
            f"{command}: {group.summary}",
            "",
            f"usage: {command} COMMAND [...]   ({command} COMMAND --help shows one screen)",
            "",
            *(f"  {name:{width}}  {node.summary}" for name, node in group.commands.items()),
            *(() if words else ("", *_LAST_LINES)),
        ]
    )
