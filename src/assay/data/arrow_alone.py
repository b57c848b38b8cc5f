"""Arrow without pandas, for processes that have no use for it.

Where pandas is installed, Arrow imports it at the first `pa.array`, to ask whether what it is given is one of
its series: a quarter of a second of each process.
"""

import sys
from collections.abc import Sequence

import pyarrow as pa


class _NoPandas:
    """An importer that finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> None:  # noqa: ARG004  the protocol
        """Nothing for any other module, so that the next importer is asked."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def leave_pandas_out() -> None:
    """Let Arrow ask now and find none, and remember it.

    Others may import pandas all the same, and then Arrow takes a series as any other array. Does nothing where pandas
    is imported already.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_NoPandas)
