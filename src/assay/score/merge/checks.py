"""What a merge refuses before it writes: a folder in the way, a name that is taken, a run that is not whole."""

import json
import os
from collections.abc import Sequence

from assay.data.storage import Store, is_object_url, local_path
from assay.errors import CheckError, InputError, RefusedError
from assay.runs.parts import find_obstacles
from assay.runs.run import Run
from assay.score.corpus import Corpus
from assay.score.merge.outputs import MERGE_PATH, Output


def refuse_place(corpus: Corpus, store: Store) -> None:
    """Raise InputError where the output folder holds a source, or would become one."""
    out = _real(store.url)
    if any(_is_below(out, _real(run.url)) for run in (corpus.run, corpus.token_run) if run is not None):
        msg = f"--out {store.url} lies in the run directory; merged files go elsewhere: name another folder"
        raise InputError(msg)
    for record in corpus.manifest.sources:
        folder, _, _ = record.uri.partition("*")[0].rpartition("/")
        is_inside = record.format == "text" and "*" in record.uri and _is_below(out, _real(folder))
        if is_inside or _is_below(_real(folder), out):
            msg = f"--out {store.url} shares a folder with source {record.uri}; name a folder of its own"
            raise InputError(msg)


def _real(url: str) -> str:
    return url.rstrip("/") if is_object_url(url) else os.path.realpath(local_path(url))


def _is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def taken_name_error(uri: str, name: str) -> InputError:
    """The error for a source that has a column of the name to be added."""
    return InputError(
        f"{uri} has a column {name!r} already; a merged file has each name once; "
        "set --prefix, or choose with --columns"
    )


def refuse_taken_names(corpus: Corpus, outputs: Sequence[Output], names: Sequence[str]) -> None:
    """Raise InputError where a source has a column of one of these names."""
    seen: dict[int, str | None] = {}
    for output in outputs:
        record = corpus.manifest.sources[output.source]
        if record.schema_index not in seen:
            present = set(corpus.manifest.source(output.source).schema.names)
            seen[record.schema_index] = next((name for name in names if name in present), None)
        taken = seen[record.schema_index]
        if taken is not None:
            raise taken_name_error(record.uri, taken)


def require_parts(run: Run) -> None:
    """Raise CheckError unless every unit is published."""
    units = run.units
    found = run.part_files()
    missing = [unit.name for unit in units if unit.name not in found]
    if obstacles := find_obstacles(run):
        raise CheckError(obstacles[0])
    if missing:
        msg = (
            f"{len(missing):,} of {len(units):,} units of {run.url} are not published (first: {missing[0]}); "
            f"run the same `assay {run.manifest.kind}` command to finish, then merge"
        )
        raise CheckError(msg)


def claim_folder(
    run: Run, store: Store, outputs: Sequence[Output], names: Sequence[str], prefix: str
) -> None:
    """Mark the output folder as this run's, or raise RefusedError where it is not."""
    claim = {"run_id": run.manifest.run_id, "columns": list(names), "prefix": prefix, "run": run.url}
    if store.info(MERGE_PATH) is None:
        there = {info.path for info in store.list()}
        taken = next((output.path for output in outputs if output.path in there), None)
        if taken is not None:
            msg = f"{store.url}/{taken} is there and no merge of this run wrote it; use another --out"
            raise RefusedError(msg)
        if store.create(MERGE_PATH, json.dumps(claim, indent=1).encode()):
            return
    try:
        found = json.loads(store.read_bytes(MERGE_PATH))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        msg = f"{store.url}/{MERGE_PATH} is damaged; use another --out"
        raise RefusedError(msg)
    for key, what in (("run_id", "run"), ("columns", "columns"), ("prefix", "prefix")):
        if found.get(key) != claim[key]:
            seen = f"{what} {found.get(key)!r}, not {claim[key]!r}"
            msg = f"{store.url} holds a merge with {seen}; use another --out"
            raise RefusedError(msg)
