"""One side of ray_executor.py in a process of its own: `python _ray_sides.py assay|data JSON`; prints its figures.

`assay` is a scoring run through the public API, `data` the same model over the same file by Ray Data's `map_batches`.
Each writes down in `log` how many rows it has computed, a line a batch or a part, so that a second try after a kill
can be compared with the first.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from assay.api import ScoreSettings, load, score


class Score:
    """The actor of Ray Data: the engine of a scoring run, a call a batch."""

    def __init__(self, asked: dict[str, Any]) -> None:
        """Load the model."""
        self._model = load(asked["bundle"], max_length=asked["max_length"], num_threads=1)
        self._log = asked["log"]

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The ids of a batch with its scores."""
        scored = self._model.predict(batch["text"]).append_column("id", batch["id"])
        with Path(self._log).open("a", encoding="utf-8") as file:
            file.write(f"{batch.num_rows}\n")
        return scored


def by_ray_data(asked: dict[str, Any]) -> dict[str, float]:
    """Read, map and write with Ray Data, one actor a worker."""
    import ray

    ray.init(address=asked["address"], log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = ray.data.read_parquet(asked["source"]).repartition(target_num_rows_per_block=asked["batch_rows"])
    began = time.monotonic()
    rows.map_batches(
        Score,
        fn_constructor_args=(asked,),
        batch_size=asked["batch_rows"],
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=asked["workers"]),
        num_cpus=1,
    ).write_parquet(asked["out"])
    return {"seconds": time.monotonic() - began}


def by_assay(asked: dict[str, Any]) -> dict[str, float]:
    """A scoring run on this machine, or on the cluster."""
    is_on_ray = asked["address"] is not None
    settings = ScoreSettings(
        sources=(asked["source"],),
        bundle=asked["bundle"],
        run=asked["out"],
        max_length=asked["max_length"],
        unit_rows=asked["unit_rows"],
        devices=str(asked["workers"]),
        num_threads=1,
        executor="ray" if is_on_ray else "local",
        ray_address=asked["address"],
    )
    outcome = score(settings).outcome
    assert outcome is not None, "not a dry run"
    return {
        "seconds": outcome.seconds,
        "ready_seconds": outcome.ready_seconds,
        "rows": outcome.counters.rows,
        "units": outcome.units_published,
    }


if __name__ == "__main__":
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    side = {"assay": by_assay, "data": by_ray_data}[sys.argv[1]]
    given = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    print(json.dumps(side(given)))
