"""Further columns of the examples: those that gold carries, and any column of the source files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds

from tamiz.data.bronze import ORIGIN
from tamiz.data.columns import as_text
from tamiz.data.lake import Lake
from tamiz.errors import ColumnError, one_of

__all__ = ["check_columns", "example_columns"]

_EXAMPLES = "gold/examples"
_OWN = frozenset({"row_id", "text_raw", "text", "label", "labels", "text_key", "side"})
_KEYS = ["row_id", "text_key"]
_ORIGIN = ["_source", "_row", "_ingested_at"]  # a file that changed keeps its path, and its rows of before


def example_columns(
    lake: Lake, *, side: str, versions: Mapping[str, Any], columns: Sequence[str] | None = None
) -> dict[str, list[Any]]:
    """Read columns of one side, in the order of `load_examples`.

    Args:
        lake: where the tables stand.
        side: `train`, `validation` or `test`.
        versions: version of `gold`, `silver`, `bronze` and, where there is an own test set, `bronze_test`.
        columns: names of columns of gold or of the source files; by default those that gold carries for its own ends:
            `group`, `time` and the columns that partition the lake, where any example has a value.

    Raises:
        ColumnError: there is no such column.
    """
    held = _carried(lake, versions)
    wanted = held if columns is None else list(columns)
    ours = [name for name in wanted if name in held]
    others = [name for name in wanted if name not in held]
    check_columns(lake, others, versions=versions)
    table = lake.read(_EXAMPLES, version=versions["gold"], columns=[*_KEYS, *ours], filters=ds.field("side") == side)
    rows = pl.DataFrame(pl.from_arrow(table)).sort(_KEYS)
    if columns is None:
        wanted = ours = [name for name in held if rows[name].null_count() < len(rows)]
    found = {name: rows[name].to_list() for name in ours}
    if others:
        found |= _from_sources(lake, rows.select(_KEYS), others, versions)
    return {name: found[name] for name in wanted}


def check_columns(lake: Lake, names: Sequence[str], *, versions: Mapping[str, Any]) -> None:
    """Refuse names that `example_columns` would not find.

    Args:
        lake: where the tables stand.
        names: the columns.
        versions: as of `example_columns`.

    Raises:
        ColumnError: there is no such column.
    """
    if not names:  # nothing to open tables for
        return
    allowed = {*_carried(lake, versions), *(name for own in _held(lake, versions).values() for name in own)}
    for name in names:
        if name not in allowed:
            raise ColumnError(f"report.slices: no column {name!r} in the source files; {one_of(name, sorted(allowed))}")


def _carried(lake: Lake, versions: Mapping[str, Any]) -> list[str]:
    return [name for name in lake.schema(_EXAMPLES, version=versions["gold"]).names if name not in _OWN]


def _held(lake: Lake, versions: Mapping[str, Any]) -> dict[tuple[str, int], list[str]]:
    """Return the columns of the source files by bronze table and version."""
    tables = [("bronze/texts", versions.get("bronze")), ("bronze/test", versions.get("bronze_test"))]
    return {
        (table, version): [name for name in lake.schema(table, version=version).names if name not in ORIGIN.names]
        for table, version in tables
        if version is not None
    }


def _from_sources(
    lake: Lake, rows: pl.DataFrame, names: list[str], versions: Mapping[str, Any]
) -> dict[str, list[Any]]:
    places = lake.read("silver/texts", version=versions["silver"], columns=[*_KEYS, *_ORIGIN])
    origin = pl.DataFrame(pl.from_arrow(places)).unique(_KEYS, keep="first")
    values = _source_values(lake, names, versions).unique(_ORIGIN, keep="first")
    joined = rows.with_row_index("_place").join(origin, on=_KEYS, how="left").join(values, on=_ORIGIN, how="left")
    joined = joined.sort("_place")
    return {name: joined[f"source:{name}"].to_list() for name in names}


def _source_values(lake: Lake, names: list[str], versions: Mapping[str, Any]) -> pl.DataFrame:
    """Return the columns of all bronze tables as text, each named `source:NAME`, beside the origin of every row."""
    parts = []
    for (table, version), held in _held(lake, versions).items():
        present = [name for name in names if name in held]
        rows = lake.read(table, version=version, columns=[*_ORIGIN, *present])
        for name in present:
            texts = pa.chunked_array(map(as_text, rows.column(name).chunks), pa.string())
            rows = rows.set_column(rows.schema.get_field_index(name), name, texts)
        read = pl.DataFrame(pl.from_arrow(rows))
        parts.append(
            read.select(
                *_ORIGIN,
                *(
                    (pl.col(name) if name in present else pl.lit(None, pl.String)).alias(f"source:{name}")
                    for name in names
                ),
            )
        )
    return pl.concat(parts)
