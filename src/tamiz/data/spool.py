"""A temporary file of record batches, for a second look at rows that were costly to make."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from tamiz._files import explain
from tamiz.errors import StoreError

__all__ = ["Spool"]


class Spool:
    """Batches kept on local disk, compressed, until the `with` block ends.

    Args:
        schema: columns of every batch.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._folder = tempfile.TemporaryDirectory(prefix="tamiz-")
        self._path = Path(self._folder.name) / "rows.arrows"
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(str(self._path), schema, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # the end of a file that is not read any more
            self._writer.close()
        self._folder.cleanup()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch.

        Raises:
            StoreError: the temporary folder has no space or may not be written.
        """
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            raise StoreError(
                f"the temporary folder {self._folder.name} cannot be written: {explain(error)}; TMPDIR names another"
            ) from error

    def read(self) -> Iterator[pa.RecordBatch]:
        """Give the batches in the order in which they were written; nothing can be added afterwards."""
        self._writer.close()
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader
