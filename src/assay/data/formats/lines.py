"""Records of JSON Lines and CSV files, plain or compressed: counting them, and reading a range of them.

A *record* is the bytes of one row, without the LF, or the CR alone, that ends it; that of a CRLF keeps
its CR. Blank lines are not records; in a CSV file a line end inside quotes is part of its record, and
the first record is the header, not a row. Everything here counts in the text as it is read:
decompressed, in UTF-8. Not covered: quotes inside a CSV field that is not quoted as a whole
(RFC 4180 forbids them; refused).
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
from assay.data.formats.heads import HEAD_BYTES, codec_of, encoding_of, other_than_text, way_out_of
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
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'
_UNREADABLE = (OSError, pa.ArrowException, UnicodeError)
_SPACES = np.zeros(256, dtype=bool)
_SPACES[list(b" \t\n\r\x0b\f")] = True


def compression_of(name: str) -> str | None:
    """`gzip` or `zstd` by the ending of a file's name, None where it says neither."""
    return next((codec for ending, codec in _COMPRESSIONS.items() if name.endswith(ending)), None)


def uncompressed_name(name: str) -> str:
    """A file's name without the ending of its compression."""
    return name.rpartition(".")[0] if compression_of(name.lower()) else name


def open_stream(uri: str) -> pa.NativeFile:
    """The text of a file as bytes of UTF-8, in order; seekable where it is stored so.

    Its first bytes say whether it is compressed (gzip, zstd) or in UTF-16, whatever its name says.
    Raises SourceError where they are not those of text, or its name says compressed
    and they do not.
    """
    store, path = split_url(uri)
    file = store.open_input(path)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    codec = codec_of(head)
    named = compression_of(uri)
    if named is not None and codec is None:
        raise unreadable(
            uri, EOFError(f"its first bytes are not those of {named}" if head else "no bytes at all")
        )
    if codec is not None:
        # Opened twice, since a stream that was begun cannot be read again.
        with pa.CompressedInputStream(store.open_input(path), codec) as begun:
            head = begun.read(HEAD_BYTES)
        file = pa.CompressedInputStream(file, codec)
    encoding = encoding_of(head)
    if encoding is not None:
        return pa.transcoding_input_stream(file, encoding, "utf-8")
    found = other_than_text(head)
    if found is not None:
        inside = "" if codec is None else f" inside {codec}"
        msg = (
            f"{uri}: its first bytes are those of {found}{inside}, not of text in lines; "
            f"{way_out_of('' if codec else found)}"
        )
        raise SourceError(msg)
    return file


def first_bytes(uri: str) -> bytes:
    """The first bytes of a file's text; raises as `open_stream`, and where they cannot be decoded."""
    try:
        with open_stream(uri) as stream:
            found: bytes = stream.read(HEAD_BYTES)
    except _UNREADABLE as error:
        raise unreadable(uri, error) from error
    return found


def _read(stream: pa.NativeFile, num_bytes: int) -> bytes:
    """The next bytes; they end in a CR only where the file does, so that CR and LF stay together."""
    chunk: bytes = stream.read(num_bytes)
    while chunk.endswith(b"\r") and (after := stream.read(1)):
        chunk += after
    return chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class LineScan:
    """What one pass over a line file learns."""

    num_rows: int
    """Rows; a CSV header is none."""
    offsets: tuple[int, ...]
    """Byte at which row k * INDEX_ROWS begins."""
    num_bytes: int
    """Size of the text."""
    sha256: str
    """Of the text, hexadecimal."""
    is_seekable: bool
    """Whether reading may start anywhere; a compressed stream is read from its beginning."""


def scan(uri: str, line_format: LineFormat, delimiter: str = ",") -> LineScan:
    """Count the rows of a file and index them, in one pass of bounded memory.

    Raises SourceError naming the file where it is corrupt, cut short, or has a stray quote.
    """
    splitter = _Splitter(uri, line_format, delimiter)
    digest = hashlib.sha256()
    offsets: list[int] = []
    num_records = position = 0
    open_start, open_blank = 0, True
    # The CSV header is record -1, so that row k is record k in both formats.
    first_row = 1 if line_format == "csv" else 0
    try:
        with open_stream(uri) as stream:
            is_seekable = stream.seekable()
            while chunk := _read(stream, SCAN_BYTES):
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
    except _UNREADABLE as error:
        raise unreadable(uri, error) from error
    splitter.finish()
    if not open_blank:
        if num_records >= first_row and (num_records - first_row) % INDEX_ROWS == 0:
            offsets.append(open_start)
        num_records += 1
    return LineScan(
        num_rows=max(0, num_records - first_row),
        offsets=tuple(offsets),
        num_bytes=position,
        sha256=digest.hexdigest(),
        is_seekable=is_seekable,
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
        except _UNREADABLE as error:
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
        except _UNREADABLE as error:
            raise unreadable(self._uri, error) from error
        self._carry = b""
        self._ready.clear()
        self._row = block * self._index_rows

    def _fill(self) -> bool:
        """Read on and queue the records that are complete; False at the end of the file."""
        if self._stream is None:
            return False
        try:
            chunk = _read(self._stream, self._read_bytes)
        except _UNREADABLE as error:
            raise unreadable(self._uri, error) from error
        self._position += len(chunk)
        data = self._carry + chunk
        if not chunk:
            self._carry = b""
            if _is_blank(data, self._format):
                return False
            self._ready.append(data)
            return True
        lines = _split(data, is_quoted=self._format == "csv" and b'"' in data)
        self._carry = lines.pop()
        # A record longer than a read: read twice as much each time, so that it is copied O(1) times a byte.
        self._read_bytes = READ_BYTES if lines else self._read_bytes * 2
        self._ready.extend(line for line in lines if not _is_blank(line, self._format))
        return True


def _split(data: bytes, *, is_quoted: bool) -> list[bytes]:
    """The records of `data`, which begins at the start of one; the last is incomplete."""
    if not is_quoted and data.count(b"\r") == data.count(b"\r\n"):
        return data.split(b"\n")
    array = np.frombuffer(data, dtype=np.uint8)
    ends = _line_ends(array)
    if is_quoted:
        quotes = np.flatnonzero(array == _QUOTE)
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    starts = [0, *(ends + 1).tolist()]
    return [data[start:end] for start, end in zip(starts, [*ends.tolist(), len(data)], strict=True)]


def _line_ends(data: Bytes) -> Positions:
    """Positions of the LFs, and of the CRs that no LF follows; `data` ends in a CR only where the file does."""
    is_end = data == _NEWLINE
    returns = np.flatnonzero(data == _RETURN)
    if len(returns):
        is_end[returns] = data[np.minimum(returns + 1, len(data) - 1)] != _NEWLINE
    return np.flatnonzero(is_end)


def _is_blank(line: bytes, line_format: LineFormat) -> bool:
    """True for a line that is not a row: only white space in JSON Lines, nothing at all in CSV."""
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


class _Splitter:
    """Positions of the newlines that end a record, chunk by chunk; keeps the quote parity between them."""

    def __init__(self, uri: str, line_format: LineFormat, delimiter: str) -> None:
        self._uri = uri
        self._format = line_format
        self._num_quotes = 0
        self._last_byte = _NEWLINE
        self._num_newlines = 0
        # What may stand before a quote that opens a field and after one that closes it.
        self._beside_quotes = np.zeros(256, dtype=bool)
        self._beside_quotes[[_NEWLINE, _RETURN, _QUOTE, ord(delimiter)]] = True

    def newlines(self, data: Bytes) -> Positions:
        newlines = _line_ends(data)
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
        good = np.where(opens, self._beside_quotes[before], ~opens)
        inside = quotes + 1 < len(data)
        after = data[np.minimum(quotes + 1, len(data) - 1)]
        good &= opens | ~inside | self._beside_quotes[after]
        if self._num_newlines == 0 and self._num_quotes == 0 and len(quotes):
            # A byte order mark may stand before the first quote of the file.
            good[0] |= quotes[0] == len(BOM) and data[: len(BOM)].tobytes() == BOM
        # A quote that closed at the very end of the last chunk: the first byte of this one follows it.
        closed_before = self._num_quotes > 0 and self._num_quotes % 2 == 0 and self._last_byte == _QUOTE
        first_good = not closed_before or bool(self._beside_quotes[data[0]])
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
    return Source(
        uri=file.uri,
        name=name,
        format=file.format,
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=scan.sha256[:FINGERPRINT_HEX],
        num_rows=scan.num_rows,
        # A compressed stream is read from its beginning wherever a range starts.
        splits=splits_at(range(0, scan.num_rows, INDEX_ROWS) if scan.is_seekable else (), scan.num_rows),
        offsets=scan.offsets,
        index_rows=INDEX_ROWS,
        schema=schema,
        bytes_per_row=scan.num_bytes / max(1, scan.num_rows),
    )
