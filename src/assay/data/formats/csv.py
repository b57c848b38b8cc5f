"""CSV: a header, then a record a row; records become columns of bytes, one bad record at a time if need be."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from assay.data.formats import lines
from assay.data.formats.format import FileFormat, SourceFile
from assay.data.formats.heads import other_than_table, way_out_of
from assay.data.rows import BATCH_BYTES, NOT_CSV, NOT_UTF8, SourceRows, as_text, keys_of, null_at
from assay.data.sources import Columns, Source, id_type, role_paths
from assay.errors import SourceError, UsageError

DELIMITERS = (",", ";", "\t")
"""What may stand between two fields without being named."""
_USUAL = (*DELIMITERS, "|", ":", "^", "~")
"""What else is often found there, for hints."""

# Digits that a number gives back unchanged: "7", "-7", not "007", "+7", "-0".
_INTEGER = re.compile(rb"0|-?[1-9][0-9]*")
_INTEGER_PATTERN = r"^(0|-?[1-9][0-9]*)$"
_INT64 = range(-(2**63), 2**63)
_MAX_DIGITS = 20


def inspect(file: SourceFile, name: str, columns: Columns) -> Source:
    """What one pass over the file counts, the header's columns, and their types in the first rows."""
    head = lines.first_bytes(file.uri)
    if found := other_than_table(head):
        msg = f"{file.uri}: it begins like {found}, not like CSV; {way_out_of(found, head)}"
        raise SourceError(msg)
    first = lines.LineReader(file.uri, "csv", ()).header()
    delimiter = file.delimiter or find_delimiter(first, file.uri)
    try:
        scan = lines.scan(file.uri, "csv", delimiter)
    except SourceError:
        # with another delimiter, quotes that are in order seem out of it
        bare = b"".join(first.split(b'"')[::2]).decode("utf-8", "replace")
        if hint := delimiter_hint(bare.split(delimiter), delimiter, columns.text):
            shown = first[:60].decode("utf-8", "replace")
            msg = f"{file.uri}: no {delimiter!r} parts its header {shown!r}; set --delimiter {hint}"
            raise SourceError(msg) from None
        raise
    header = parse_header(first, file.uri, delimiter)
    schema = infer_schema(header, lines.sample(file.uri, "csv", scan), delimiter)
    return replace(lines.line_source(file, name, scan, schema), delimiter=delimiter)


def find_delimiter(header: bytes, uri: str) -> str:
    """A tab in a `.tsv` file; else comma, semicolon or tab: whichever the header has most of outside quotes."""
    if lines.uncompressed_name(uri).lower().endswith(".tsv"):
        return "\t"
    bare = b"".join(header.split(b'"')[::2])
    return max(DELIMITERS, key=lambda one: bare.count(one.encode()))


def delimiter_hint(names: Sequence[str], delimiter: str, wanted: str | None) -> str | None:
    """What `--delimiter` should be, as a shell takes it, for a header that `delimiter` parts into `names`.

    None where no other parts it either, so that the column `wanted` is there.
    """
    header = delimiter.join(names)
    others = [other for other in _USUAL if other != delimiter and other in header]
    fitting = [other for other in others if wanted in header.split(other)]
    if not fitting and len(names) == 1:
        fitting = sorted(others, key=header.count, reverse=True)
    return next(("tab" if other == "\t" else f"'{other}'" for other in fitting), None)


def check_delimiter(text: str) -> str:
    """The delimiter that a user typed; raises UsageError for what cannot be one."""
    if text in {"\\t", "tab"}:
        return "\t"
    if len(text) != 1 or not text.isascii() or text.isalnum() or text in '"\r\n\0':
        msg = (
            f"--delimiter is {text!r}; it must be one ASCII character, not a letter, digit or quote: "
            "',' ';' '|' or tab"
        )
        raise UsageError(msg)
    return text


def read(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[SourceRows]:
    """Rows from `start` on."""
    header = source.schema.names
    paths = role_paths(source, columns)
    wanted = list(dict.fromkeys(path[0] for path in paths.values()))
    # Record 0 of the file is the header; `offsets` and the reader count rows.
    reader = lines.LineReader(source.uri, "csv", source.offsets, source.index_rows)
    try:
        for records in reader.read(start, source.num_rows, max_rows=batch_rows, max_bytes=BATCH_BYTES):
            table, bad = parse_records(records, header, wanted, delimiter=source.delimiter)
            yield _batch(source, columns, start, table, bad)
            start += len(records)
    finally:
        reader.close()


def _batch(source: Source, columns: Columns, start: int, table: pa.Table, bad: Sequence[int]) -> SourceRows:
    errors = dict.fromkeys(bad, NOT_CSV)
    texts: dict[str, pa.Array] = {}
    scalars: dict[str, pa.Array] = {}
    for role, (name,) in role_paths(source, columns).items():
        column = table.column(name).combine_chunks()
        if role in {"texts", "text_pairs"}:
            texts[role] = as_text(column, errors)
            continue
        column, broken = without_bad_bytes(column)
        for index in broken:
            errors.setdefault(index, NOT_UTF8)
        # A label column may go on with 3.5 after a thousand whole numbers; an id column may not.
        kind = id_type(source, columns) if role == "ids" else pa.string()
        scalars[role] = to_array(column, kind, first_row=start, uri=source.uri, name=name)
    if errors:
        texts = {role: null_at(array, errors) for role, array in texts.items()}
    return SourceRows(
        start=start,
        num_rows=table.num_rows,
        ids=scalars.get("ids"),
        texts=texts.get("texts"),
        text_pairs=texts.get("text_pairs"),
        labels=scalars.get("labels"),
        groups=scalars.get("groups"),
        keys=keys_of(scalars),
        errors=dict(sorted(errors.items())),
    )


def parse_header(header: bytes, uri: str, delimiter: str = ",") -> list[str]:
    """The column names in a file's first record; raises SourceError where they are not text or not unique."""
    if not header:
        return []
    values = _parse(header + b"\n", None, delimiter=delimiter)
    if values is None:
        msg = f"{uri}: its first record is not a CSV header; write the column names there"
        raise SourceError(msg)
    try:
        names = [values.column(index)[0].as_py().decode() for index in range(values.num_columns)]
    except UnicodeDecodeError as error:
        msg = f"{uri}: its header is not UTF-8; write the file as UTF-8"
        raise SourceError(msg) from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"{uri}: its header names {twice!r} twice; give each column a name of its own"
        raise SourceError(msg)
    return names


def infer_schema(header: Sequence[str], records: Sequence[bytes], delimiter: str = ",") -> pa.Schema:
    """A column is int64 where each of its values in `records` is one, null where there is none, else string."""
    table, _ = parse_records(records, header, delimiter=delimiter)
    fields = []
    for name in header:
        values = [value for value in table.column(name).to_pylist() if value]
        are_integers = all(
            len(value) <= _MAX_DIGITS and _INTEGER.fullmatch(value) and int(value) in _INT64
            for value in values
        )
        fields.append((name, pa.null() if not values else pa.int64() if are_integers else pa.string()))
    return pa.schema(fields)


def parse_records(
    records: Sequence[bytes],
    header: Sequence[str],
    wanted: Sequence[str] | None = None,
    *,
    delimiter: str = ",",
) -> tuple[pa.Table, list[int]]:
    """The fields of `records` as large_binary columns (`wanted` of `header`), and which records are bad.

    A bad record has another number of fields than the header; its row is all null. Every other
    field is bytes, empty where nothing stood there.
    """
    if not header:
        return pa.table({}), []
    wanted = wanted or header[:1] if wanted is not None else header
    table = _parse(b"\n".join([*records, b""]), header, wanted, delimiter=delimiter) if records else None
    if table is not None and table.num_rows == len(records):
        return table, []
    if len(records) <= 1:
        nothing = pa.nulls(len(records), pa.large_binary())
        return pa.table(dict.fromkeys(wanted, nothing)), list(range(len(records)))
    middle = len(records) // 2
    first, bad_first = parse_records(records[:middle], header, wanted, delimiter=delimiter)
    second, bad_second = parse_records(records[middle:], header, wanted, delimiter=delimiter)
    return pa.concat_tables([first, second]), bad_first + [middle + index for index in bad_second]


def _parse(
    content: bytes, header: Sequence[str] | None, wanted: Sequence[str] | None = None, *, delimiter: str
) -> pa.Table | None:
    names = wanted or [f"f{index}" for index in range(content.count(delimiter.encode()) + 1)]
    try:
        return pcsv.read_csv(
            pa.BufferReader(content),
            read_options=pcsv.ReadOptions(
                use_threads=False,
                block_size=len(content) + 64,
                column_names=header,
                autogenerate_column_names=header is None,
            ),
            parse_options=pcsv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pcsv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(names, pa.large_binary()),
                check_utf8=False,
                strings_can_be_null=False,
                null_values=[],
            ),
        )
    except pa.ArrowInvalid:
        return None


def without_bad_bytes(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """A column of bytes as large_string, null where it is not UTF-8, and the places of those."""
    try:
        return column.cast(pa.large_string()), []
    except pa.ArrowInvalid:
        pass
    values = column.to_pylist()
    bad = []
    for index, value in enumerate(values):
        try:
            values[index] = None if value is None else value.decode()
        except UnicodeDecodeError:
            bad.append(index)
            values[index] = None
    return pa.array(values, pa.large_string()), bad


def to_array(values: pa.Array, kind: pa.DataType, *, first_row: int, uri: str, name: str) -> pa.Array:
    """A large_string column as `kind`; an empty field is an empty string or a null of any other type.

    Raises SourceError naming the first row whose value is not an integer where the first rows were.
    """
    if kind == pa.string():
        return values.cast(kind)
    values = pc.if_else(pc.equal(values, ""), None, values)
    if kind != pa.int64():
        try:
            return values.cast(kind)
        except pa.ArrowException as error:
            msg = (
                f"{uri} from row {first_row}: {name!r} is not {kind} as in the run's other sources; cast one"
            )
            raise SourceError(msg) from error
    good = pc.match_substring_regex(values, _INTEGER_PATTERN).fill_null(fill_value=True)
    if pc.all(good).as_py() is not False:
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            good = pa.array([value is None or int(value) in _INT64 for value in values.to_pylist()])
    index = good.index(False).as_py()
    shown = values[index].as_py()[:60]
    msg = (
        f"{uri} row {first_row + index}: {name!r} is {shown!r}, the first rows have integers; "
        "name another column, or write the file as JSON Lines with strings"
    )
    raise SourceError(msg)


FORMAT = FileFormat(
    name="csv",
    endings=(".csv", ".tsv"),
    inspect=inspect,
    read=read,
    is_compressible=True,
    has_schema=False,
    is_delimited=True,
    is_all_text=True,
)
