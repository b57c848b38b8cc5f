"""What a command is: a settings class, a function that calls one room, and a place in a tree of commands.

A command's module is imported when the command is asked for, so that `assay --help` answers at once.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """What a command does; its module holds it as `VERB`."""

    settings: type
    run: Callable[[Any], int]
    """Takes the settings, prints, returns the exit status."""
    example: str
    """Shown below the flags."""
    is_of_a_run: bool = False
    """Whether it works on a run, and a scheduler that stops it should start it again."""
    config: Literal["none", "flag", "positional"] = "none"
    """Whether a TOML or YAML file may hold the settings, and how it is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A command in the tree, not imported yet."""

    summary: str
    """One line for the overview."""
    module: str
    """Module whose `VERB` it is."""

    def load(self) -> Verb:
        """Import the command."""
        verb: Verb = importlib.import_module(self.module).VERB
        return verb


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Commands under one word, such as `fetch` in `assay books fetch`; groups may hold groups."""

    summary: str
    """One line for the overview."""
    commands: Mapping[str, "Listed | Group"]
    own: Listed | None = None
    """What the word does where none of the commands follows it."""

    def walk(self, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], "Listed | Group"]]:
        """Every command and group below this one in the order of the help, each with its words.

        A group that is a command itself comes as that.
        """
        for name, node in self.commands.items():
            words = (*above, name)
            yield words, node if not isinstance(node, Group) or node.own is None else node.own
            if isinstance(node, Group):
                yield from node.walk(words)


def say(line: str) -> None:
    """Tell the user something that is not the result."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
