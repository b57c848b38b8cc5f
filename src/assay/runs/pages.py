"""Where the page of a run may be written: not over a part, a note or a source of it."""

import os

from assay.data.storage import is_object_url, local_path
from assay.errors import UsageError
from assay.runs.run import open_run

PAGE_SUFFIX = ".html"


def refuse_own_file(url: str, out: str, setting: str) -> None:
    """Raise UsageError where `out`, the value of `setting`, would replace a file of the run at `url` or a source of it.

    A page beside the parts is fine: nothing that a run reads ends in `.html`. Raises SourceError where there is no run.
    """
    if out.endswith(PAGE_SUFFIX):
        return
    run = open_run(url)
    if _is_within(out, run.url):
        msg = f"{setting} {out} lies in the run and is not a {PAGE_SUFFIX} file; it could replace one of its files"
        raise UsageError(f"{msg}; name another, such as {run.url.rstrip('/')}/report{PAGE_SUFFIX}")
    if any(_is_same(out, source.uri) for source in run.manifest.sources):
        raise UsageError(f"{setting} {out} is a source of the run, and would be replaced; name another file")


def _is_within(out: str, folder: str) -> bool:
    if is_object_url(out) or is_object_url(folder):
        return out.startswith(f"{folder.rstrip('/')}/")
    return local_path(out).resolve().is_relative_to(local_path(folder).resolve())


def _is_same(out: str, source: str) -> bool:
    if is_object_url(out) or is_object_url(source):
        return out == source
    path = local_path(out)
    return path.exists() and os.path.samefile(path, source) if os.path.exists(source) else False  # noqa: PTH110, PTH121
