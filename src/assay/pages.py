"""One HTML file from values and the template of a room. Knows no chart and nothing of what is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2

TEMPLATE = "report.html.jinja"
"""Beside the modules of each room that has a page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text under a header; columns from `numeric_from` on are figures, `is_wide` the last one prose."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric_from: int = 1
    is_wide: bool = False


def render_page(room: str, page: object, *, finalize: Callable[[object], object] | None = None) -> bytes:
    """The template of a package such as `assay.score` filled with `page`, as UTF-8; values are escaped.

    `finalize` sees each value before it is written. A name that the page lacks is an error.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    source = resources.files(room).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(page=page).encode("utf-8", errors="replace")
