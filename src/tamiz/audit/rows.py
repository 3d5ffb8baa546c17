"""The rows to check, as they came: read from bronze, before anything was refused, with corrections applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from tamiz.config import Project
from tamiz.data.corrections import DROPPED, load_corrections
from tamiz.data.lake import Lake
from tamiz.data.refusals import text_key
from tamiz.data.rows import Labels, RowReader
from tamiz.data.times import TimeReader

__all__ = ["Rows", "missing_by_column", "read_rows", "sample_columns"]


@dataclass(slots=True)
class Rows:
    """The rows of the labelled sources, `n` of them.

    Attributes:
        ids: identifier of each row.
        parts: `train` (`data.source`) or `test` (`data.test`).
        texts: the texts as they came, empty where missing.
        labels: labels of each row, `None` where it has none.
        times: time of each row, `None` without one.
        keys: equal for texts that differ in case and space only.
        unread_times: values of the time column that could not be understood.
    """

    ids: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    times: list[datetime | None] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    unread_times: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def label_pairs(self) -> pl.DataFrame:
        """Return one row a label: its row `at` and the `label`."""
        at = [i for i, labels in enumerate(self.labels) for _ in labels or ()]
        names = [label for labels in self.labels for label in labels or ()]
        return pl.DataFrame({"at": at, "label": names}, schema={"at": pl.Int64, "label": pl.String})


def read_rows(lake: Lake, project: Project) -> Rows:
    """Read the newest `bronze/texts` and, where the project has its own test set, `bronze/test`.

    Raises:
        ColumnError: a column named in the project is not in the data.
    """
    rows, reader, corrections = Rows(), TimeReader(), load_corrections(project)
    written: list[str | None] = []
    for part, table in _parts(project):
        columns = RowReader(project, lake.schema(table), f"the table {table}", labelled=True)
        for batch in lake.scan(table, columns=columns.columns):
            read = columns.read(batch)
            labels, marks = corrections.apply(read.ids, read.labels, part)
            reader.observe(read.times)
            kept = [at for at, mark in enumerate(marks) if mark != DROPPED]
            texts = [read.texts[at] or "" for at in kept]
            rows.ids += [read.ids[at] for at in kept]
            rows.labels += [labels[at] for at in kept]
            rows.texts += texts
            rows.keys += map(text_key, texts)
            rows.parts += [part] * len(kept)
            written += [read.times[at] for at in kept]
    rows.times = [reader.read(value) for value in written]
    rows.unread_times = reader.unread
    return rows


def _parts(project: Project) -> list[tuple[str, str]]:
    own = [("test", "bronze/test")] if project.data.test is not None else []
    return [("train", "bronze/texts"), *own]


def missing_by_column(lake: Lake) -> tuple[dict[str, int], int]:
    """Return how many values each column of `bronze/texts` lacks (null, blank or not a number), and its rows."""
    names = [name for name in lake.schema("bronze/texts").names if not name.startswith("_")]
    missing, rows = dict.fromkeys(names, 0), 0
    for batch in lake.scan("bronze/texts", columns=names):
        rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            missing[name] += _missing(column)
    return missing, rows


def _missing(column: pa.Array) -> int:
    if kinds.is_string(column.type) or kinds.is_large_string(column.type):
        # Only present values can be blank; `sum` of none is null.
        return int(column.null_count + (pc.sum(pc.equal(pc.utf8_trim_whitespace(column), "")).as_py() or 0))
    if kinds.is_floating(column.type):
        return int(column.null_count + (pc.sum(pc.is_nan(column)).as_py() or 0))
    return int(column.null_count)


def sample_columns(lake: Lake, most: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the columns of the first rows of `bronze/texts` as Python values."""
    names = [name for name in lake.schema("bronze/texts").names if not name.startswith("_")]
    found = _first(lake.scan("bronze/texts", columns=names), most)
    for name in names:
        yield name, [value for batch in found for value in batch.column(name).to_pylist()]


def _first(batches: Iterable[pa.RecordBatch], most: int) -> list[pa.RecordBatch]:
    taken: list[pa.RecordBatch] = []
    for batch in batches:
        taken.append(batch.slice(0, most))
        most -= batch.num_rows
        if most <= 0:
            break
    return taken
