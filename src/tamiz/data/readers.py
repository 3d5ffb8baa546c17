"""Open files of texts as one source of record batches, whatever their format.

CSV, TSV, JSON lines, JSON lists (each also gzipped), Parquet, Excel, and folders with one folder of `.txt` files per
label; on disk or on S3. Files are streamed; memory stays bounded by a batch (Excel and JSON lists are read whole).
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from tamiz.data.delimited import check_names, read_delimited
from tamiz.data.encodings import choose_encoding
from tamiz.data.json_records import read_json_lines, read_json_list, starts_a_list
from tamiz.data.places import Found, digest, find_files, local_copy
from tamiz.errors import ConfigError, EncodingError, SourceError, TamizError
from tamiz.types import SourceFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["FileSource", "open_source"]

_BATCH_BYTES = 1 << 24
_BATCH_ROWS = 50_000
_FILE_COLUMN = "file"


def open_source(
    places: Sequence[str],
    *,
    encoding: str | None = None,
    text: str = "text",
    label: str = "label",
    base: Path | None = None,
) -> FileSource:
    """Find the files that `places` name; none is read yet.

    Args:
        places: files, folders, glob patterns or `s3://` addresses (an object, a prefix or a pattern).
        encoding: encoding of the text formats; by default UTF-8 if the bytes are, else detected and noticed.
        text: name of the text column of a folder with one folder of `.txt` files per label.
        label: name of its label column; `file` names the third column.
        base: a folder whose files are named by their path from there, so that they keep their names when it is moved.

    Raises:
        ConfigError: the column names of a folder would not differ.
        SourceError: a place holds no file, or none of a supported format.
    """
    if len({text, label, _FILE_COLUMN}) < 3:
        raise ConfigError(f"text {text!r} and label {label!r} must differ from each other and from {_FILE_COLUMN!r}")
    found = {_name(file.path, base): file for file in find_files(places)}
    return FileSource(found, encoding=encoding, text=text, label=label)


def _name(path: str, base: Path | None) -> str:
    if base is None or not Path(path).is_relative_to(base.absolute()):
        return path
    return Path(path).relative_to(base.absolute()).as_posix()


class FileSource:
    """Files of one or several formats; implements `tamiz.types.Source`.

    Attributes:
        notices: what a person should know about the reading, such as a detected encoding; grows as files are read.
    """

    def __init__(self, found: Mapping[str, Found], *, encoding: str | None, text: str, label: str) -> None:
        self.notices: list[str] = []
        self._found = found
        self._encoding = encoding
        self._columns = (text, label, _FILE_COLUMN)

    def files(self) -> Sequence[SourceFile]:
        """List the files in a stable order, each with the hash of its bytes; a folder of `.txt` files counts as one.

        Files without a byte, as some writers leave them beside others, are left out, unless they were named.

        Raises:
            SourceError: a file cannot be read.
        """
        files = [self._file(name, found) for name, found in self._found.items()]
        whole = [file for file in files if file.size_bytes or not self._found[file.path].listed]
        if whole:
            for name in (file.path for file in files if file not in whole):
                self._notice(f"{name} is empty and was left out")
        return whole or files

    def _file(self, name: str, found: Found) -> SourceFile:
        try:
            sha256, size_bytes = digest(found)
        except OSError as error:
            raise SourceError(f"{found.path} cannot be read: {error.strerror or type(error).__name__}") from error
        stated = "" if found.format in ("parquet", "excel") else (self._encoding or "").lower()
        return SourceFile(name, sha256, size_bytes, stated)

    def paths(self) -> list[str]:
        """List the paths alone, without reading the files."""
        return list(self._found)

    def batches(self, file: SourceFile | str) -> Iterator[pa.RecordBatch]:
        """Read one file, named by its entry or its path, as record batches of one schema, rows in file order.

        Columns of CSV and TSV are text as it came; other formats keep their types, lists included.

        Raises:
            SourceError: the file is empty, damaged, or not of the format its name says.
            EncodingError: its bytes are not text in the stated encoding.
        """
        found = self._found[file if isinstance(file, str) else file.path]
        try:
            if found.members:
                yield from self._read_folder(found)
                return
            with local_copy(found.path) as path:
                for batch in self._read(found, path):
                    yield _with_partitions(batch, found.partitions)
        except TamizError:
            raise
        except UnicodeError as error:
            raise EncodingError(f"{found.path} changed while it was read. Run again when it is complete") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(
                f"{found.path} is damaged or cut off: its gzip data end too early or are wrong"
            ) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SourceError(f"{found.path} cannot be read: {reason}") from error

    def _read(self, found: Found, path: Path) -> Iterator[pa.RecordBatch]:
        match found.format:
            case "parquet":
                yield from _read_parquet(path, found.path)
            case "excel":
                yield from self._read_excel(path, found.path)
            case "csv":
                yield from read_delimited(self._text(found, path), found.path)
            case "tsv":
                yield from read_delimited(self._text(found, path), found.path, "\t")
            case _:
                opened = self._text(found, path)
                is_list = found.format == "json" and starts_a_list(opened, found.path)
                yield from (read_json_list if is_list else read_json_lines)(opened, found.path)

    def _text(self, found: Found, path: Path) -> Callable[[], TextIO]:
        opened = partial(_open_bytes, path, gzipped=found.gzipped)
        encoding, notice = choose_encoding(opened, found.path, self._encoding)
        self._notice(notice)
        # JSON lines break at line feeds only; csv wants line ends as they came.
        newline = "\n" if found.format in ("json", "jsonl") else ""
        return lambda: io.TextIOWrapper(opened(), encoding=encoding, newline=newline)

    def _read_excel(self, path: Path, where: str) -> Iterator[pa.RecordBatch]:
        batches, others = _read_excel(path, where)
        if others:
            self._notice(f"{where}: the first sheet alone is read, not {', '.join(others)}; save others as files")
        yield from batches

    def _notice(self, notice: str | None) -> None:
        if notice and notice not in self.notices:
            self.notices.append(notice)

    def _read_folder(self, found: Found) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[str, str, str]] = []
        size = 0
        others: Counter[str] = Counter()
        for member in found.members:
            data = member.read_bytes()
            encoding, notice = choose_encoding(partial(io.BytesIO, data), str(member), self._encoding)
            if notice:
                others[encoding] += 1
            rows.append((data.decode(encoding), member.parent.name, member.relative_to(found.path).as_posix()))
            size += len(data)
            if size >= _BATCH_BYTES or len(rows) >= _BATCH_ROWS:
                yield _text_batch(rows, self._columns)
                rows, size = [], 0
        if rows:
            yield _text_batch(rows, self._columns)
        for encoding, count in others.items():
            self._notice(f"{found.path}: {count} of {len(found.members)} files are read as {encoding}, not as UTF-8")


def _with_partitions(batch: pa.RecordBatch, partitions: Sequence[tuple[str, str | None]]) -> pa.RecordBatch:
    """Add the columns that the folders tell and the file has not."""
    import pyarrow as pa

    told = {name: value for name, value in partitions if name not in batch.schema.names}
    if not told:
        return batch
    columns = [pa.repeat(pa.scalar(value, pa.string()), batch.num_rows) for value in told.values()]
    return pa.RecordBatch.from_arrays([*batch.columns, *columns], names=[*batch.schema.names, *told])


def _open_bytes(path: Path, *, gzipped: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if gzipped else path.open("rb")


def _text_batch(rows: Sequence[tuple[str, str, str]], names: Sequence[str]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in zip(*rows, strict=True)], names=list(names))


def _read_parquet(path: Path, where: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = check_names(file.schema_arrow.names, where)
            schema = pa.schema([field.with_type(_plain(field.type)) for field in file.schema_arrow])
            for batch in file.iter_batches(batch_size=_rows_per_batch(file.metadata)):
                yield batch.cast(schema).rename_columns(names)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise SourceError(f"{where} is damaged, cut off or no Parquet file: {reason}") from error


def _plain(type_: pa.DataType) -> pa.DataType:
    """Give one type to what differs only in how it is stored: dictionaries, large and view strings and lists."""
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(_plain(type_.value_type))
    return type_


def _rows_per_batch(metadata: pq.FileMetaData) -> int:
    """Choose batches of about 16 MiB, by the fattest row group."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(widest, 1.0))))


def _read_excel(path: Path, where: str) -> tuple[list[pa.RecordBatch], list[str]]:
    """Return the batches of the first sheet, and the names of the others."""
    import fastexcel
    import polars as pl
    import pyarrow as pa

    try:
        others = fastexcel.read_excel(path).sheet_names[1:]
        head = pl.read_excel(path, engine="calamine", has_header=False, read_options={"n_rows": 1})
        names = check_names([None if cell is None else str(cell) for cell in head.row(0)], where)
        # Kinds are inferred from all rows: from fewer, a word far down in a column of numbers would be lost.
        frame = pl.read_excel(path, engine="calamine", infer_schema_length=None, raise_if_empty=False)
    except (pl.exceptions.PolarsError, fastexcel.FastExcelError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise SourceError(f"{where} is empty, damaged or no Excel workbook: {reason}") from error
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    schema = pa.schema([field.with_type(_plain(field.type)) for field in table.schema])
    table = table.cast(schema).rename_columns(names)
    batches = table.to_batches(max_chunksize=_BATCH_ROWS) or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return batches, others
