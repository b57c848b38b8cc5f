"""Pictures of the report and of the web page for README and docs, light and dark, from a finished quickstart.

    python tools/screenshots.py quickstart/

Writes docs/images/*.png. Needs playwright and Chromium (Debian: `apt-get install chromium`).
"""

import argparse
import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHROMIUM = Path("/usr/bin/chromium")
SCHEMES = ("light", "dark")
READY = re.compile(r"ready on (\S+)")
TEXT = (
    "The chip maker's shares rose after it raised its forecast: demand for phones that run games is growing."
)


def main() -> None:
    """Make the four pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("quickstart", type=Path, help="a folder that `assay quickstart` has finished")
    folder = parser.parse_args().quickstart.resolve()
    IMAGES.mkdir(exist_ok=True)
    report = (folder / "report.html").as_uri()
    with sync_playwright() as started, serving(folder / "model") as address:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for scheme in SCHEMES:
            with opened(browser, report, scheme, width=1080, height=936) as page:
                page.screenshot(path=IMAGES / f"report-{scheme}.png")
            with opened(browser, address, scheme, width=800, height=738) as page:
                page.get_by_label("Text", exact=True).fill(TEXT)
                page.keyboard.press("Control+Enter")
                page.wait_for_selector("#result:not([hidden])")
                page.evaluate("document.activeElement.blur()")
                page.screenshot(path=IMAGES / f"page-{scheme}.png")
        browser.close()
    for path in sorted(IMAGES.glob("*.png")):
        print(f"{path.relative_to(Path.cwd())}: {path.stat().st_size / 1000:.0f} kB")


@contextlib.contextmanager
def opened(browser: Browser, address: str, scheme: str, *, width: int, height: int) -> Iterator[Page]:
    """A page of one size in one colour scheme."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The address of `assay serve` with the bundle, once it is ready."""
    command = [sys.executable, "-m", "assay", "serve", str(bundle), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    assert process.stderr is not None, "it was asked for"
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := READY.search(line):
                yield found[1]
                break
        else:
            sys.exit(f"the server did not start:\n{said}")
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    main()
