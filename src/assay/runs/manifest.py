"""`run.json`: what was planned, and what must not change while the run lives.

Written once, by exclusive create. Pydantic guards it because it is read back from a disk or a
bucket that others can write to.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from assay.data.sources import SOURCE_ROW, Columns, Source
from assay.errors import InputError, RefusedError, SourceError
from assay.runs.kinds import IdentityT, RowsOut, RunKind, SettingsT
from assay.runs.plan import Unit, units_of

FORMAT_VERSION = 2
RUN_ID_HEX = 32
MANIFEST_PATH = "run.json"
SHOWN_CHARACTERS = 40
"""Of a value in a message."""

Json = dict[str, Any]


class SourceRecord(BaseModel):
    """One source as it was when the run was planned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    name: str
    format: str
    size_bytes: int
    version: str
    fingerprint: str
    num_rows: int
    boundaries: tuple[int, ...]
    offsets: tuple[int, ...] = ()
    index_rows: int = 0
    bytes_per_row: float = 0.0
    delimiter: str = ","
    schema_index: int

    @property
    def planned_rows(self) -> int:
        """Rows that the run covers: all of them, or fewer under `--limit-rows`."""
        return self.boundaries[-1] - self.boundaries[0] if self.boundaries else 0


class ColumnsRecord(BaseModel):
    """Which columns of the sources are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None
    text_pair: str | None
    id: str | None
    input_ids: str | None


class Manifest(BaseModel):
    """Everything a worker or a check needs to know about a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    run_id: str
    kind: str
    rows_out: RowsOut
    """What a part holds for a row of its source."""
    assay_version: str
    created_at: str
    identity: Json
    """What makes the numbers, as the kind's record; see `read`."""
    settings: Json
    """What workers need besides, as the kind's record; see `read`."""
    columns: ColumnsRecord
    schemas: tuple[str, ...]
    """The distinct Arrow schemas of the sources, serialized, base64."""
    sources: tuple[SourceRecord, ...]
    part_schema: str
    """The Arrow schema of every part, serialized, base64."""

    def read(self, kind: RunKind[IdentityT, SettingsT]) -> tuple[IdentityT, SettingsT]:
        """Identity and settings of a run of this kind.

        Raises InputError for a run of another kind, SourceError for records that do not fit.
        """
        if self.kind != kind.name:
            msg = f"run {self.run_id} is a {self.kind} run; this takes a {kind.name} run; give one"
            raise InputError(msg)
        try:
            return kind.identity.model_validate(self.identity), kind.settings.model_validate(self.settings)
        except ValidationError as error:
            msg = f"run {self.run_id}: {_first_problem(error)}; its run.json is damaged; start a new run elsewhere"
            raise SourceError(msg) from error

    def units(self) -> list[Unit]:
        """All units in source and row order."""
        return [
            unit
            for index, record in enumerate(self.sources)
            for unit in units_of(index, record.name, record.boundaries)
        ]

    @property
    def planned_rows(self) -> int:
        """Rows of all units."""
        return sum(record.planned_rows for record in self.sources)

    def arrow_schema(self) -> pa.Schema:
        """The schema of every part."""
        return decode_schema(self.part_schema)

    def source(self, index: int) -> Source:
        """The source at `index`, as the readers of `data` want it."""
        record = self.sources[index]
        id_field = self.arrow_schema().field(0)
        return Source(
            uri=record.uri,
            name=record.name,
            format=record.format,
            size_bytes=record.size_bytes,
            version=record.version,
            fingerprint=record.fingerprint,
            num_rows=record.num_rows,
            splits=(0,),
            offsets=record.offsets,
            index_rows=record.index_rows,
            schema=decode_schema(self.schemas[record.schema_index]),
            bytes_per_row=record.bytes_per_row,
            delimiter=record.delimiter,
            id_type=None if id_field.name == SOURCE_ROW else id_field.type,
        )

    def source_columns(self) -> Columns:
        """The columns that the run reads."""
        return Columns(
            text=self.columns.text,
            text_pair=self.columns.text_pair,
            id=self.columns.id,
            input_ids=self.columns.input_ids,
        )


def new_manifest(
    *,
    kind: RunKind[IdentityT, SettingsT],
    assay_version: str,
    identity: IdentityT,
    settings: SettingsT,
    columns: Columns,
    sources: Sequence[Source],
    boundaries: Sequence[tuple[int, ...]],
    part_schema: pa.Schema,
) -> Manifest:
    """The manifest of a run over `sources`, cut at `boundaries` (one tuple a source)."""
    schemas: dict[str, int] = {}
    records = tuple(
        SourceRecord(
            uri=source.uri,
            name=source.name,
            format=source.format,
            size_bytes=source.size_bytes,
            version=source.version,
            fingerprint=source.fingerprint,
            num_rows=source.num_rows,
            boundaries=cuts,
            offsets=source.offsets,
            index_rows=source.index_rows,
            bytes_per_row=source.bytes_per_row,
            delimiter=source.delimiter,
            schema_index=schemas.setdefault(encode_schema(source.schema), len(schemas)),
        )
        for source, cuts in zip(sources, boundaries, strict=True)
    )
    columns_record = ColumnsRecord(
        text=columns.text, text_pair=columns.text_pair, id=columns.id, input_ids=columns.input_ids
    )
    assert kind.rows_out == "one_each" or SOURCE_ROW in part_schema.names, "rows that know their source row"
    fixed = identity.model_dump(mode="json")
    return Manifest(
        format_version=FORMAT_VERSION,
        run_id=run_id(kind.name, fixed, columns_record, records),
        kind=kind.name,
        rows_out=kind.rows_out,
        assay_version=assay_version,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        identity=fixed,
        settings=settings.model_dump(mode="json"),
        columns=columns_record,
        schemas=tuple(schemas),
        sources=records,
        part_schema=encode_schema(part_schema),
    )


def run_id(kind: str, identity: Json, columns: ColumnsRecord, sources: Sequence[SourceRecord]) -> str:
    """Hash of all that can change a number or a row: 32 hex digits.

    Neither the worker count nor the unit plan nor where the sources lie is part of it; their names,
    sizes, row counts and content fingerprints are.
    """
    listed = [
        [
            source.name,
            source.size_bytes,
            source.num_rows,
            source.planned_rows,
            source.fingerprint,
            source.delimiter,
        ]
        for source in sources
    ]
    document = json.dumps([kind, identity, columns.model_dump(), listed], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()[:RUN_ID_HEX]


def parse_manifest(content: bytes, where: str) -> Manifest:
    """The manifest in `content`; raises SourceError or RefusedError naming `where`."""
    try:
        raw = json.loads(content)
    except ValueError as error:
        msg = f"{where} is not JSON ({error}); the run directory is damaged; start a new run elsewhere"
        raise SourceError(msg) from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        msg = (
            f"{where} has run format version {version!r}; this Assay reads version {FORMAT_VERSION}; "
            "use the Assay that wrote it, or do the work again into another --run"
        )
        raise RefusedError(msg)
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        msg = f"{where}: {_first_problem(error)}; the run directory is damaged; start a new run elsewhere"
        raise SourceError(msg) from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def differences(old: Manifest, new: Manifest) -> list[str]:
    """What changed between the run as planned and as asked for now, a phrase each; [] if nothing."""
    found: list[str] = []
    if old.kind != new.kind:
        found.append(f"the run is a {old.kind} run, not a {new.kind} run")
    found += identity_differences(old.identity, new.identity)
    for key, before in old.columns.model_dump().items():
        after = getattr(new.columns, key)
        if before != after:
            found.append(f"{key} column was {before!r}, now {after!r}")
    return found + _source_differences(old.sources, new.sources)


def identity_differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """The values that are no longer the same, a phrase each: `max_length was 256, now 512`."""
    return [
        f"{key} was {short(before.get(key))}, now {short(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _source_differences(old: Sequence[SourceRecord], new: Sequence[SourceRecord]) -> list[str]:
    before = {source.name: source for source in old}
    after = {source.name: source for source in new}
    found = [f"source {name} is gone" for name in before if name not in after]
    found += [f"source {name} is new" for name in after if name not in before]
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            continue
        if (was.size_bytes, was.num_rows) != (now.size_bytes, now.num_rows):
            found.append(
                f"source {name} was {was.size_bytes:,} bytes and {was.num_rows:,} rows, "
                f"now {now.size_bytes:,} bytes and {now.num_rows:,} rows"
            )
        elif was.fingerprint != now.fingerprint:
            found.append(f"the content of source {name} changed")
        elif was.delimiter != now.delimiter:
            found.append(f"the delimiter of source {name} was {was.delimiter!r}, now {now.delimiter!r}")
        elif was.planned_rows != now.planned_rows:
            found.append(f"source {name} was planned for {was.planned_rows:,} rows, now {now.planned_rows:,}")
    if not found and [source.name for source in old] != [source.name for source in new]:
        found.append("the sources come in another order")
    return found


def short(value: object) -> str:
    """A value of a record, for a message; of a long one the beginning and a hash, so that two long ones differ."""
    text = value if isinstance(value, str) else json.dumps(value)
    return (
        text
        if len(text) <= SHOWN_CHARACTERS
        else f"{text[:12]}...{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )


def encode_schema(schema: pa.Schema) -> str:
    """A schema as base64 text, for JSON."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def decode_schema(text: str) -> pa.Schema:
    """The schema that `encode_schema` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
