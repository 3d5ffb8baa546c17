"""Gold: the tables of a division, and the examples of one side as a classifier takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from tamiz.data.lake import Lake
from tamiz.data.quotas import SIDES
from tamiz.data.silver import QUARANTINE, quarantined
from tamiz.errors import ColumnError, DataError, LabelError, one_of
from tamiz.types import IntArray, Task

__all__ = ["Examples", "digest", "load_examples", "write_gold"]

_EXAMPLES = "gold/examples"
_COUNTS = pa.schema([("label", pa.string()), ("side", pa.string()), ("count", pa.int64())])


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of one side, in an order that depends on the data alone.

    Attributes:
        texts_raw: the texts as they came; empty where they were not asked for.
        texts: the cleaned texts.
        targets: int64 `(n,)` indices into the labels; multi-label: bool `(n, k)`.
        row_ids: identifier of each row.
        columns: the further columns asked for, by name.
    """

    texts_raw: list[str]
    texts: list[str]
    targets: NDArray[Any]
    row_ids: list[str]
    columns: dict[str, list[Any]]

    def take(self, places: IntArray) -> Examples:
        """Return the examples at these places, in their order."""
        at = places.tolist()

        def chosen(cells: list[Any]) -> list[Any]:
            return [cells[place] for place in at] if cells else []

        return Examples(
            texts_raw=chosen(self.texts_raw),
            texts=chosen(self.texts),
            targets=self.targets[places],
            row_ids=chosen(self.row_ids),
            columns={name: chosen(cells) for name, cells in self.columns.items()},
        )


def load_examples(
    lake: Lake,
    *,
    side: str,
    labels: Sequence[str],
    task: Task,
    version: int | None = None,
    columns: Sequence[str] = (),
    raw: bool = True,
) -> Examples:
    """Read one side of `gold/examples`.

    Args:
        lake: where the table stands.
        side: `train`, `validation` or `test`.
        labels: the labels in order.
        task: decides the form of the targets.
        version: version of the table; by default the newest.
        columns: further columns to read, such as `group`, `time` or a partition column.
        raw: whether to read the texts as they came too; they take as much memory as the cleaned ones.

    Raises:
        DataError: `side` is none of the three, or there is no such table or version.
        ColumnError: one of `columns` is not in the table.
        LabelError: an example has a label that is not among `labels`.
    """
    if side not in SIDES:
        raise DataError(f"side: got {side!r}; {one_of(side, SIDES)}")
    names = lake.schema(_EXAMPLES, version=version).names
    for name in columns:
        if name not in names:
            raise ColumnError(f"gold/examples has no column {name!r}; {one_of(name, names)}")

    def column(name: str) -> pl.Series:
        table = lake.read(_EXAMPLES, version=version, columns=[name], filters=ds.field("side") == side)
        return pl.DataFrame(pl.from_arrow(table))[name]

    row_ids = column("row_id")
    order = (
        pl.DataFrame([row_ids, column("text_key")]).select(pl.arg_sort_by("row_id", "text_key")).to_series().to_list()
    )

    def ordered(found: pl.Series) -> list[Any]:
        # Lists are put in order, not columns: a sorted copy of a column of texts would be one copy too many.
        cells = found.to_list()
        return [cells[at] for at in order]

    return Examples(
        texts_raw=ordered(column("text_raw")) if raw else [],
        texts=ordered(column("text")),
        targets=_targets(ordered(column("labels" if task is Task.MULTI_LABEL else "label")), labels, task),
        row_ids=ordered(row_ids),
        columns={name: ordered(column(name)) for name in columns},
    )


def digest(lake: Lake, version: int) -> str:
    """Return a hash of rows, texts, labels and sides of a version of `gold/examples`, whatever their order.

    Version numbers alone do not tell: a lake that is made anew counts from 0 again.
    """
    label = "labels" if "labels" in lake.schema(_EXAMPLES, version=version).names else "label"
    total = 0
    for batch in lake.scan(_EXAMPLES, version=version, columns=["row_id", "text_raw", "text", label, "side"]):
        for row in zip(*(batch.column(name).to_pylist() for name in batch.schema.names), strict=True):
            one = blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            total += int.from_bytes(one, "little")
    return f"{total % (1 << 128):032x}"


def _targets(cells: list[Any], labels: Sequence[str], task: Task) -> NDArray[Any]:
    codes = {label: code for code, label in enumerate(labels)}
    try:
        if task is not Task.MULTI_LABEL:
            return np.fromiter((codes[label] for label in cells), np.int64, len(cells))
        targets = np.zeros((len(cells), len(labels)), np.bool_)
        for row, own in enumerate(cells):
            targets[row, [codes[label] for label in own]] = True
        return targets
    except KeyError as error:
        raise LabelError(f"label of an example: got {error.args[0]!r}; {one_of(str(error.args[0]), labels)}") from error


def write_gold(
    lake: Lake,
    *,
    silver_version: int,
    filters: ds.Expression,
    label_column: str,
    partitions: Sequence[str],
    sides: NDArray[np.int8],
    refused: NDArray[np.int8],
    reasons: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
) -> int:
    """Write the quarantine, the counts and the examples of a division, and return the version of the examples.

    Args:
        lake: where the tables stand.
        silver_version: version of `silver/texts` that was divided.
        filters: which of its rows were divided.
        label_column: `label` or `labels`.
        partitions: further columns to carry.
        sides: side of each of these rows in the order of the scan, -1 for none.
        refused: why a row has none, as an index into `reasons`; 0 for the others.
        reasons: reasons in words.
        counts: examples by side and label.
    """
    silver = lake.schema("silver/texts", version=silver_version)
    scan = _Scan(lake, silver_version, filters)
    lake.replace("gold/quarantine", QUARANTINE, scan.refused(refused, reasons, label_column))
    flat = [(label, side, n) for side, by_label in counts.items() for label, n in by_label.items()]
    arrays = [pa.array([row[i] for row in flat], field.type) for i, field in enumerate(_COUNTS)]
    lake.replace("gold/label_counts", _COUNTS, [pa.RecordBatch.from_arrays(arrays, schema=_COUNTS)])
    names = ["row_id", "text_raw", "text", label_column, "group", "time", "text_key", *partitions]
    schema = pa.schema([silver.field(name) for name in names])
    full = schema.append(pa.field("side", pa.string()))
    return lake.replace(_EXAMPLES, full, scan.examples(schema, sides), partition_by=["side"])


@dataclass(frozen=True, slots=True)
class _Scan:
    lake: Lake
    version: int
    filters: ds.Expression

    def batches(self, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Give batches with the position of their first row."""
        at = 0
        for batch in self.lake.scan("silver/texts", version=self.version, columns=columns, filters=self.filters):
            yield at, batch
            at += batch.num_rows

    def examples(self, schema: pa.Schema, sides: NDArray[np.int8]) -> Iterator[pa.RecordBatch]:
        names = pa.array(SIDES)
        for at, batch in self.batches(schema.names):
            own = sides[at : at + batch.num_rows]
            kept = batch.filter(pa.array(own >= 0))
            if kept.num_rows:
                side = names.take(pa.array(own[own >= 0]))
                full = schema.append(pa.field("side", pa.string()))
                yield pa.RecordBatch.from_arrays([*kept.columns, side], schema=full)

    def refused(self, codes: NDArray[np.int8], reasons: Sequence[str], label_column: str) -> Iterator[pa.RecordBatch]:
        if not codes.any():
            return
        for at, batch in self.batches(["row_id", "text_raw", label_column, "_source", "_row"]):
            own = codes[at : at + batch.num_rows]
            rows = batch.filter(pa.array(own > 0)).to_pylist()
            yield quarantined(rows, [reasons[code] for code in own[own > 0].tolist()])
