"""A driver process over fake workers: `python drive.py RUN SOURCES WORKERS UNIT_ROWS`.

A static one where POD_ID and NUM_WORKERS are set; one that joins the run where JOINS is.
With DRIVER_DEATHS it dies as fake_worker.py describes.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.fake_runs import fake_workers, plan_run
from support.fake_worker import draw_death

from assay.errors import WorkError
from assay.runs.drive import drive_run, work_on
from assay.runs.placement import static_place
from assay.runs.run import open_run
from assay.runs.settings import RunSettings


def main() -> int:
    """Drive the run to its end; status 1 where units are left."""
    url, folder, num_workers, unit_rows = sys.argv[1:]
    deaths = os.environ.pop("DRIVER_DEATHS", None)
    if deaths:
        draw_death(Path(deaths))
    host = os.environ.get("WORKER_HOST")
    if "JOINS" in os.environ:
        run = open_run(url)
        work_on(run, fake_workers(run, int(num_workers), host=host), joins=True)
        return 0
    executor = "static" if "POD_ID" in os.environ else "local"
    rank, world_size = static_place(RunSettings(run=url, executor=executor))
    try:
        drive_run(
            url,
            plan_run(folder, unit_rows=int(unit_rows)),
            lambda run: fake_workers(run, int(num_workers), host=host),
            rank=rank,
            world_size=world_size,
            on_message=lambda line: print(line, flush=True),  # noqa: T201
        )
    except WorkError as error:
        print(error)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
