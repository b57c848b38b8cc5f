"""Flags from a settings dataclass: one name for a setting, from file to code.

`text_column: str = "text"` becomes `--text-column`, and `text_column = "text"` in a TOML or YAML file.
A flag wins over the file, the file over the default. The help text is the field's docstring.
"""

import argparse
import ast
import contextlib
import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, is_dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, NoReturn, TypeVar, get_type_hints

from assay.configs import read_config, refuse_unknown, rows_hint
from assay.errors import UsageError
from assay.settings import is_after_dashes, is_positional, is_required, plain_type, wanted_instead

S = TypeVar("S")

NOT_GIVEN = None
HELP_WIDTH = 110


class HelpFormatter(argparse.HelpFormatter):
    """A screen a verb: wide lines, flags and their help beside each other."""

    def __init__(self, prog: str) -> None:
        """Lines of 110 characters, whatever the terminal, so that the generated page is one."""
        super().__init__(prog, width=HELP_WIDTH, max_help_position=30)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, with a way out."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage and exiting."""
        msg = f"{message}; see {self.prog} --help"
        raise UsageError(msg)


def fields(settings: type) -> list["Field[Any]"]:
    """The fields of a settings class in the order of its help: its own, then those of each group it inherits.

    What a command cannot do without comes first.
    """
    order = [name for kind in settings.__mro__ for name in vars(kind).get("__annotations__", {})]
    found = sorted(dataclass_fields(settings), key=lambda field: order.index(field.name))
    return sorted(found, key=lambda field: not is_required(field))


def add_flags(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add a flag for each field of a settings class; a place for those that `is_positional`."""
    documents = field_docs(settings)
    hints = get_type_hints(settings)
    for field in fields(settings):
        kind, choices = plain_type(hints[field.name])
        text = documents.get(field.name, "").replace("%", "%%")
        if is_positional(field) or is_after_dashes(field):
            many = kind is tuple
            parser.add_argument(
                field.name, nargs="*" if many else "?", default=NOT_GIVEN, metavar=_metavar(field), help=text
            )
            continue
        flag = "--" + field.name.replace("_", "-")
        if kind is bool:
            action = argparse.BooleanOptionalAction if field.default is True else "store_true"
            parser.add_argument(flag, action=action, default=NOT_GIVEN, help=text)
            if action == "store_true":
                # Not shown: it is there to take back what a config file says.
                no = "--no-" + flag.removeprefix("--")
                parser.add_argument(
                    no, dest=field.name, action="store_false", default=NOT_GIVEN, help=argparse.SUPPRESS
                )
            continue
        if kind is tuple:
            parser.add_argument(flag, nargs="+", default=NOT_GIVEN, metavar="NAME", help=text)
            continue
        default = "" if field.default in {MISSING, None, ""} else f" [{field.default}]"
        metavar = "|".join(choices) if choices else _type_metavar(kind)
        parser.add_argument(
            flag,
            type=_as_written(field.name, hints[field.name]),
            default=NOT_GIVEN,
            metavar=metavar,
            help=text + default,
        )


def usage(command: str, settings: type, config: str = "none") -> str:
    """The command with what it cannot do without: `assay score SOURCE... --bundle VALUE [options]`."""
    words = [command, "CONFIG"] if config == "positional" else [command]
    for field in fields(settings):
        required = is_required(field)
        if is_positional(field):
            many = "..." if str(field.type).startswith("tuple") else ""
            words.append(f"{_metavar(field)}{many}" if required else f"[{_metavar(field)}{many}]")
        elif required and config != "positional" and not is_after_dashes(field):
            words.append(f"--{field.name.replace('_', '-')} {field.name.upper()}")
    behind = [f"-- {_metavar(field)}..." for field in fields(settings) if is_after_dashes(field)]
    return " ".join([*words, "[options]", *behind])


def parse_settings(parser: Parser, settings: type[S], arguments: Sequence[str]) -> S:
    """The settings that the arguments, a `--config` file and the defaults give, in that order.

    Raises UsageError for an unknown flag or key (naming the nearest), a wrong type, a missing value.
    """
    arguments, behind = _split_at_dashes(arguments, settings)
    known = [action.option_strings[0] for action in parser._actions if action.option_strings]  # noqa: SLF001
    namespace, unknown = parser.parse_known_intermixed_args([_with_dashes(each, known) for each in arguments])
    for name in behind:
        if before := getattr(namespace, name):
            msg = f"{before[0]!r} stands before --; write {usage(parser.prog, settings)}"
            raise UsageError(msg)
    for argument in unknown:
        if argument.startswith("-"):
            _refuse_placed(argument.split("=")[0], settings, parser.prog)
            _refuse_cascade(argument.split("=")[0], settings, parser.prog)
            refuse_unknown(argument.split("=")[0], known, "flag", f"{parser.prog} --help")
        way_out = rows_hint(argument, settings) or f"see {parser.prog} --help"
        msg = f"{argument!r} is one argument too many; {way_out}"
        raise UsageError(msg)
    given = {
        name: value for name, value in (vars(namespace) | behind).items() if value not in (NOT_GIVEN, [])
    }
    config = given.pop("config", None)
    values = {**(read_config(config, settings) if config else {}), **given}
    return build(settings, values, parser.prog)


def _split_at_dashes(
    arguments: Sequence[str], settings: type
) -> tuple[Sequence[str], dict[str, Sequence[str]]]:
    """The arguments before `--`, and those behind it by the setting that takes them, where one does."""
    for field in fields(settings):
        if is_after_dashes(field):
            at = list(arguments).index("--") if "--" in arguments else len(arguments)
            return arguments[:at], {field.name: list(arguments[at + 1 :])}
    return arguments, {}


def _with_dashes(argument: str, known: Sequence[str]) -> str:
    """A flag that is known but for underscores in place of dashes, as it is known; all else as it is."""
    flag, equals, value = argument.partition("=")
    dashed = flag.replace("_", "-")
    return dashed + equals + value if flag.startswith("--") and dashed in known else argument


def _refuse_placed(flag: str, settings: type, command: str) -> None:
    """Raise UsageError where a flag is the name of what is given by its place."""
    name = flag.lstrip("-").replace("-", "_")
    for field in fields(settings):
        if is_positional(field) and name in {field.name, _metavar(field).lower()}:
            msg = f"{flag} is not a flag, {_metavar(field)} stands without one: {usage(command, settings)}"
            raise UsageError(msg)


def _refuse_cascade(flag: str, settings: type, command: str) -> None:
    """Raise UsageError where a cascade is given by a flag of its own: it is given as any other model."""
    if flag == "--cascade" and any(field.name == "bundle" for field in fields(settings)):
        msg = f"{flag} is not a flag; a cascade is given where a bundle is: {usage(command, settings)}"
        raise UsageError(msg)


def build(settings: type[S], values: Mapping[str, Any], command: str) -> S:
    """The settings value; raises UsageError where a required one is missing."""
    missing = [field for field in fields(settings) if is_required(field) and field.name not in values]
    if missing:
        field = missing[0]
        name = _metavar(field) if is_positional(field) else "--" + field.name.replace("_", "-")
        if is_after_dashes(field):
            msg = f"{command} needs a {_metavar(field)} after --; see {command} --help"
            raise UsageError(msg)
        placed = {each.name for each in fields(settings) if is_positional(each)}
        takers = [
            "--" + each.replace("_", "-")
            for each, value in values.items()
            if isinstance(value, list) and field.name in placed and each not in placed
        ]
        order = f", before {' and '.join(takers)}, which takes all that follow" if takers else ""
        msg = f"{command} needs {name}{order}; see {command} --help"
        raise UsageError(msg)
    return settings(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )


def field_docs(settings: type) -> dict[str, str]:
    """The docstring below each field of a dataclass and of the groups it inherits, on one line; its own win."""
    found: dict[str, str] = {}
    for kind in reversed(settings.__mro__):
        if is_dataclass(kind):
            found |= _own_field_docs(kind)
    return found


def _own_field_docs(settings: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(settings)))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    found = {}
    for node, following in itertools.pairwise(body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[node.target.id] = " ".join(str(following.value.value).split())
    return found


def _as_written(name: str, hint: object) -> Callable[[str], Any]:
    """Reads a flag's value; a number is what people write: not `1_0` and no digits but 0 to 9."""
    kind, _ = plain_type(hint)

    def parse(text: str) -> Any:  # noqa: ANN401  what argparse takes
        value: object = text
        if kind in (int, float) and text.isascii() and "_" not in text:
            with contextlib.suppress(ValueError):
                value = kind(text)
        if wanted := wanted_instead(value, hint):
            msg = f"{name} is {value!r}; it must be {wanted}"
            raise UsageError(msg)
        return value

    return parse


def _metavar(field: "Field[Any]") -> str:
    return str(field.metadata["metavar"])


def _type_metavar(kind: type) -> str:
    return {int: "N", float: "X"}.get(kind, "VALUE")


def stdout(text: str) -> None:
    """Print a result. Everything else goes to stderr."""
    sys.stdout.write(text + "\n")
