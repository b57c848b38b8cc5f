"""Arrow without pandas."""

import subprocess
import sys

SCRIPT = """
import sys
from assay.data.arrow_alone import leave_pandas_out
leave_pandas_out()
import pyarrow as pa
pa.array([1]), pa.table({"a": ["b"]})
assert "pandas" not in sys.modules
import pandas
assert pa.array(pandas.Series([1, 2])).to_pylist() == [1, 2]
"""


def test_pandas_is_imported_only_by_who_asks_for_it():
    """Arrow makes arrays without it, and takes a series where somebody else imports it."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
