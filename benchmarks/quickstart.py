"""`assay quickstart` from the command to the last line, and what it measured on the untouched test split.

The packages that carry the model and the corpus are installed; nothing is cached but the files themselves.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _record import finish, parser


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=1)
    arguments = flags.parse_args()
    seconds, output = [], ""
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "assay", "quickstart", str(Path(folder) / "quickstart")]
            began = time.perf_counter()
            output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
            seconds.append(time.perf_counter() - began)
    print(output)
    figures = {
        name: float(found.group(1))
        for name, pattern in (
            ("test_accuracy", r"test accuracy\s+([\d.]+)"),
            ("test_ece", r"test ECE\s+([\d.]+)"),
        )
        if (found := re.search(pattern, output))
    }
    finish(
        "quickstart.seconds_after_install",
        statistics.median(seconds),
        "s",
        "none",
        packages=("assay", "torch", "transformers"),
        details=figures,
        record=arguments.record,
    )


if __name__ == "__main__":
    main()
