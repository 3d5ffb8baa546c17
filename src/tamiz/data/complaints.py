"""Fetch the Consumer Complaint Database of the US Consumer Financial Protection Bureau (CFPB).

The bureau publishes one CSV file in a zip archive, some gigabytes when unpacked, anew every day. It is read in a
stream, so that memory does not grow with it. Product names changed in April 2017 and in August 2023; five categories
join the three eras.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tamiz.data.downloads import Downloaded, download
from tamiz.errors import SourceError
from tamiz.types import Progress

__all__ = ["CATEGORIES", "CITATION", "LEFT_OUT", "LICENSE", "URL", "download_complaints", "write_complaints"]

URL = "https://files.consumerfinance.gov/ccdb/complaints.csv.zip"
"""Where the bureau publishes the whole database."""

LICENSE = "Public data of the US government, free to use. Narratives are published with the consumers' consent."
CITATION = "Consumer Financial Protection Bureau, Consumer Complaint Database, consumerfinance.gov/data-research."

CATEGORIES = {
    "Bank account or service": "bank_accounts",
    "Checking or savings account": "bank_accounts",
    "Money transfer, virtual currency, or money service": "bank_accounts",
    "Money transfers": "bank_accounts",
    "Virtual currency": "bank_accounts",
    "Credit card": "credit_card",
    "Credit card or prepaid card": "credit_card",
    "Prepaid card": "credit_card",
    "Credit reporting": "credit_reporting",
    "Credit reporting or other personal consumer reports": "credit_reporting",
    "Credit reporting, credit repair services, or other personal consumer reports": "credit_reporting",
    "Debt collection": "debt_collection",
    "Consumer Loan": "loans",
    "Mortgage": "loans",
    "Payday loan": "loans",
    "Payday loan, title loan, or personal loan": "loans",
    "Payday loan, title loan, personal loan, or advance loan": "loans",
    "Student loan": "loans",
    "Vehicle loan or lease": "loans",
}
"""Category of each of the bureau's products, of all three eras."""

LEFT_OUT = frozenset({"Other financial service", "Debt or credit management"})
"""Products that belong to none of the categories."""

_COLUMNS = {
    "Complaint ID": "id",
    "Date received": "date",
    "Consumer complaint narrative": "narrative",
    "Product": "product",
    "Company": "company",
    "State": "state",
}
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("date_received", pa.date32()),
        ("narrative", pa.string()),
        ("product", pa.string()),
        ("category", pa.string()),
        ("company", pa.string()),
        ("state", pa.string()),
    ]
)
_BLOCK_ROWS = 10_000
_GROUP_ROWS = 2_000  # of a year, kept in memory until written
_FILE_ROWS = 250_000
_FOLDER = "complaints/train.parquet"


def download_complaints(
    cache: Path, *, address: str | None = None, progress: Progress | None = None
) -> list[Downloaded]:
    """Bring the archive into `cache`, unless the bureau has published no other since.

    Args:
        cache: folder where it is kept.
        address: of the archive; by default the bureau's.
        progress: told how many bytes have arrived.

    Raises:
        SourceError: the download failed.
    """
    return [download(address or URL, cache / "complaints" / "complaints.csv.zip", progress=progress)]


def write_complaints(found: Sequence[Downloaded], folder: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Write `complaints/train.parquet/year=.../part-....parquet` into `folder`; return how many rows went where.

    Columns are `id`, `date_received`, `narrative`, `product` as published, `category`, `company` and `state`. Rows
    without a narrative, and of products outside the five categories, are left out and counted.

    Args:
        found: what `download_complaints` gave.
        folder: where to write; made if absent.
        progress: told how many bytes of the unpacked table have been read.

    Raises:
        SourceError: the archive is damaged, or its table lacks a column.
    """
    counts = _Counts()
    with _Years(folder / _FOLDER) as years:
        for frame in _frames(found[0].path, progress):
            years.add(counts.usable(frame))
    if not counts.rows:
        raise SourceError(f"{found[0].path.name} holds no complaint with a narrative and a product of the categories")
    return counts.to_dict()


@dataclass
class _Counts:
    """Which rows were taken, and why others were not."""

    rows: int = 0
    without_narrative: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def usable(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows to keep, with their category."""
        told = frame.filter(pl.col("narrative").str.strip_chars().str.len_bytes() > 0)
        self.without_narrative += len(frame) - len(told)
        placed = told.with_columns(category=pl.col("product").replace_strict(CATEGORIES, default=None))
        other = placed.filter(pl.col("category").is_null())["product"].fill_null("")
        self.left_out.update(dict(other.value_counts().iter_rows()))
        kept = placed.filter(pl.col("category").is_not_null())
        self.categories.update(dict(kept["category"].value_counts().iter_rows()))
        self.rows += len(kept)
        return kept

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record; products that are new to this release stand apart."""
        return {
            "rows": self.rows,
            "categories": dict(sorted(self.categories.items())),
            "without_narrative": self.without_narrative,
            "left_out": {name: n for name, n in sorted(self.left_out.items()) if name in LEFT_OUT},
            "unknown_products": {name: n for name, n in sorted(self.left_out.items()) if name not in LEFT_OUT},
        }


def _frames(archive: Path, progress: Progress | None) -> Iterator[pl.DataFrame]:
    """Read the table of the archive in blocks of rows, all cells as text and empty ones as null."""
    try:
        with zipfile.ZipFile(archive) as opened:
            member = next((info for info in opened.infolist() if info.filename.lower().endswith(".csv")), None)
            if member is None:
                raise SourceError(f"{archive.name} holds no .csv file")
            with opened.open(member) as stream:
                for rows in _blocks(stream, archive.name):
                    if progress:
                        progress("read complaints", stream.tell(), member.file_size)
                    yield _frame(rows)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise SourceError(f"{archive} cannot be unpacked ({type(error).__name__}). Delete it and run again") from error
    except csv.Error as error:
        raise SourceError(f"the table in {archive.name} is not the CSV file that is expected: {error}") from error


def _blocks(stream: IO[bytes], name: str) -> Iterator[list[tuple[str, ...]]]:
    """Give the cells of the columns that are kept."""
    # A few narratives hold bytes of another encoding; they are no reason to have no data.
    table = csv.reader(io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline=""), strict=True)
    header = next(table, [])
    missing = [column for column in _COLUMNS if column not in header]
    if missing:
        raise SourceError(f"the table in {name} lacks the column {missing[0]!r}; it has: {', '.join(header)[:500]}")
    cells = itemgetter(*map(header.index, _COLUMNS))
    while block := list(islice(table, _BLOCK_ROWS)):
        if any(len(row) != len(header) for row in block):
            raise SourceError(
                f"the table in {name} has a row of other than {len(header)} cells by line {table.line_num}"
            )
        yield [cells(row) for row in block]


def _frame(rows: list[tuple[str, ...]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(_COLUMNS.values(), pl.String), orient="row")
    # Older copies of the file write 08/24/2023.
    iso, american = (pl.col("date").str.to_date(form, strict=False) for form in ("%Y-%m-%d", "%m/%d/%Y"))
    dated = frame.with_columns(pl.coalesce(iso, american).alias("date_received")).drop("date")
    return dated.with_columns(pl.when(pl.col(pl.String) != "").then(pl.col(pl.String)))


class _Years:
    """Parquet files by year received; no more than a row group of each year is in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, list[pa.Table]] = {}
        self._files: dict[str, tuple[pq.ParquetWriter, int]] = {}
        self._parts: Counter[str] = Counter()

    def __enter__(self) -> _Years:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for year in list(self._waiting):
                self._flush(year)
        finally:
            for writer, _rows in self._files.values():
                writer.close()

    def add(self, frame: pl.DataFrame) -> None:
        """Take rows, and write those of the years that have enough."""
        keyed = frame.with_columns(year=pl.col("date_received").dt.year().cast(pl.String).fill_null("unknown"))
        for (year,), rows in keyed.partition_by("year", as_dict=True, maintain_order=True).items():
            waiting = self._waiting.setdefault(year, [])
            # As text of its own: polars' would keep the whole block alive that a rare year's row came in.
            waiting.append(rows.select(_SCHEMA.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(_SCHEMA))
            if sum(map(len, waiting)) >= _GROUP_ROWS:
                self._flush(year)

    def _flush(self, year: str) -> None:
        rows = pa.concat_tables(self._waiting.pop(year))
        writer, written = self._files.pop(year, (None, 0))
        if writer is None:
            writer = self._open(year)
        writer.write_table(rows, row_group_size=_GROUP_ROWS)
        written += len(rows)
        if written >= _FILE_ROWS:
            writer.close()
        else:
            self._files[year] = (writer, written)

    def _open(self, year: str) -> pq.ParquetWriter:
        path = self._folder / f"year={year}" / f"part-{self._parts[year]:05d}.parquet"
        self._parts[year] += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        return pq.ParquetWriter(path, _SCHEMA, compression="zstd")
