"""The one tree of errors that Assay raises on purpose.

    AssayError
    ├── UsageError          a flag, setting or config file is wrong
    ├── InputError          what the user handed in cannot be used
    │   ├── SourceError     a source is missing, unreadable, or lacks a column
    │   └── BundleError     a bundle cannot be loaded, or must not be
    ├── RefusedError        something changed since the run began
    └── WorkError           the work failed
        ├── UnitError       a unit could not be turned into a part
        ├── StorageError    a file could not be written (disk full, read-only, no permission)
        └── CheckError      a check did not hold (verify, merge, parity gate)
            ├── DamagedPartError   a part holds something other than what was published
            └── RangeError  documents of the corpus are too large for the precision that `auto` chose

A message gives the value seen, the rule broken and the way out, in one line. The tree knows
nothing of HTTP or of exit codes: the edges (`cli`, `serve`) translate it in one table each.

Between processes an error travels as a name of this tree (`kind_of`) and its message, and is raised again
as that class (`KINDS`).
"""

from collections.abc import Mapping


class AssayError(Exception):
    """Base of every error that Assay raises on purpose."""


class UsageError(AssayError):
    """A flag, a setting or a config file is wrong."""


class InputError(AssayError):
    """What the user handed in cannot be used."""


class SourceError(InputError):
    """A source is missing, unreadable, of the wrong type, or lacks a column."""


class BundleError(InputError):
    """A bundle cannot be loaded, or must not be (pickle, remote code)."""


class RefusedError(AssayError):
    """Something changed since the run began; going on would mix results."""


class WorkError(AssayError):
    """The work itself failed."""


class UnitError(WorkError):
    """A unit could not be turned into a part."""


class StorageError(WorkError):
    """A file could not be written: disk full, read-only, no permission."""


class CheckError(WorkError):
    """A check did not hold: verify, merge or the parity gate."""


class DamagedPartError(CheckError):
    """A part holds something other than what was published."""


class RangeError(CheckError):
    """Documents of the corpus are too large for the precision that `auto` chose; another holds them."""


def _tree(root: type[AssayError]) -> list[type[AssayError]]:
    return [root, *(each for kind in root.__subclasses__() for each in _tree(kind))]


KINDS: Mapping[str, type[AssayError]] = {kind.__name__: kind for kind in _tree(AssayError)}
"""Every class of the tree by its name, for an error that another process reports."""


def kind_of(error: BaseException) -> str | None:
    """The name in `KINDS` that an error is reported by to another process; None for one that is not ours."""
    return next((each.__name__ for each in type(error).__mro__ if each in KINDS.values()), None)
