"""Bronze: source files as they came, appended once each.

A file is known by the hash of its bytes and, where one is stated, its encoding. The commit that adds its rows records
that as a Delta transaction, so a file is in the table whole or not at all, and neither a second run nor a new name adds
it again; in another encoding it takes, in one commit, the place of what it was before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from tamiz.data.columns import fit, storable_schema, widen
from tamiz.data.lake import Lake
from tamiz.errors import ColumnError, DataError, SourceError, counted, one_of
from tamiz.types import Source, SourceFile

__all__ = ["ORIGIN", "Ingested", "ingest", "pending"]

ORIGIN = pa.schema(
    [
        ("_source", pa.string()),
        ("_source_sha256", pa.string()),
        ("_row", pa.int64()),
        ("_ingested_at", pa.timestamp("us", "UTC")),
        ("_reading", pa.string()),
    ]
)
"""Columns that every bronze row has besides its own: where it came from, when, and in which stated encoding."""

# Small files share a commit: a folder of a text per file would otherwise make one Delta version each.
_COMMIT_BYTES = 64_000_000
_COMMIT_FILES = 2_000
_BATCH_ROWS = 8_192
_BATCH_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did.

    Attributes:
        version: version of the bronze table afterwards.
        added_rows: rows added by this call.
        added_files: paths of the files added by this call.
        skipped_files: paths of the files whose content was there already.
        changed_files: those of the added files that the table held with other content, whose rows stay.
        returned_files: paths of skipped files that have been added with another content since.
        reread_files: those of the added files that the table held, read in another encoding; those rows are gone.
        strays: rows by path of files that are not in the source (any more), neither by path nor by content.
        lacking: paths of the added files by expected column that they do not have.
    """

    version: int
    added_rows: int
    added_files: tuple[str, ...]
    skipped_files: tuple[str, ...]
    changed_files: tuple[str, ...] = ()
    returned_files: tuple[str, ...] = ()
    reread_files: tuple[str, ...] = ()
    strays: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def notices(self, key: str, *, ids_given: bool = False) -> list[str]:
        """Return what a person should know, one sentence each.

        Args:
            key: key of the section `data` that names the source.
            ids_given: whether rows have ids, so that those of a newer content take the place of earlier ones.
        """
        found = []
        but = ", but for those whose id comes again" if ids_given else " as well"
        if self.changed_files:
            found.append(
                f"{_names(self.changed_files)}: changed since the last ingest; the earlier rows stay{but}. "
                "Another `lake` starts without them"
            )
        if self.returned_files:
            found.append(
                f"{_names(self.returned_files)}: has a content again that came before; the rows that came after it "
                "stay. Another `lake` starts without them"
            )
        found += [
            f"{_names(paths)}: no column {column!r}; {'their' if paths[1:] else 'its'} rows are taken without it"
            for column, paths in self.lacking.items()
        ]
        if self.reread_files:
            found.append(f"{_names(self.reread_files)}: read anew in the stated encoding, in place of the rows before")
        if self.strays:
            rows = counted(sum(self.strays.values()), "row")
            found.append(
                f"{rows} of {_names(sorted(self.strays))}, which data.{key} does not name, are in the lake and used. "
                "Another `lake` is without them"
            )
        return found


def _names(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3:,} more" if paths[3:] else ""
    return ", ".join(Path(path).name for path in paths[:3]) + more


class _NewColumnsError(Exception):
    """A batch has columns or types that the schema in use does not hold."""

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__("the columns changed")
        self.schema = schema


def ingest(
    lake: Lake,
    source: Source,
    *,
    table: str = "bronze/texts",
    partition_by: Sequence[str] = (),
    expected: Sequence[str] = (),
    now: datetime,
) -> Ingested:
    """Append the files of `source` that the table does not hold yet, in the order of their paths.

    Rows keep all their columns and gain those of `ORIGIN`. A column whose type differs between files becomes text,
    for which the table is rewritten once.

    Args:
        lake: where the table stands.
        source: the files.
        table: name of the bronze table.
        partition_by: columns that partition the table's files.
        expected: columns of which each file that lacks one is told.
        now: time of the ingest; a naive one is taken as UTC.

    Raises:
        SourceError: a file cannot be read, none has a row, or columns of two files cannot be brought together.
        ColumnError: a column of `partition_by` is not in a file.
        DataError: the table is partitioned by other columns.
    """
    _check_partitions(lake, table, partition_by)
    now = now.replace(tzinfo=UTC) if now.tzinfo is None else now.astimezone(UTC)
    files = sorted(source.files(), key=lambda file: file.path)
    held = _held(lake, table)
    fresh, reread, skipped = _sorted_out(lake, table, files, held)
    newest: dict[str, datetime] = {}
    for (path, _), content in held.items():
        newest[path] = max(content.ingested_at, newest.get(path, content.ingested_at))
    if newest and now < max(newest.values()):  # the clock was set back; which content is newer must still be told
        now = max(newest.values()) + timedelta(microseconds=1)
    commit = partial(_Commit, lake, source, table, tuple(partition_by), now)
    commits = [commit(reread, replaces=True)] if reread else []
    commits += [commit(part) for part in _parts(fresh)]
    added_rows = sum(one.run() for one in commits)
    version = lake.version(table)
    if version is None:
        names = ", ".join(file.path for file in fresh[:5])
        raise SourceError(f"no row to ingest into {table!r} from: {names or 'a source without files'}")
    paths, contents = {file.path for file in files}, {file.sha256 for file in files}
    strays: Counter[str] = Counter()
    for (path, sha256), content in held.items():
        if path not in paths and sha256 not in contents:
            strays[path] += content.rows
    lacking = {
        name: tuple(path for one in commits for path, names in one.columns.items() if name not in names)
        for name in expected
    }
    return Ingested(
        version,
        added_rows,
        added_files=tuple(sorted(file.path for file in (*reread, *fresh))),
        skipped_files=tuple(file.path for file in skipped),
        changed_files=tuple(file.path for file in fresh if file.path in newest),
        returned_files=tuple(
            file.path
            for file in skipped
            if (at := held.get((file.path, file.sha256))) is not None and at.ingested_at < newest[file.path]
        ),
        reread_files=tuple(file.path for file in reread),
        strays=dict(strays),
        lacking={name: files for name, files in lacking.items() if files},
    )


def pending(lake: Lake, source: Source, *, table: str) -> list[str]:
    """Return the paths of the files that `ingest` would add now, or read anew in another encoding; nothing is written.

    Raises:
        SourceError: a file cannot be read.
    """
    fresh, reread, _ = _sorted_out(lake, table, source.files(), _held(lake, table))
    return sorted(file.path for file in (*fresh, *reread))


@dataclass(frozen=True, slots=True)
class _Content:
    """What the table holds of one file with one content."""

    rows: int
    ingested_at: datetime
    reading: str


def _held(lake: Lake, table: str) -> dict[tuple[str, str], _Content]:
    """Return what the table holds by path and content."""
    found: dict[tuple[str, str], _Content] = {}
    if lake.version(table) is None:
        return found
    keys = [name for name in ORIGIN.names if name != "_row" and name in lake.schema(table).names]
    for batch in lake.scan(table, columns=keys):
        for row in pa.Table.from_batches([batch]).group_by(keys).aggregate([([], "count_all")]).to_pylist():
            at = row["_source"], row["_source_sha256"]
            before = found[at].rows if at in found else 0
            found[at] = _Content(before + row["count_all"], row["_ingested_at"], row.get("_reading") or "")
    return found


def _transaction(file: SourceFile) -> str:
    return f"sha256:{file.sha256}" + (f":{file.reading}" if file.reading else "")


def _sorted_out(
    lake: Lake, table: str, files: Sequence[SourceFile], held: Mapping[tuple[str, str], _Content]
) -> tuple[list[SourceFile], list[SourceFile], list[SourceFile]]:
    """Return the files to add, one per content, those to read in another way than before, and the others; by path.

    The order makes an ingest that was cut off and resumed leave rows in the order of an unbroken one.
    """
    readings = {sha256: content.reading for (_, sha256), content in held.items()}
    seen = lake.holds(table, map(_transaction, files))  # also of files without a row
    fresh, reread, skipped = list[SourceFile](), list[SourceFile](), list[SourceFile]()
    for file in files:
        reading = readings.get(file.sha256)
        if reading is not None and reading != file.reading:
            readings[file.sha256] = file.reading
            reread.append(file)
        elif reading is not None or _transaction(file) in seen:
            skipped.append(file)
        else:
            seen.add(_transaction(file))
            fresh.append(file)
    return fresh, reread, skipped


def _parts(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    """Gather neighbouring small files; a large one stands alone."""
    group: list[SourceFile] = []
    size_bytes = 0
    for file in files:
        if group and (size_bytes + file.size_bytes > _COMMIT_BYTES or len(group) == _COMMIT_FILES):
            yield group
            group, size_bytes = [], 0
        group.append(file)
        size_bytes += file.size_bytes
    if group:
        yield group


@dataclass(slots=True)
class _Commit:
    """A few files that enter the table together; `replaces` the rows that it has of their contents."""

    lake: Lake
    source: Source
    table: str
    partition_by: tuple[str, ...]
    now: datetime
    files: list[SourceFile]
    replaces: bool = False
    rows: int = field(default=0, init=False)
    columns: dict[str, set[str]] = field(default_factory=dict, init=False)

    def run(self) -> int:
        """Write the files and return the number of rows.

        Columns are known only when the files have been read to their end; a batch that brings new ones stops the
        write, before anything is committed, and it starts over with the wider schema.
        """
        schema = ORIGIN
        if self.lake.version(self.table) is not None:
            schema = widen(self.lake.schema(self.table), ORIGIN)
        for _ in range(1_000):  # each round adds a column or widens a type
            self.rows = 0
            _widen_table(self.lake, self.table, schema, self.partition_by)
            try:
                self._write(schema)
            except _NewColumnsError as change:
                schema = change.schema
            else:
                return self.rows
        raise SourceError(f"the columns of {self.files[0].path} keep changing; convert the file to one schema")

    def _write(self, schema: pa.Schema) -> None:
        batches = _joined(self._batches(schema), schema)
        if self.replaces:
            contents = [file.sha256 for file in self.files]
            others = self.lake.scan(self.table, filters=~ds.field("_source_sha256").isin(contents))
            kept = (fit(batch, schema) for batch in others)
            self.lake.replace(self.table, schema, chain(kept, batches), partition_by=self.partition_by)
            return
        first = next(batches, None)
        if first is None:  # no table is made for files without rows
            return
        self.lake.append(
            self.table,
            schema,
            chain([first], batches),
            partition_by=self.partition_by,
            transaction_ids=[_transaction(file) for file in self.files],
        )

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for file in self.files:
            row = 0
            for batch in self.source.batches(file):
                self._check(batch.schema, file)
                wider = widen(schema, storable_schema(batch.schema))
                if wider != schema:
                    raise _NewColumnsError(wider)
                try:
                    fitted = fit(batch, schema)
                except pa.ArrowException as error:
                    raise SourceError(
                        f"{file.path}: a column cannot be kept ({type(error).__name__}); give its values a simpler type"
                    ) from error
                yield self._with_origin(fitted, file, row)
                row += batch.num_rows
                self.rows += batch.num_rows

    def _check(self, schema: pa.Schema, file: SourceFile) -> None:
        self.columns.setdefault(file.path, set()).update(schema.names)
        taken = sorted(set(schema.names) & set(ORIGIN.names))
        if taken:
            raise SourceError(f"{file.path}: the column name {taken[0]!r} is Tamiz's own; rename the column")
        for name in self.partition_by:
            if name not in schema.names:
                raise ColumnError(
                    f"data.partition_by: {file.path} has no column {name!r}; {one_of(name, schema.names)}"
                )

    def _with_origin(self, batch: pa.RecordBatch, file: SourceFile, row: int) -> pa.RecordBatch:
        n = batch.num_rows
        origin = {
            "_source": pa.repeat(file.path, n),
            "_source_sha256": pa.repeat(file.sha256, n),
            "_row": pa.array(range(row, row + n), pa.int64()),
            "_ingested_at": pa.repeat(pa.scalar(self.now, ORIGIN.field("_ingested_at").type), n),
            "_reading": pa.repeat(file.reading, n),
        }
        columns = [origin.get(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _joined(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Join small neighbouring batches (a file of one text gives one row) and drop empty ones."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield from pa.Table.from_batches(held, schema).combine_chunks().to_batches(_BATCH_ROWS)
            held, rows, size = [], 0, 0
    if held:
        yield from pa.Table.from_batches(held, schema).combine_chunks().to_batches(_BATCH_ROWS)


def _widen_table(lake: Lake, table: str, schema: pa.Schema, partition_by: Sequence[str]) -> None:
    """Rewrite the table where a column it has needs a wider type; Delta changes no type in place."""
    if lake.version(table) is None:
        return
    known = lake.schema(table)
    target = pa.schema([schema.field(name) for name in known.names])
    if target != known:
        lake.replace(table, target, (fit(batch, target) for batch in lake.scan(table)), partition_by=partition_by)


def _check_partitions(lake: Lake, table: str, partition_by: Sequence[str]) -> None:
    if lake.version(table) is None:
        return
    known = lake.partition_columns(table)
    if known != tuple(partition_by):
        raise DataError(
            f"the table {lake.uri(table)} is partitioned by {list(known)}, and data.partition_by says "
            f"{list(partition_by)}. Put the old value back, or choose another lake folder and ingest again"
        )
