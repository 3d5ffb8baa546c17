"""Read CSV and TSV as a stream of record batches in which every column is text, exactly as it came.

Python's `csv` module is used because it knows at which line of the file it is; rows with too many or too few fields
are errors here, never repaired.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TextIO

from tamiz.errors import SourceError

if TYPE_CHECKING:
    import _csv

    import pyarrow as pa

__all__ = ["allow_long_fields", "check_names", "harmless", "read_delimited"]

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_CHARACTERS = 1 << 18
_BATCH_CHARACTERS = 1 << 23
_BATCH_ROWS = 50_000

# A quote that is never closed would make one field of the rest of the file: reading stops here instead.
_MAX_FIELD_CHARACTERS = 1 << 26
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class _Dialect:
    delimiter: str
    escape: str | None = None
    quoted: bool = True
    certain: bool = False  # whether quotes are known to quote: they do so in the header

    def reader(self, lines: Iterator[str] | Sequence[str] | TextIO, *, strict: bool = True) -> _csv.Reader:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return csv.reader(lines, delimiter=self.delimiter, escapechar=self.escape, quoting=quoting, strict=strict)


def check_names(names: Sequence[str | None], where: str) -> list[str]:
    """Return the column names without surrounding blanks or a byte-order mark.

    A first one without a name beside others is called `index`: so pandas and R write the numbers of rows.

    Raises:
        SourceError: another name is empty, or two are equal.
    """
    stripped = [(name or "").strip("\ufeff \t\r\n") for name in names]
    if len(stripped) > 1 and not stripped[0]:
        stripped[0] = "index"
    for place, name in enumerate(stripped, start=1):
        if not name:
            raise SourceError(f"{where}: column {place} of {len(stripped)} has no name. Give every column one")
        if name in stripped[: place - 1]:
            first = stripped.index(name) + 1
            raise SourceError(f"{where}: columns {first} and {place} are both named {name!r}. Rename one of them")
    return stripped


def read_delimited(opened: Callable[[], TextIO], where: str, delimiter: str | None = None) -> Iterator[pa.RecordBatch]:
    """Read a delimited file row by row; blank lines are skipped.

    Args:
        opened: opens the text from the start, line ends untranslated.
        where: name of the file, for messages.
        delimiter: what separates fields; without it, sniffed among comma, semicolon, tab and bar.

    Raises:
        SourceError: the file is empty, its header is unusable, a row has a wrong number of fields, or a quote is
            never closed.
    """
    with opened() as stream:
        sample = stream.read(_SAMPLE_CHARACTERS)
        complete = len(sample) < _SAMPLE_CHARACTERS
    if not sample.strip():
        raise SourceError(f"{where} is empty: a header line and rows are expected")
    allow_long_fields()
    dialect = _sniff(sample, complete, delimiter)
    with opened() as stream:
        yield from _read(dialect.reader(stream), where, dialect)


def allow_long_fields() -> None:
    """Let `csv` read long texts; the limit is one for the whole process, and is only ever raised."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARACTERS))


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: with an apostrophe before what looks like one."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _sniff(sample: str, complete: bool, delimiter: str | None) -> _Dialect:
    lines = list(io.StringIO(sample, newline=""))
    best, best_score = ",", (0.0, 1)
    for candidate in [delimiter] if delimiter else _DELIMITERS:
        widths = _widths(_Dialect(candidate), lines, complete)
        if widths and widths[0] > 1:
            score = (sum(width == widths[0] for width in widths) / len(widths), widths[0])
            if score > best_score:
                best, best_score = candidate, score
    plain = _Dialect(delimiter or best, certain=sample.lstrip("\ufeff \r\n").startswith('"'))
    # Quotes doubled inside quotes are the standard; these are read where they alone make the file whole.
    others = []
    if '\\"' in sample:
        others.append(replace(plain, escape="\\"))
    if plain.delimiter == "\t" and '"' in sample:
        others.append(replace(plain, quoted=False))
    whole = [(dialect, rows) for dialect in (plain, *others) if (rows := _parses(dialect, lines, complete))]
    if not whole:
        return plain
    # Two stray quotes swallow the rows between them into one value of a row as wide as any; as plain characters they
    # leave all rows. A quoted value with a line break or a tab would mostly leave ragged ones.
    return max(whole, key=lambda one: one[1])[0] if plain.delimiter == "\t" and not plain.certain else whole[0][0]


def _widths(dialect: _Dialect, lines: Sequence[str], complete: bool) -> list[int]:
    """Return the number of fields of each whole row of the sample."""
    try:
        widths = [len(row) for row in dialect.reader(lines, strict=False) if row]
    except csv.Error:
        return []
    return widths if complete or len(widths) == 1 else widths[:-1]


def _parses(dialect: _Dialect, lines: Sequence[str], complete: bool) -> int:
    """Return the number of rows of the sample if they are well formed and equally wide, else 0; the last may be cut."""
    widths: Counter[int] = Counter()
    reader = dialect.reader(lines)
    try:
        for row in reader:
            if row and (complete or reader.line_num < len(lines)):
                widths[len(row)] += 1
    except csv.Error:
        if complete or reader.line_num < len(lines):
            return 0
    return max(1, widths.total()) if len(widths) <= 1 else 0


def _read(reader: _csv.Reader, where: str, dialect: _Dialect) -> Iterator[pa.RecordBatch]:
    line = 0
    names: list[str] = []
    rows: list[list[str]] = []
    characters = 0
    try:
        for row in reader:
            start, line = line + 1, reader.line_num
            if not row:
                continue
            if not names:
                names = check_names(row, where)
                continue
            if len(row) != len(names):
                raise _ragged(where, start, len(row), len(names), dialect.delimiter)
            is_doubtful = dialect.delimiter == "\t" and not dialect.certain and line > start
            if is_doubtful and any("\t" in cell and "\n" in cell for cell in row):
                raise SourceError(
                    f"{where}: line {start}: a double quote opens a value that ends in line {line}, with tabs between, "
                    "as two stray quotes would make it. Save the file as CSV, with quotes inside a value written twice"
                )
            rows.append(row)
            characters += sum(map(len, row))
            if characters >= _BATCH_CHARACTERS or len(rows) >= _BATCH_ROWS:
                yield _batch(names, rows)
                rows, characters = [], 0
    except csv.Error as error:
        raise _malformed(where, line + 1, error) from error
    if rows or line:
        yield _batch(names, rows)


def _ragged(where: str, line: int, found: int, expected: int, delimiter: str) -> SourceError:
    return SourceError(
        f"{where}: line {line}: {found} fields found, {expected} expected as in the header (delimiter {delimiter!r}). "
        "Put values that contain the delimiter, a quote or a line break in double quotes"
    )


def _malformed(where: str, line: int, error: csv.Error) -> SourceError:
    reason = str(error)
    if "unexpected end" in reason or "field limit" in reason:
        return SourceError(f"{where}: line {line}: a double quote opens a value in this row and is never closed")
    if "expected after" in reason:
        return SourceError(
            f"{where}: line {line}: a closing double quote in this row is followed by more text. "
            'Write a quote inside a quoted value twice ("")'
        )
    return SourceError(f"{where}: line {line}: this row is malformed ({reason})")


def _batch(names: list[str], rows: list[list[str]]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names=names)
