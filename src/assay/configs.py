"""A TOML or YAML file of settings to the values of a settings class, each checked against its field."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from assay.errors import UsageError
from assay.settings import is_positional, plain_type, wanted_instead

_CONFIG_SUFFIXES = frozenset({".toml", ".yaml", ".yml"})
_YAML_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
}


def read_config(given: str | Path, settings: type) -> dict[str, Any]:
    """The settings in a TOML or YAML file, checked against the fields; raises UsageError."""
    path = Path(given)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        # a URL loses a slash as a path
        way_out = rows_hint(str(given), settings) or "give a TOML or YAML file"
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"config {given} cannot be read ({reason}); {way_out}"
        raise UsageError(msg) from error
    raw = _parse(path, content, settings)
    hints = get_type_hints(settings)
    for key, value in raw.items():
        if key not in hints:
            refuse_unknown(str(key), list(hints), f"key in {path}", "the fields of this command's --help")
        _check_type(path, key, value, hints[key])
    return raw


def rows_hint(given: str, settings: type) -> str | None:
    """The way out where rows were given for a config, of a command that takes them with a flag."""
    takes_rows = any(field.name == "data" and not is_positional(field) for field in fields(settings))
    if Path(given).suffix in _CONFIG_SUFFIXES or not takes_rows:
        return None
    return f"a config holds settings, rows go to --data: --data {given}"


def _parse(path: Path, content: str, settings: type) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML in which 1_0, 010 and 1:30 are strings, not 10, 8 and 90."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, _YAML_NUMBERS.get(tag, rule)) for tag, rule in rules]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    is_yaml = path.suffix in {".yaml", ".yml"}
    try:
        raw = yaml.load(content, Loader) if is_yaml else tomllib.loads(content)  # noqa: S506  a safe loader
    except (ValueError, yaml.YAMLError) as error:  # PyYAML raises ValueError for an impossible date
        first = str(error).replace("\n", " ")
        hint = rows_hint(str(path), settings) or "name it .yaml if it is YAML"
        way_out = "fix it" if path.suffix in _CONFIG_SUFFIXES else hint
        msg = f"config {path} is not {'YAML' if is_yaml else 'TOML'} ({first}); {way_out}"
        raise UsageError(msg) from error
    if not isinstance(raw, dict):
        msg = f"config {path} holds {type(raw).__name__}; write key = value lines"
        raise UsageError(msg)
    return raw


def refuse_unknown(name: str, known: Sequence[str], what: str, where: str) -> NoReturn:
    """Raise UsageError for an unknown name, with the nearest known one."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"see {where}"
    msg = f"unknown {what} {name}; {hint}"
    raise UsageError(msg)


def _check_type(path: Path, key: str, value: object, hint: object) -> None:
    wanted = wanted_instead(value, hint)
    if wanted is None:
        return
    kind, choices = plain_type(hint)
    if kind is float and isinstance(value, str):
        wanted += ", written as 5.0e-4"
    elif kind is str and not choices and isinstance(value, int | float):
        wanted += f', written as "{value}"'
    msg = f"{key} in {path} is {value!r}; it must be {wanted}"
    raise UsageError(msg)
