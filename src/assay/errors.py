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

A message gives the value seen, the rule broken and the way out, in one line. The tree knows
nothing of HTTP or of exit codes: the edges (`cli`, later `serve`) translate it in one table each.
"""


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
