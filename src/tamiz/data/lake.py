"""The lake: Delta tables under one folder or `s3://` address.

The one place that speaks to `deltalake`. Foreign errors leave it as `tamiz.errors`, without the data they may quote.
An `s3://` root takes its credentials, region and endpoint from the `AWS_*` variables, which the Rust object store
under Delta reads by itself; commits are conditional puts, so no lock table is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from tamiz.errors import ConfigError, ConflictError, DataError, StoreError, TamizError

__all__ = ["Lake"]

# While a table is written, one thread of Delta's runtime waits for rows, which may come from another table that needs a
# thread of the same runtime. On a single processor it has one thread only, and would wait for ever.
os.environ.setdefault("TOKIO_WORKER_THREADS", str(max(2, os.cpu_count() or 2)))

# One row group is what a reader holds at least: with texts of some kB this keeps a scan within tens of MB.
_ROW_GROUP_ROWS = 16_384
_WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=_ROW_GROUP_ROWS)
# Versions are what models were trained from: by default Delta would forget those of more than thirty days ago.
_KEEP_LOGS = PostCommitHookProperties(cleanup_expired_logs=False)
# What Delta's path rules decode or do not allow; in an address `#` and `?` would end the path, for every table alike.
_REFUSED, _REFUSED_ON_S3 = "%[]^|\\", "%[]^|\\#?"
# How Delta words that the place refused a file of rows; other errors of this kind may quote the data.
_FILE_REFUSED = re.compile(r"Failed to parse parquet: (?:External: )+")
_BRANCH = re.compile(r"\s*(?:\x1b\[\d+m)?↳(?:\x1b\[\d+m)?\s*")


class Lake:
    """Delta tables by name (`bronze/texts`, `gold/examples`) under one root.

    Args:
        root: local folder (made on the first write) or `s3://bucket/prefix`.

    Raises:
        ConfigError: `root` is a URL of another kind, or holds a `%`, which Delta's path rules decode, or another
            character that they do not allow.
    """

    def __init__(self, root: str) -> None:
        if "://" in root and not root.startswith("s3://"):
            raise ConfigError(f"lake: got {root!r}; allowed: a local folder or an s3:// address")
        self.root = root.rstrip("/") if "://" in root else str(Path(root).absolute())
        refused = _REFUSED_ON_S3 if "://" in root else _REFUSED
        odd = next((one for one in self.root if one in refused or one < " " or one == "\x7f"), None)
        if odd is not None:
            raise ConfigError(f"lake: Delta tables cannot stand under a path with {odd!r}: {self.root}. Move the lake")
        # A version never changes, and to open it anew means to read the log of the whole table again.
        self._versions: dict[tuple[str, int], DeltaTable] = {}

    def uri(self, table: str) -> str:
        """Return the path or address of a table."""
        return f"{self.root}/{table}"

    def version(self, table: str) -> int | None:
        """Return the newest version of a table, or `None` where there is no such table.

        Raises:
            StoreError: the place cannot be reached or read.
        """
        opened = self._find(table)
        return None if opened is None else int(opened.version())

    def identity(self, table: str) -> str | None:
        """Return what tells a table from one that stood in its place before, or `None` where there is none.

        Raises:
            StoreError: the place cannot be reached or read.
        """
        opened = self._find(table)
        return None if opened is None else str(opened.metadata().id)

    def schema(self, table: str, *, version: int | None = None) -> pa.Schema:
        """Return the columns of a table.

        Raises:
            DataError: there is no such table or version.
        """
        return pa.schema(self._open(table, version).schema().to_arrow())

    def partition_columns(self, table: str) -> tuple[str, ...]:
        """Return the columns that partition a table's files.

        Raises:
            DataError: there is no such table.
        """
        return tuple(self._open(table, None).metadata().partition_columns)

    def holds(self, table: str, transaction_ids: Iterable[str]) -> set[str]:
        """Return which of the transactions the table has committed (none where there is no table)."""
        opened = self._find(table)
        if opened is None:
            return set()
        return {id_ for id_ in transaction_ids if opened.transaction_version(id_) is not None}

    def count(self, table: str, *, version: int | None = None) -> int:
        """Return the number of rows of a table.

        Raises:
            DataError: there is no such table or version.
        """
        opened = self._open(table, version)
        with _translated(self.uri(table), "counted"):
            return int(opened.count())

    def scan(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        filters: ds.Expression | None = None,
        batch_rows: int = 8_192,
    ) -> Iterator[pa.RecordBatch]:
        """Read a table batch by batch; the same version gives the same rows in the same order, whatever the columns.

        Args:
            table: name of the table.
            version: version to read; by default the newest.
            columns: columns to read; by default all.
            filters: keep only the rows for which this holds.
            batch_rows: most rows in one batch.

        Raises:
            DataError: there is no such table or version.
            StoreError: the place cannot be reached or read.
        """
        yield from self._batches(table, self._open(table, version), columns, filters, batch_rows)

    def _batches(
        self,
        table: str,
        opened: DeltaTable,
        columns: Sequence[str] | None,
        filters: ds.Expression | None,
        batch_rows: int = 8_192,
    ) -> Iterator[pa.RecordBatch]:
        with _translated(self.uri(table), "read"):
            dataset = opened.to_pyarrow_dataset(filesystem=self._files(table))
            # Delta promises no order of files; positions must agree between two scans of one version.
            fragments = sorted(dataset.get_fragments(), key=lambda fragment: str(fragment.path))
            for fragment in fragments:
                yield from fragment.to_batches(
                    schema=dataset.schema,
                    columns=None if columns is None else list(columns),
                    filter=filters,
                    batch_size=batch_rows,
                    batch_readahead=1,
                )

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        filters: ds.Expression | None = None,
    ) -> pa.Table:
        """Read a table whole, in the order of `scan`.

        Raises:
            DataError: there is no such table or version.
            StoreError: the place cannot be reached or read.
        """
        opened = self._open(table, version)
        schema = pa.schema(opened.schema().to_arrow())
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        batches = self._batches(table, opened, columns, filters)
        return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)

    def append(
        self,
        table: str,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        *,
        partition_by: Sequence[str] = (),
        transaction_ids: Sequence[str] = (),
    ) -> int:
        """Add rows in one commit; new columns join the table.

        Args:
            table: name of the table, made if absent.
            schema: columns of every batch.
            batches: the rows, taken one batch at a time.
            partition_by: columns that partition the files.
            transaction_ids: ids the commit records, so that `holds` finds them; a commit is there whole or not at all.

        Returns:
            The new version.

        Raises:
            DataError: the rows do not fit the table.
            ConflictError: another writer committed the same transaction first.
            StoreError: the place cannot be written.
        """
        return self._write(table, schema, batches, partition_by, "append", "merge", transaction_ids)

    def replace(
        self, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, partition_by: Sequence[str] = ()
    ) -> int:
        """Replace rows and columns of a table in one commit; older versions stay readable.

        Returns:
            The new version.

        Raises:
            ConflictError: another writer changed the table meanwhile.
            StoreError: the place cannot be written.
        """
        return self._write(table, schema, batches, partition_by, "overwrite", "overwrite", ())

    def _write(
        self,
        table: str,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        partition_by: Sequence[str],
        mode: Any,
        schema_mode: Any,
        transaction_ids: Sequence[str],
    ) -> int:
        transactions = [Transaction(id_, 1) for id_ in transaction_ids]
        opened = self._find(table)
        if opened is not None and any(opened.transaction_version(id_) is not None for id_ in transaction_ids):
            raise ConflictError(f"the table {self.uri(table)} holds some of these rows already; run again")
        feed = _Feed(batches, schema)
        try:
            with _translated(self.uri(table), "written"):
                write_deltalake(
                    # The state just looked at: Delta refuses the commit if the same transaction came after it.
                    self.uri(table) if opened is None else opened,
                    pa.RecordBatchReader.from_batches(schema, feed),
                    mode=mode,
                    schema_mode=schema_mode,
                    partition_by=list(partition_by) if partition_by or mode == "overwrite" else None,
                    writer_properties=_WRITER,
                    post_commithook_properties=_KEEP_LOGS,
                    commit_properties=CommitProperties(app_transactions=transactions or None),
                )
        except TamizError:
            if feed.error is not None:  # what ended the rows says more than what the writer made of it
                raise feed.error from None
            raise
        finally:
            feed.close()
        return int(self._open(table, None).version())

    def _files(self, table: str) -> pyarrow.fs.FileSystem | None:
        """Return how to read the files of a table; `None` is Delta's own way.

        Arrow reads a local file itself in half the time, and its threads do not wait for Python's lock meanwhile.
        """
        if "://" in self.root:
            return None
        return pyarrow.fs.SubTreeFileSystem(self.uri(table), pyarrow.fs.LocalFileSystem())

    def _find(self, table: str) -> DeltaTable | None:
        with _translated(self.uri(table), "opened"):
            try:
                return DeltaTable(self.uri(table))
            except TableNotFoundError:
                return None

    def _open(self, table: str, version: int | None) -> DeltaTable:
        if version is not None and (table, version) in self._versions:
            return self._versions[table, version]
        opened = self._find(table)
        if opened is None:
            raise DataError(f"there is no table {table!r} in the lake {self.root}. Run the step that writes it first")
        newest = int(opened.version())
        if version is None:
            return opened
        if not 0 <= version <= newest:
            raise DataError(f"table {table!r} of {self.root}: no version {version}; allowed: 0 to {newest}")
        if version < newest:
            with _translated(self.uri(table), "opened"):
                opened.load_as_version(version)
        self._versions[table, version] = opened
        return opened


class _Feed:
    """Make batches in a thread of their own and hand them on, a few at a time.

    The writer takes its batches on a thread of Delta's runtime, where another call of Delta (reading the table that the
    batches come from) would be fatal to it. It also knows a Python error as text only, so `error` remembers it.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        self.error: BaseException | None = None
        self._batches, self._schema = batches, schema
        self._queue: Queue[pa.RecordBatch | None] = Queue(maxsize=2)
        self._stopped = False
        self._thread = Thread(target=self._run, name="tamiz-lake-feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._queue.get()) is not None:
            yield batch
        if self.error is not None:
            raise DataError("the rows ended with an error")

    def close(self) -> None:
        """End the thread, also where the writer gave up before the last batch."""
        self._stopped = True
        while self._thread.is_alive():
            with suppress(Empty):
                self._queue.get(timeout=0.01)
        self._thread.join()

    def _run(self) -> None:
        try:
            for batch in self._batches:
                if self._stopped:
                    break
                if batch.schema != self._schema:  # the writer trusts the schema; other memory would crash it
                    raise DataError(f"a batch has the columns {batch.schema.names}, not {self._schema.names}")
                self._queue.put(batch)
        except BaseException as error:
            self.error = error
        self._queue.put(None)


@contextmanager
def _translated(uri: str, done: str) -> Iterator[None]:
    """Raise Tamiz's errors for Delta's and Arrow's, whose texts may quote the data."""
    try:
        yield
    except TamizError:
        raise
    except CommitFailedError as error:
        raise ConflictError(f"the table {uri} was changed by another writer meanwhile; run again") from error
    except OSError as error:
        raise StoreError(f"the table {uri} cannot be {done}: {_first_line(error)}") from error
    except Exception as error:  # DeltaError, ArrowException, and bare Exception for what DataFusion refuses
        line = _first_line(error)
        if refusal := _FILE_REFUSED.match(line):
            raise StoreError(f"the table {uri} cannot be {done}: {line[refusal.end() :]}") from error
        raise DataError(
            f"the table {uri} cannot be {done} ({type(error).__name__}): "
            "its log or files are damaged, or of a kind that this release of deltalake does not know"
        ) from error


def _first_line(error: BaseException) -> str:
    """Return what a place said; Delta breaks that into a tree of coloured lines."""
    lines = _BRANCH.sub(": ", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
