"""Records of JSON Lines and CSV files, plain or compressed: counting them, and reading a range of them.

A *record* is the bytes of one row, without its newline. Blank lines are no records; in a CSV file a
newline inside quotes is part of its record, and the first record is the header, not a row.
Everything here counts in the decompressed stream. Not covered: a newline that is a lone CR, and
quotes inside a CSV field that is not quoted as a whole (RFC 4180 forbids them; refused).
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.data.formats.format import SourceFile
from assay.data.sources import FINGERPRINT_HEX, Source, splits_at, unreadable
from assay.data.storage import split_url
from assay.errors import SourceError

LineFormat = Literal["jsonl", "csv"]
Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

INDEX_ROWS = 4096
"""Rows between two recorded offsets: the most that are skipped to reach a row of a plain file."""

SAMPLE_ROWS = 1000
SAMPLE_BYTES = 64 * 1024 * 1024
SCAN_BYTES = 8 * 1024 * 1024
READ_BYTES = 1024 * 1024
BOM = b"\xef\xbb\xbf"

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_NEWLINE, _RETURN, _QUOTE, _COMMA = b'\n\r",'
_BEFORE_OPENING = np.zeros(256, dtype=bool)
_BEFORE_OPENING[[_NEWLINE, _COMMA, _QUOTE]] = True
_AFTER_CLOSING = np.zeros(256, dtype=bool)
_AFTER_CLOSING[[_NEWLINE, _RETURN, _COMMA, _QUOTE]] = True
_SPACES = np.zeros(256, dtype=bool)
_SPACES[list(b" \t\n\r\x0b\f")] = True


def compression_of(uri: str) -> str | None:
    """`gzip` or `zstd` by the ending of `uri`, None for a plain file."""
    return next((codec for ending, codec in _COMPRESSIONS.items() if uri.endswith(ending)), None)


def open_stream(uri: str) -> pa.NativeFile:
    """The decompressed bytes of a file, in order; seekable where it is plain."""
    store, path = split_url(uri)
    codec = compression_of(uri)
    file = store.open_input(path)
    return file if codec is None else pa.CompressedInputStream(file, codec)


@dataclass(frozen=True, kw_only=True, slots=True)
class LineScan:
    """What one pass over a line file learns."""

    num_rows: int
    """Rows; a CSV header is none."""
    offsets: tuple[int, ...]
    """Byte at which row k * INDEX_ROWS begins."""
    num_bytes: int
    """Size of the decompressed content."""
    sha256: str
    """Of the decompressed content, hexadecimal."""


def scan(uri: str, line_format: LineFormat) -> LineScan:
    """Count the rows of a file and index them, in one pass of bounded memory.

    Raises SourceError naming the file where it is corrupt, cut short, or has a stray quote.
    """
    splitter = _Splitter(uri, line_format)
    digest = hashlib.sha256()
    offsets: list[int] = []
    num_records = position = 0
    open_start, open_blank = 0, True
    # The CSV header is record -1, so that row k is record k in both formats.
    first_row = 1 if line_format == "csv" else 0
    try:
        with open_stream(uri) as stream:
            while chunk := stream.read(SCAN_BYTES):
                digest.update(chunk)
                data = np.frombuffer(chunk, dtype=np.uint8)
                newlines = splitter.newlines(data)
                if len(newlines):
                    starts = np.concatenate(([0], newlines[:-1] + 1))
                    filled = ~_blank(chunk, data, starts, newlines, line_format)
                    filled[0] |= not open_blank
                    starts += position
                    starts[0] = open_start
                    begun = starts[filled]
                    skip = -(num_records - first_row) % INDEX_ROWS if num_records >= first_row else first_row
                    offsets.extend(begun[skip::INDEX_ROWS].tolist())
                    num_records += len(begun)
                    open_start, open_blank = position + int(newlines[-1]) + 1, True
                    rest = chunk[int(newlines[-1]) + 1 :]
                else:
                    rest = chunk
                open_blank = open_blank and _is_blank(rest, line_format)
                position += len(chunk)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(uri, error) from error
    splitter.finish()
    if not open_blank:
        if num_records >= first_row and (num_records - first_row) % INDEX_ROWS == 0:
            offsets.append(open_start)
        num_records += 1
    if position == 0 and compression_of(uri) is not None and _is_empty_file(uri):
        raise unreadable(uri, EOFError("no bytes at all"))
    return LineScan(
        num_rows=max(0, num_records - first_row),
        offsets=tuple(offsets),
        num_bytes=position,
        sha256=digest.hexdigest(),
    )


class LineReader:
    """Reads ranges of records of one file; going on where the last range stopped costs no seek."""

    def __init__(
        self, uri: str, line_format: LineFormat, offsets: tuple[int, ...], index_rows: int = INDEX_ROWS
    ) -> None:
        self._uri = uri
        self._format: LineFormat = line_format
        self._offsets = offsets
        self._index_rows = index_rows or INDEX_ROWS
        self._stream: pa.NativeFile | None = None
        self._position = 0
        self._row = 0
        self._carry = b""
        self._read_bytes = READ_BYTES
        self._ready: deque[bytes] = deque()

    def header(self) -> bytes:
        """The first record of the file, for CSV; empty where there is none."""
        self._open()
        while not self._ready and self._fill():
            pass
        header = self._ready[0].removeprefix(BOM) if self._ready else b""
        self.close()
        return header

    def read(self, start: int, stop: int, *, max_rows: int, max_bytes: int) -> Iterator[list[bytes]]:
        """Lists of records of rows [start, stop), each of at most `max_rows` and about `max_bytes`."""
        self._seek(start)
        records: list[bytes] = []
        size = 0
        while self._row < stop:
            if not self._ready and not self._fill():
                break
            if not self._ready:
                continue
            record = self._ready.popleft()
            if self._row == 0 and self._format == "jsonl":
                record = record.removeprefix(BOM)
            records.append(record)
            size += len(record)
            self._row += 1
            if len(records) >= max_rows or size >= max_bytes:
                yield records
                records, size = [], 0
        if records:
            yield records

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._carry = b""
        self._ready.clear()
        self._position = self._row = 0

    def _open(self) -> None:
        self.close()
        try:
            self._stream = open_stream(self._uri)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._uri, error) from error

    def _seek(self, row: int) -> None:
        """Go to `row`: on from here where it is ahead and near, else from the recorded offset before it."""
        if self._stream is None or row < self._row or row - self._row > self._index_rows:
            self._jump(row)
        while self._row < row:
            if self._ready:
                self._ready.popleft()
                self._row += 1
            elif not self._fill():
                return

    def _jump(self, row: int) -> None:
        block = min(row // self._index_rows, len(self._offsets) - 1)
        if block < 0:
            self._open()
            return
        offset = self._offsets[block]
        if self._stream is None or offset < self._position:
            self._open()
        if self._stream is None:
            return
        try:
            if self._stream.seekable():
                self._stream.seek(offset)
                self._position = offset
            while self._position < offset:
                skipped = len(self._stream.read(min(SCAN_BYTES, offset - self._position)))
                if not skipped:
                    break
                self._position += skipped
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._uri, error) from error
        self._carry = b""
        self._ready.clear()
        self._row = block * self._index_rows

    def _fill(self) -> bool:
        """Read on and queue the records that are complete; False at the end of the file."""
        if self._stream is None:
            return False
        try:
            chunk = self._stream.read(self._read_bytes)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._uri, error) from error
        self._position += len(chunk)
        data = self._carry + chunk
        if not chunk:
            self._carry = b""
            if _is_blank(data, self._format):
                return False
            self._ready.append(data)
            return True
        lines = data.split(b"\n") if self._format == "jsonl" or b'"' not in data else _split_quoted(data)
        self._carry = lines.pop()
        # A record longer than a read: read twice as much each time, so that it is copied O(1) times a byte.
        self._read_bytes = READ_BYTES if lines else self._read_bytes * 2
        self._ready.extend(line for line in lines if not _is_blank(line, self._format))
        return True


def _split_quoted(data: bytes) -> list[bytes]:
    """The records of `data`, which begins at the start of one; the last is incomplete."""
    array = np.frombuffer(data, dtype=np.uint8)
    newlines = np.flatnonzero(array == _NEWLINE)
    quotes = np.flatnonzero(array == _QUOTE)
    ends = newlines[np.searchsorted(quotes, newlines) % 2 == 0].tolist()
    starts = [0, *(end + 1 for end in ends)]
    return [data[start:end] for start, end in zip(starts, [*ends, len(data)], strict=True)]


def _is_blank(line: bytes, line_format: LineFormat) -> bool:
    """True for a line that is no row: only white space in JSON Lines, nothing at all in CSV."""
    if line_format == "csv":
        return line in {b"", b"\r"}
    return not line or line.isspace()


def _blank(
    chunk: bytes, data: Bytes, starts: Positions, ends: Positions, line_format: LineFormat
) -> npt.NDArray[np.bool_]:
    """For each line of a chunk, whether it is blank; looks closer only at those that begin like one."""
    blank: npt.NDArray[np.bool_] = starts == ends
    candidates = np.flatnonzero(~blank & _SPACES[data[np.minimum(starts, len(data) - 1)]])
    for index in candidates.tolist():
        blank[index] = _is_blank(chunk[starts[index] : ends[index]], line_format)
    return blank


def _is_empty_file(uri: str) -> bool:
    store, path = split_url(uri)
    info = store.info(path)
    return info is not None and info.size_bytes == 0


class _Splitter:
    """Positions of the newlines that end a record, chunk by chunk; keeps the quote parity between them."""

    def __init__(self, uri: str, line_format: LineFormat) -> None:
        self._uri = uri
        self._format = line_format
        self._num_quotes = 0
        self._last_byte = _NEWLINE
        self._num_newlines = 0

    def newlines(self, data: Bytes) -> Positions:
        newlines = np.flatnonzero(data == _NEWLINE)
        if self._format == "csv":
            quotes = np.flatnonzero(data == _QUOTE)
            if len(quotes) or (self._num_quotes and self._last_byte == _QUOTE):
                self._check_quotes(data, quotes, newlines)
            newlines = newlines[(np.searchsorted(quotes, newlines) + self._num_quotes) % 2 == 0]
            self._num_quotes += len(quotes)
            self._last_byte = int(data[-1])
        self._num_newlines += len(newlines)
        return newlines

    def finish(self) -> None:
        if self._num_quotes % 2:
            msg = f'{self._uri}: a quote (") is opened and never closed; close it, or write JSON Lines'
            raise SourceError(msg)

    def _check_quotes(self, data: Bytes, quotes: Positions, newlines: Positions) -> None:
        opens = (np.arange(len(quotes)) + self._num_quotes) % 2 == 0
        before = np.where(quotes > 0, data[quotes - 1], self._last_byte)
        good = np.where(opens, _BEFORE_OPENING[before], ~opens)
        inside = quotes + 1 < len(data)
        after = data[np.minimum(quotes + 1, len(data) - 1)]
        good &= opens | ~inside | _AFTER_CLOSING[after]
        if self._num_newlines == 0 and self._num_quotes == 0 and len(quotes):
            # A byte order mark may stand before the first quote of the file.
            good[0] |= quotes[0] == len(BOM) and data[: len(BOM)].tobytes() == BOM
        # A quote that closed at the very end of the last chunk: the first byte of this one follows it.
        closed_before = self._num_quotes > 0 and self._num_quotes % 2 == 0 and self._last_byte == _QUOTE
        first_good = not closed_before or bool(_AFTER_CLOSING[data[0]])
        if first_good and bool(good.all()):
            return
        at = int(quotes[~good][0]) if not good.all() else 0
        line = self._num_newlines + int(np.searchsorted(newlines, at)) + 1
        msg = (
            f'{self._uri}: near line {line} a quote (") stands inside a field that is not quoted as a whole; '
            "quote the field and double the quotes in it (RFC 4180), or write JSON Lines"
        )
        raise SourceError(msg)


def sample(uri: str, line_format: LineFormat, scan: LineScan) -> list[bytes]:
    """The first records of a file, for inferring types."""
    reader = LineReader(uri, line_format, scan.offsets)
    stop = min(SAMPLE_ROWS, scan.num_rows)
    records = next(reader.read(0, stop, max_rows=SAMPLE_ROWS, max_bytes=SAMPLE_BYTES), [])
    reader.close()
    return records


def line_source(file: SourceFile, name: str, scan: LineScan, schema: pa.Schema) -> Source:
    """The source that a scanned file is."""
    seekable = compression_of(file.uri) is None
    return Source(
        uri=file.uri,
        name=name,
        format=file.format,
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=scan.sha256[:FINGERPRINT_HEX],
        num_rows=scan.num_rows,
        # A compressed stream is read from its beginning wherever a range starts.
        splits=splits_at(range(0, scan.num_rows, INDEX_ROWS) if seekable else (), scan.num_rows),
        offsets=scan.offsets,
        index_rows=INDEX_ROWS,
        schema=schema,
        bytes_per_row=scan.num_bytes / max(1, scan.num_rows),
    )
