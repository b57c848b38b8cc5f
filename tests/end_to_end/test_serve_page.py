"""The page at `GET /` in a headless browser, before a server that answers as `assay serve` does."""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from support.fake_server import LABELS, MAX_TOKENS, FakeServer, Fault, answer_to
from support.models import write_model
from support.serving import served

from assay.serve.page import CONTENT_SECURITY_POLICY, FOLDER, PAGE_FILES

REPLACED = "Failed to load resource"
"""The browser's own note of a status that is not a success; the page says it in words."""


@pytest.fixture
def open_page(browser):
    """A function that opens a server's page; at the end, nothing failed and nothing left the origin."""
    opened = []

    def open_at(server, **options):
        context = browser.new_context(accept_downloads=True, **options)
        page = context.new_page()
        page.set_default_timeout(15_000)
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type == "error" and not message.text.startswith(REPLACED)
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((server.url, "blob:")) else problems.append(request.url)
            ),
        )
        opened.append((context, problems))
        page.goto(server.url)
        return page

    yield open_at
    for context, problems in opened:
        context.close()
        assert problems == []


@pytest.fixture
def server():
    """A server of a classifier of news."""
    with FakeServer() as fake:
        yield fake


def attach(page, name, content):
    """Choose a file for the page."""
    buffer = content.encode() if isinstance(content, str) else content
    page.set_input_files("#file", files=[{"name": name, "mimeType": "text/plain", "buffer": buffer}])


def score_file(page):
    """Press start, wait for the end; name and text of the download."""
    page.get_by_role("button", name="Score the file").click()
    page.wait_for_selector("#file-result:not([hidden])")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes().decode()


def rows_of(text, delimiter=","):
    """The rows of a CSV text, read by Python's own reader."""
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def expect_scores(row, text):
    """A downloaded CSV row holds the very answer to its text."""
    wanted = answer_to(text, details=True)
    assert row["prediction"] == wanted["label"]
    assert float(row["probability"]) == wanted["confidence"]
    assert [float(row[f"prob_{label}"]) for label in LABELS] == list(wanted["all_probabilities"].values())
    assert (int(row["num_tokens"]), row["truncated"]) == (
        wanted["num_tokens"],
        str(wanted["truncated"]).lower(),
    )


def test_a_text_gets_bars_with_numbers(server, open_page):
    """A text typed and sent by keyboard shows every label, best first, with number, tokens and times."""
    page = open_page(server)
    page.get_by_label("Text", exact=True).fill("Shares fell sharply.")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")
    wanted = answer_to("Shares fell sharply.")
    by_probability = sorted(LABELS, key=wanted["all_probabilities"].get, reverse=True)
    shown = [line.split("\n") for line in page.locator("#bars li").all_inner_texts()]
    assert [name for name, _ in shown] == by_probability
    assert [value for _, value in shown] == [
        f"{wanted['all_probabilities'][label]:.4f}" for label in by_probability
    ]
    widths = [
        box["width"] / page.locator("#bars .track").first.bounding_box()["width"]
        for box in (bar.bounding_box() for bar in page.locator("#bars .fill").all())
    ]
    assert widths == pytest.approx([wanted["all_probabilities"][name] for name in by_probability], abs=0.01)
    assert page.locator("#bars .chosen .name").inner_text() == wanted["label"]
    assert page.locator("#verdict").inner_text() == wanted["label"]
    facts = page.locator("#facts").inner_text()
    assert "5 tokens" in facts
    assert "3.3 ms" in facts
    assert "Round trip" in facts
    assert not page.locator("#cut").is_visible()
    assert f"{wanted['confidence']:.4f}" in page.get_by_role("status").first.inner_text()


def test_a_cut_text_says_so(server, open_page):
    """A text longer than the model reads carries a warning."""
    page = open_page(server)
    page.get_by_label("Text", exact=True).fill("word " * 100)
    page.get_by_role("button", name="Score", exact=True).click()
    page.wait_for_selector("#cut:not([hidden])")
    assert "32 tokens" in page.locator("#cut").inner_text()


def test_pairs_scores_and_many_labels(open_page):
    """A pair model asks for both texts; a regression shows its score; of many labels the first ten show."""
    with FakeServer(is_pair=True) as server:
        page = open_page(server)
        page.get_by_label("First text", exact=True).fill("why?")
        page.get_by_label("Second text", exact=True).fill("because")
        page.get_by_role("button", name="Score", exact=True).click()
        page.wait_for_selector("#result:not([hidden])")
        assert server.requests[-1]["text_pairs"] == ["because"]
        assert page.locator("#verdict").inner_text() == answer_to("why?because")["label"]
        attach(page, "pairs.jsonl", '{"n": "1", "q": "why?", "a": "because it is so"}\n')
        _, text = score_file(page)
        assert server.requests[-1]["texts"] == ["why?"]
        assert server.requests[-1]["text_pairs"] == ["because it is so"]
        assert json.loads(text)["prediction"] == answer_to("why?because it is so")["label"]
    with FakeServer(task="regression", labels=("quality",)) as server:
        page = open_page(server)
        page.get_by_label("Text", exact=True).fill("fine words")
        page.get_by_role("button", name="Score", exact=True).click()
        page.wait_for_selector("#result:not([hidden])")
        wanted = answer_to("fine words", task="regression")
        low, high = wanted["interval"]
        assert (
            page.locator("#verdict").inner_text() == f"Score {wanted['score']:.4f} ({low:.4f} to {high:.4f})"
        )
        assert f"Whole score\n{wanted['int_score']}" in page.locator("#facts").inner_text()
        assert not page.locator("#bars").is_visible()
    with FakeServer(task="multi_label", labels=tuple(f"topic {number}" for number in range(30))) as server:
        page = open_page(server)
        page.get_by_label("Text", exact=True).fill("fine words")
        page.get_by_role("button", name="Score", exact=True).click()
        page.wait_for_selector("#result:not([hidden])")
        assert page.locator("#verdict").inner_text() == "No label holds"
        assert page.locator("#bars li:visible").count() == 10
        page.get_by_role("button", name="Show all 30 labels").click()
        assert page.locator("#bars li:visible").count() == 30


def test_an_encoder_has_no_text_to_score(open_page):
    """The page of a server that gives vectors says so, and where to ask; it shows no form that would fail."""
    with FakeServer(task=None) as server:
        page = open_page(server)
        page.get_by_text("Gives each text").wait_for()
        said = page.locator("#model").inner_text()
        assert (
            said == f"Gives each text a vector of 3 numbers, from up to {MAX_TOKENS} tokens: ask POST /embed."
        )
        assert page.locator("form:visible").count() == 0


def test_a_csv_file_comes_back_with_scores(server, open_page):
    """Quotes, delimiters and newlines in cells survive; rows the server refuses or cannot take say why."""
    page = open_page(server)
    texts = ['He said "no", twice', "two\nlines", "", "refuse me", "ünïcode 中文 🙂", *map(str, range(40))]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["id", "body", "note"])
    writer.writerows([f"00{number}", text, 'a "b", c'] for number, text in enumerate(texts))
    attach(page, "reviews.csv", "\ufeff" + buffer.getvalue())
    page.get_by_text("reviews.csv: 45 rows, 3 columns", exact=True).wait_for()
    page.get_by_label("Column of the text").select_option("body")
    name, text = score_file(page)
    assert name == "reviews.scored.csv"
    assert text.startswith("\ufeff")
    rows = rows_of(text.removeprefix("\ufeff"))
    assert [row["body"] for row in rows] == texts
    assert [row["id"] for row in rows] == [f"00{number}" for number in range(45)]
    assert {row["note"] for row in rows} == {'a "b", c'}
    for row in rows:
        if row["body"] == "refuse me":
            assert "must not" in row["error"]
            assert row["prediction"] == row["prob_World"] == ""
        else:
            assert row["error"] == ""
            expect_scores(row, row["body"])
    assert "44 rows scored; 1 row without a score" in page.locator("#file-status").inner_text()
    assert page.locator("#preview tr").count() == 20


@pytest.mark.parametrize(
    ("name", "delimiter", "newline"),
    [
        ("table.csv", ";", "\r\n"),
        ("table.tsv", "\t", "\n"),
        ("table.TSV", "\t", "\r"),
        ("table.csv", "|", "\n"),
    ],
)
def test_other_dialects_of_csv(server, open_page, name, delimiter, newline):
    """Name and header tell the delimiter, or the user does; the last line needs no newline, and a CR alone is one."""
    page = open_page(server)
    lines = [delimiter.join(line) for line in (("text", "n"), ("a, b", "1"), ('"c""d"', ""))]
    attach(page, name, newline.join(lines))
    if delimiter == "|":
        page.get_by_label("Delimiter").select_option(delimiter)
    page.get_by_text("2 rows, 2 columns").wait_for()
    _, text = score_file(page)
    rows = rows_of(text, delimiter)
    assert [(row["text"], row["n"]) for row in rows] == [("a, b", "1"), ('c"d', "")]
    for row in rows:
        expect_scores(row, row["text"])
    assert text.count(newline) == 3


def test_a_json_lines_file_comes_back_with_scores(server, open_page):
    """Each line is what it was, to the digit, with fields added; null and numbers are errors of their rows."""
    page = open_page(server)
    lines = [
        '{"id": 12345678901234567890, "text": "one"}',
        '{ "text" : "two", "nested": {"a": [1.50]} }',
        '{"id": 3, "text": null}',
        '{"id": 4, "text": 7}',
        '{"id": 5}',
    ]
    attach(page, "dump.jsonl", "\r\n".join(lines) + "\r\n\r\n")
    name, text = score_file(page)
    assert name == "dump.scored.jsonl"
    out = text.splitlines()
    assert [line.startswith(given[:-1].rstrip()) for line, given in zip(out, lines, strict=True)] == [
        True
    ] * 5
    rows = [json.loads(line) for line in out]
    assert [row["error"] for row in rows] == [None, None, "null", "not_text", "null"]
    assert rows[0]["prediction"] == answer_to("one")["label"]
    assert rows[1]["prob_Sci/Tech"] == answer_to("two")["all_probabilities"]["Sci/Tech"]
    assert rows[4]["prediction"] is None


def test_rows_that_cannot_be_read_cost_no_other(server, open_page):
    """A line that is not JSON, or a record with too many cells, comes back with its error and without scores."""
    page = open_page(server)
    attach(page, "a.jsonl", '{"text": "one"}\nnothing "much"\n')
    _, text = score_file(page)
    first, second = map(json.loads, text.splitlines())
    assert first["prediction"] == answer_to("one")["label"]
    assert (second["_line"], second["error"], second["prediction"]) == ('nothing "much"', "not_json", None)
    attach(page, "a.csv", "text,n\none,1\ntwo,2,3\n")
    _, text = score_file(page)
    assert text.splitlines()[1].startswith("one,1,")
    assert text.splitlines()[2].startswith("two,2,3,")
    assert "not_csv" in text.splitlines()[2]
    assert "1 row scored; 1 row without a score" in page.locator("#file-status").inner_text()


def test_columns_of_the_file_are_never_overwritten(server, open_page):
    """Where the file has a column of that name already, the scores take another."""
    page = open_page(server)
    attach(page, "again.csv", "text,prediction\nhello,old\n")
    _, text = score_file(page)
    (row,) = rows_of(text)
    assert row["prediction"] == "old"
    assert row["assay_prediction"] == answer_to("hello")["label"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "no rows|is empty"),
        ("a.csv", "text\n", "no rows"),
        ("a.csv", 'text,b\n"open,1\n', "opens on line 2 is never closed"),
        ("a.csv", 'text\n"a"b\n', "Line 2 has a quote inside of a cell"),
        ("a.csv", "text,text\nx,1\n", "names “text” twice"),
        ("a.csv", gzip.compress(b"text\nx\n", mtime=0)[:-9], "begins as gzip"),
        ("a.csv", gzip.compress(b"PAR1\x15\x04", mtime=0), "Parquet"),
        ("a.jsonl", b"PAR1\x15\x04", "Parquet"),
        ("a.txt", "text\nx\n", "ends in none of"),
        ("a.csv", "text\n" + "x\n" * 1001, "1,001 rows; this page takes 1,000"),
        ("a.csv", b"text\n\xff\xfe\xfa\n", "not in UTF-8"),
        ("a.jsonl", '[\n{"text": "a"},\n{"text": "b"}\n]\n', "is JSON, but not JSON Lines"),
        ("a.jsonl", "text\nx\n", "No line of the file is a JSON object"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(server, open_page, name, content, words):
    """A broken file is refused in words, and nothing is sent."""
    page = open_page(server)
    attach(page, name, content)
    page.wait_for_selector("#file-status.bad")
    said = page.locator("#file-status").inner_text()
    assert any(word in said for word in words.split("|"))
    assert not page.locator("#file-form").is_visible()
    assert server.requests == []


def test_a_file_under_way_shows_progress_and_can_be_cancelled(server, open_page):
    """Progress moves with the answers; cancel stops the requests and leaves the page ready for another try."""
    page = open_page(server)
    page.get_by_text("from up to").wait_for()
    attach(page, "many.csv", "text\n" + "".join(f"row {number}\n" for number in range(100)))
    server.hold_after(4)
    page.get_by_role("button", name="Score the file").click()
    page.get_by_text("32 of 100 rows").wait_for()
    assert page.locator("#progress").evaluate("one => one.value / one.max") == 0.32
    page.get_by_text("25% scored.").wait_for()
    assert page.evaluate("document.activeElement.id") == "cancel"
    page.keyboard.press("Enter")
    page.get_by_text("Cancelled after 32 rows.").wait_for()
    assert not page.locator("#download").is_visible()
    server.open()
    page.wait_for_timeout(200)
    assert len(server.requests) == 5
    name, text = score_file(page)
    assert (name, len(rows_of(text))) == ("many.scored.csv", 100)


def test_a_busy_server_is_tried_again(server, open_page):
    """429 and 503 cost a wait, which the page announces, and no row."""
    page = open_page(server)
    server.faults.extend([Fault(429, {"Retry-After": "1"}), Fault(503)])
    attach(page, "few.csv", "text\na\nb\n")
    page.get_by_role("button", name="Score the file").click()
    page.get_by_text("The server is busy; trying again").wait_for()
    page.wait_for_selector("#file-result:not([hidden])")
    assert "2 rows scored." in page.locator("#file-status").inner_text()


def test_errors_are_said_in_words(server, open_page):
    """A refusal shows the server's sentence; a failure names the failure; the next try starts clean."""
    page = open_page(server)
    page.get_by_label("Text", exact=True).fill("refuse me")
    page.keyboard.press("Control+Enter")
    page.get_by_text("The server cannot use this text: a text holds what it must not").wait_for()
    server.faults.append(Fault(500, error="something went wrong"))
    page.get_by_label("Text", exact=True).fill("fine")
    page.keyboard.press("Control+Enter")
    page.get_by_text("The server failed: something went wrong").wait_for()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")


def test_markup_in_texts_and_labels_is_shown_as_text(open_page):
    """Whatever a label, a file name, a column or a cell holds, nothing of it becomes an element."""
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    with FakeServer(labels=(hostile, "plain")) as server:
        server.info["model_id"] = server.info["version"] = hostile
        page = open_page(server)
        page.on("dialog", lambda dialog: pytest.fail("a script ran"))
        page.get_by_label("Text", exact=True).fill(hostile)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#result:not([hidden])")
        attach(page, "<b>x<b>.csv", f'"{hostile}"\n"{hostile}"\nrefuse me {hostile}\n')
        score_file(page)
        assert page.locator("main img, body script, main b").count() == 0
        assert hostile in page.locator("#bars").inner_text()
        assert hostile in page.locator("#preview").inner_text()


def test_a_key_is_asked_for_and_kept_in_memory_alone(open_page):
    """A server with keys: the form appears, a wrong key is said to be wrong, the right one goes on."""
    with FakeServer(key="open sesame".replace(" ", "-")) as server:
        page = open_page(server)
        field = page.get_by_label("Key", exact=True)
        field.wait_for()
        assert field.get_attribute("type") == "password"
        assert "asks for an API key; waiting for it" in page.locator("#model").inner_text()
        field.fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("does not know this key").wait_for()
        field.fill("open-sesame")
        page.keyboard.press("Enter")
        page.get_by_text("from up to").wait_for()
        page.get_by_label("Text", exact=True).fill("hello")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#result:not([hidden])")
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert kept == '[{},{},""]'
        assert "open-sesame" not in page.content()
        assert field.input_value() == ""


def test_a_file_can_be_dropped(server, open_page):
    """A file dropped on its section is read; one dropped elsewhere does not replace the page."""
    page = open_page(server)
    page.get_by_text("from up to").wait_for()
    drop = """(selector) => {
        const data = new DataTransfer();
        data.items.add(new File(["text\\nhello\\n"], "dropped.csv"));
        const target = document.querySelector(selector);
        for (const name of ["dragenter", "dragover", "drop"])
            target.dispatchEvent(new DragEvent(name, {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(drop, "header")
    assert not page.locator("#file-form").is_visible()
    page.evaluate(drop, "#file-heading")
    page.get_by_text("dropped.csv: 1 row, 1 column").wait_for()


def test_every_step_can_be_done_by_keyboard(server, open_page):
    """Tab reaches every control in order, focus is visible, and every control has a name."""
    page = open_page(server)
    page.get_by_text("from up to").wait_for()
    attach(page, "few.csv", "text\na\n")
    page.wait_for_selector("#file-form:not([hidden])")
    page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
    page.locator("#text").focus()
    seen = ["text"]
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", seen
    assert seen[:6] == ["text", "score", "file", "delimiter", "column", "start"]
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, textarea, select, button, progress")]
        .filter((one) => !one.hidden && !one.labels?.length && !one.getAttribute("aria-label"))
        .filter((one) => !one.textContent.trim())
        .map((one) => one.id)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_it_is_readable_at_every_width_in_light_and_dark(server, open_page, tmp_path, scheme, width):
    """No sideways scrolling at 360 px, text stands out from its ground (WCAG 2.2, 4.5 to 1), buttons are large."""
    page = open_page(server, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.get_by_label("Text", exact=True).fill("word " * 100)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#cut:not([hidden])")
    attach(page, "wide.csv", "text," + ",".join(f"c{n}" for n in range(20)) + "\nx" + ",1" * 20 + "\n")
    score_file(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cells = page.locator("#preview td")
    assert "probability" in cells.evaluate_all("all => all.map(one => one.dataset.column)")
    for box in filter(None, (cells.nth(index).bounding_box() for index in range(cells.count()))):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert page.locator("#start").bounding_box()["height"] >= 44
    poor = page.evaluate(CONTRAST)
    assert poor == []
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)


@pytest.mark.parametrize("task", ["single_label", pytest.param("regression", marks=pytest.mark.slow)])
def test_the_real_server_and_its_page_fit(open_page, tmp_path, task):
    """On `assay serve` with a key: what the page shows and writes are the server's own numbers."""
    labels = ("quality",) if task == "regression" else ("ham", "spam")
    folder = write_model(tmp_path / "model", labels=labels, task=task)
    text = "document 1 of 3"
    with served(folder, environment={"ASSAY_API_KEYS": "page:open-sesame"}) as server:
        page = open_page(server)
        page.get_by_label("Key", exact=True).fill("open-sesame")
        page.keyboard.press("Enter")
        page.get_by_text("from up to 64 tokens").wait_for()
        page.get_by_label("Text", exact=True).fill(text)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#result:not([hidden])")
        key = {"Authorization": "Bearer open-sesame"}
        answer = server.post("/predict", {"text": text}, **key).json()
        if task == "regression":
            assert page.locator("#verdict").inner_text() == f"Score {answer['score']:.4f}"
        else:
            shown = dict(line.split("\n") for line in page.locator("#bars li").all_inner_texts())
            assert shown == {label: f"{value:.4f}" for label, value in answer["all_probabilities"].items()}
        assert "6 tokens" in page.locator("#facts").inner_text()
        assert "Model" in page.locator("#facts").inner_text()
        lines = [f"document {number} of 60" for number in range(60)]
        attach(
            page, "many.csv", "id,text\n" + "".join(f"{number},{line}\n" for number, line in enumerate(lines))
        )
        _, written = score_file(page)
        rows = rows_of(written)
        wanted = server.post("/predict/batch", {"texts": lines}, **key).json()
        assert [row["text"] for row in rows] == lines
        for row, one in zip(rows, wanted, strict=True):
            if task == "regression":
                assert float(row["prediction"]) == pytest.approx(one["score"], abs=1e-5)
            else:
                for label, value in one["all_probabilities"].items():
                    assert float(row[f"prob_{label}"]) == pytest.approx(value, abs=1e-5)
        page.goto(f"{server.url}/docs")
        assert page.evaluate("getComputedStyle(document.querySelector('pre')).overflowX") == "auto"


CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !one.checkVisibility() || one.disabled) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${one.tagName} ${one.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def test_the_page_needs_no_lenient_policy():
    """Its files hold no inline script, style or handler, name no other host, and all of them are served."""
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    names = {name for name, _ in PAGE_FILES.values()}
    assert names == {path.name for path in FOLDER.iterdir() if path.suffix not in {".py", ""}}
    markup = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert " style=" not in markup
    assert " on" not in markup.replace(" one", "").replace(" on ", " ")
    for name in names:
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert "innerHTML" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
