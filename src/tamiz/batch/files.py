"""Predict a file into a file, streamed, the result there whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tamiz._files import replacing
from tamiz._json import json_text
from tamiz.batch.transform import check_column, predict_batch
from tamiz.data.readers import open_source
from tamiz.errors import ColumnError, ConfigError, SourceError, one_of
from tamiz.model import Model
from tamiz.types import Progress

__all__ = ["FORMATS", "predict_file", "read_columns", "read_texts", "replaced", "write_json_lines"]

_ROWS = 1000  # rows predicted at once


class _Writer(Protocol):
    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...


class _CsvWriter:
    def __init__(self, path: Path, delimiter: str = ",") -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, delimiter=delimiter)
        self._names: list[str] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        if self._names is None:
            self._names = batch.schema.names
            self._writer.writerow(self._names)
        columns = [[_cell(value) for value in column.to_pylist()] for column in batch.columns]
        self._writer.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        self._file.close()


class _JsonLinesWriter:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, batch: pa.RecordBatch) -> None:
        write_json_lines(batch, self._file)

    def close(self) -> None:
        self._file.close()


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, batch.schema, compression="zstd")
        self._writer.write_batch(batch)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


FORMATS: dict[str, Callable[[Path], _Writer]] = {
    ".csv": _CsvWriter,
    ".tsv": lambda path: _CsvWriter(path, "\t"),
    ".jsonl": _JsonLinesWriter,
    ".ndjson": _JsonLinesWriter,
    ".parquet": _ParquetWriter,
}


def write_json_lines(batch: pa.RecordBatch, file: IO[str]) -> None:
    """Write rows as JSON, one a line."""
    for row in batch.to_pylist():
        file.write(json_text(row) + "\n")


def predict_file(
    model: Model,
    source: str,
    target: Path | IO[str],
    *,
    column: str | None = None,
    encoding: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Predict every row of a file, in constant memory, and return the number of rows.

    Args:
        model: the model.
        source: CSV, TSV, JSON lines, Parquet or Excel file, or an `s3://` address.
        target: file to write (CSV, TSV, JSON lines or Parquet by its ending), or an open text file for JSON lines.
        column: name of the text column; by default the model's own.
        encoding: of a text file; by default detected.
        progress: told how many rows are done.

    Raises:
        ConfigError: the ending of `target` is not known.
        SourceError: the source cannot be read.
        ColumnError: the text column is not there.
    """
    rows = 0
    answered = _answered(model, source, column, encoding)
    if not isinstance(target, Path):
        for batch in answered:
            write_json_lines(batch, target)
            rows += batch.num_rows
        return rows
    with _whole(target) as writer:
        for batch in answered:
            writer.write(batch)
            rows += batch.num_rows
            if progress:
                progress("predicting", rows)
    return rows


def read_texts(source: str, *, column: str, encoding: str | None = None) -> Iterator[str]:
    """Yield the texts of a file; a missing one is an empty one.

    Args:
        source: CSV, TSV, JSON lines, Parquet or Excel file, or an `s3://` address.
        column: name of the text column.
        encoding: of a text file; by default detected.

    Raises:
        SourceError: the source cannot be read.
        ColumnError: the text column is not there.
    """
    for (value,) in read_columns(source, (column,), encoding=encoding):
        yield "" if value is None else str(value)


def read_columns(source: str, columns: Sequence[str], *, encoding: str | None = None) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a file, some columns alone.

    Args:
        source: as for `read_texts`.
        columns: their names, that of the text first.
        encoding: of a text file; by default detected.

    Raises:
        SourceError: the source cannot be read.
        ColumnError: the text column is not there, or another one.
    """
    files = open_source([source], encoding=encoding, text=columns[0])
    for path in files.paths():
        for batch in files.batches(path):
            check_column(columns[0], batch.schema.names)
            for name in columns[1:]:
                if name not in batch.schema.names:
                    there = one_of(name, batch.schema.names)
                    raise ColumnError(f"{path}: no column {name!r}; {there}. Name it with --label-column")
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)


def _answered(model: Model, source: str, column: str | None, encoding: str | None) -> Iterator[pa.RecordBatch]:
    files = open_source([source], encoding=encoding, text=column or model.text_column)
    schema: pa.Schema | None = None
    for path in files.paths():
        for batch in files.batches(path):
            schema = schema or batch.schema
            if batch.schema != schema:
                raise SourceError(
                    f"{path} has the columns {', '.join(batch.schema.names)}, and what came before it "
                    f"{', '.join(schema.names)}, or of another type; predict such files one by one"
                )
            for start in range(0, max(batch.num_rows, 1), _ROWS):  # a table without rows has columns, too
                yield predict_batch(model, batch.slice(start, _ROWS), column=column)


@contextmanager
def _whole(target: Path) -> Iterator[_Writer]:
    """Write to a temporary file that takes the target's name only when it is complete."""
    make = FORMATS.get(target.suffix.lower())
    if make is None:
        raise ConfigError(f"--output: unknown ending {target.suffix!r}; {one_of(target.suffix, FORMATS)}")
    with replaced(target) as temporary:
        writer = make(temporary)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which takes the target's name when it is complete."""
    with replacing(target) as temporary:
        yield temporary
        temporary.touch()  # no rows: Parquet has no schema to write


def _cell(value: Any) -> Any:
    return json_text(value) if isinstance(value, list | dict) else value
