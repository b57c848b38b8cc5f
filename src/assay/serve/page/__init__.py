"""The page at `GET /`: static files, no build step, nothing fetched from elsewhere.

The server mounts `PAGE_FILES` and sends `CONTENT_SECURITY_POLICY` with each; scripts and styles are
files of the same origin, so the policy needs no nonce, no hash and no 'unsafe-inline'. The page asks
`/info` and `/predict/batch` as any other client does; an API key stays in its memory.
"""

from pathlib import Path

FOLDER = Path(__file__).parent

PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/rows.js": ("rows.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path of each file on the server: its name beside this module, and its media type."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own files, and answers of its own server."""


def read_page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of each file by its path on the server, read once at the start."""
    return {path: ((FOLDER / name).read_bytes(), media) for path, (name, media) in PAGE_FILES.items()}
