"""Rows of a bronze table as texts, labels and the rest, whatever types their columns have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as kinds

from tamiz.config import DataConfig, Project
from tamiz.data.columns import as_text
from tamiz.data.profiles import parse_list
from tamiz.errors import ColumnError, LabelError, one_of
from tamiz.types import Task

__all__ = ["RESERVED", "Labels", "Row", "RowReader", "named_columns"]

Labels = tuple[str, ...] | None
"""The labels of a row, `None` where it has none to learn from; one label unless the task is multi-label."""

RESERVED = frozenset({"row_id", "text_raw", "text", "label", "labels", "group", "time", "part", "side", "text_key"})
"""Columns of the silver and gold tables that a partition column may not displace."""

# How "not a number" looks once a float column has become text.
_NAN = frozenset({"nan", "NaN"})


@dataclass(frozen=True, slots=True)
class Row:
    """Columns of one batch, as Python values.

    Attributes:
        texts: the texts as they came, `None` where missing.
        labels: labels of each row.
        ids: identifier of each row.
        groups: value of the group column, `None` without one.
        times: value of the time column as text, `None` without one.
        partitions: values of the partition columns as text.
    """

    texts: list[str | None]
    labels: list[Labels]
    ids: list[str]
    groups: list[str | None]
    times: list[str | None]
    partitions: dict[str, list[str | None]]


class RowReader:
    """Read the batches of one bronze table.

    Args:
        project: names the columns.
        schema: columns of the table.
        place: what to call the table in messages, such as `data.test`.
        labelled: whether rows have labels; without, the label column is not read, nor need other columns exist.

    Attributes:
        columns: the columns that are read.
        partitions: the partition columns.
        renamed: labels of the data read so far that the project calls by another name.

    Raises:
        ColumnError: a column named in the project is not in the table.
        LabelError: the label column holds lists and the task has one label a row.
    """

    def __init__(self, project: Project, schema: pa.Schema, place: str, *, labelled: bool) -> None:
        self._data = project.data
        self._task = project.task
        self._labelled = labelled
        self._rename = project.labels.rename
        self.renamed: set[str] = set()
        self._names = set(schema.names)
        named = named_columns(project.data)
        required = named if labelled else {"data.text": project.data.text}
        own = [name for name in schema.names if not name.startswith("_")]
        for key, name in required.items():
            if name not in self._names:
                raise ColumnError(f"{key}: {place} has no column {name!r}; {one_of(name, own)}")
        if labelled and project.task is not Task.MULTI_LABEL and _holds_lists(schema.field(project.data.label).type):
            raise LabelError(
                f"data.label: column {project.data.label!r} of {place} holds lists, and task is "
                f"{str(project.task)!r}. Use task: multi-label"
            )
        self.partitions = partition_columns(project.data)
        self.columns = sorted(set(named.values()) & self._names | {"_source", "_source_sha256", "_row", "_ingested_at"})

    def read(self, batch: pa.RecordBatch) -> Row:
        """Take one batch apart."""
        data, n = self._data, batch.num_rows
        return Row(
            texts=[_present(text) for text in self._text_column(batch, data.text)],
            labels=[self._renamed(labels) for labels in self._labels(batch)] if self._labelled else [None] * n,
            ids=self._ids(batch),
            groups=[group or None for group in self._text_column(batch, data.group)],
            times=self._text_column(batch, data.time),
            partitions={name: self._text_column(batch, name) for name in self.partitions},
        )

    def _text_column(self, batch: pa.RecordBatch, name: str | None) -> list[str | None]:
        if name is None or name not in self._names:
            return [None] * batch.num_rows
        return list(as_text(batch.column(name)).to_pylist())

    def _ids(self, batch: pa.RecordBatch) -> list[str]:
        given = [(cell or "").strip() for cell in self._text_column(batch, self._data.id)]
        hashes, rows = batch.column("_source_sha256").to_pylist(), batch.column("_row").to_pylist()
        return [g or f"{h[:8]}:{r}" for g, h, r in zip(given, hashes, rows, strict=True)]

    def _labels(self, batch: pa.RecordBatch) -> list[Labels]:
        column = batch.column(self._data.label)
        if _holds_lists(column.type):
            return [None if cell is None else _tidy(cell) for cell in _lists(column)]
        cells = as_text(column).to_pylist()
        if self._task is Task.MULTI_LABEL:
            return [_several(cell, self._data.separator) for cell in cells]
        return [_single(cell) for cell in cells]

    def _renamed(self, labels: Labels) -> Labels:
        if labels is None or self._rename.keys().isdisjoint(labels):
            return labels
        self.renamed.update(self._rename.keys() & set(labels))
        return tuple(dict.fromkeys(self._rename.get(label, label) for label in labels))


def partition_columns(data: DataConfig) -> tuple[str, ...]:
    """Return the partition columns that silver and gold carry under their own names.

    Raises:
        ColumnError: a name is one of silver's own and stands for something else.
    """
    meanings = {"text": data.text, "label": data.label, "labels": data.label, "group": data.group, "time": data.time}
    for name in data.partition_by:
        if name in RESERVED and meanings.get(name) != name:
            raise ColumnError(f"data.partition_by: {name!r} is a column of Tamiz's own tables; rename yours")
    return tuple(name for name in dict.fromkeys(data.partition_by) if name not in RESERVED)


def named_columns(data: DataConfig) -> dict[str, str]:
    """Return the columns that a project names, by key of the project file."""
    named = {"data.text": data.text, "data.label": data.label}
    for key in ("id", "group", "time"):
        name = getattr(data, key)
        if name is not None:
            named[f"data.{key}"] = name
    return named | {f"data.partition_by[{i}]": name for i, name in enumerate(data.partition_by)}


def _holds_lists(kind: pa.DataType) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind))


def _lists(column: pa.Array) -> list[list[str | None] | None]:
    cells: list[str | None] = as_text(column.flatten()).to_pylist()
    lists: list[list[str | None] | None] = []
    at = 0
    for cell in column.value_lengths().to_pylist():
        lists.append(None if cell is None else cells[at : at + cell])
        at += cell or 0
    return lists


def _present(text: str | None) -> str | None:
    return None if text is None or text in _NAN else text


def _single(cell: str | None) -> Labels:
    label = (cell or "").strip()
    return None if not label or label in _NAN else (label,)


def _several(cell: str | None, separator: str | None) -> Labels:
    """Read several labels from one cell: a list in brackets, or parts between separators; nothing means unlabelled."""
    text = (cell or "").strip()
    if not text or text in _NAN:
        return None
    if text[0] == "[" and text[-1] == "]":
        listed = parse_list(text)
        if listed is not None:
            return _tidy([None if item is None else str(item) for item in listed])
    return _tidy(text.split(separator) if separator else [text]) or None


def _tidy(labels: Sequence[str | None]) -> tuple[str, ...]:
    stripped = ((label or "").strip() for label in labels)
    return tuple(dict.fromkeys(label for label in stripped if label and label not in _NAN))
