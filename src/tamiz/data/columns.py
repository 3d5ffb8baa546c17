"""Arrow types that a Delta table can hold, the common type of two files' columns, and cells as text."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from tamiz.errors import SourceError

__all__ = ["as_text", "fit", "storable", "storable_schema", "widen"]

# Whole floats beyond this have no exact integer form, so they keep their float spelling.
_EXACT_WHOLE = 2.0**53


def storable(kind: pa.DataType) -> pa.DataType:
    """Return the type under which a Delta table keeps values of `kind` without loss.

    Example:
        >>> storable(pa.dictionary(pa.int8(), pa.large_string()))
        DataType(string)
    """
    if isinstance(kind, pa.BaseExtensionType):
        return storable(kind.storage_type)
    if kinds.is_dictionary(kind):
        return storable(kind.value_type)
    if kinds.is_integer(kind):
        return pa.string() if kinds.is_uint64(kind) else pa.int64()
    if kinds.is_floating(kind):
        return pa.float64()
    if kinds.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if kinds.is_date(kind):
        return pa.date32()
    if _is_list(kind):
        return pa.list_(storable(kind.value_type))
    if kinds.is_struct(kind):
        return pa.struct([pa.field(field.name, storable(field.type)) for field in kind])
    if _is_bytes(kind):
        return pa.binary()
    return kind if kinds.is_boolean(kind) or kinds.is_decimal128(kind) else pa.string()


def storable_schema(schema: pa.Schema) -> pa.Schema:
    """Return `schema` with every type made storable."""
    return pa.schema([pa.field(field.name, storable(field.type)) for field in schema])


def widen(known: pa.Schema, found: pa.Schema) -> pa.Schema:
    """Return the columns of both schemas, each with a type that holds the values of both.

    Equal types stay; lists widen by element; all else becomes text, which loses nothing.

    Raises:
        SourceError: a column is a structure or bytes on one side and something else on the other, or two names differ
            by case only.
    """
    fields = {field.name: field for field in known}
    for field in found:
        before = fields.get(field.name)
        kind = field.type if before is None else _wider(field.name, before.type, field.type)
        fields[field.name] = pa.field(field.name, kind)
    _check_case(list(fields))
    return pa.schema(list(fields.values()))


def fit(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with the columns of `schema`: cast where types differ, null where a column is missing."""
    columns = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        columns.append(pa.nulls(batch.num_rows, field.type) if at < 0 else _cast(batch.column(at), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def as_text(column: pa.Array) -> pa.StringArray:
    """Return the cells as text: `3.0` as `3`, booleans in lower case, lists and structures as JSON, NaN as null."""
    if isinstance(column, pa.ExtensionArray):
        return as_text(column.storage)
    kind = column.type
    if kinds.is_dictionary(kind):
        return as_text(column.dictionary_decode())
    if kinds.is_floating(kind):
        return _floats_as_text(column)
    if _is_list(kind) or kinds.is_struct(kind) or kinds.is_map(kind):
        cells = column.to_pylist()
        return pa.array(
            [None if c is None else json.dumps(c, ensure_ascii=False, default=str) for c in cells], pa.string()
        )
    if _is_bytes(kind):
        return pa.array([None if c is None else c.decode("utf-8", "replace") for c in column.to_pylist()], pa.string())
    if kinds.is_temporal(kind) and not kinds.is_duration(kind):
        return pa.array([None if c is None else c.isoformat() for c in column.to_pylist()], pa.string())
    return column.cast(pa.string())


def _floats_as_text(column: pa.Array) -> pa.StringArray:
    column = column.cast(pa.float64())
    column = pc.if_else(pc.is_nan(column), None, column)
    whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), _EXACT_WHOLE))
    integers = pc.if_else(whole, column, 0.0).cast(pa.int64())
    return pc.if_else(whole, integers.cast(pa.string()), column.cast(pa.string()))


def _is_list(kind: pa.DataType) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (kinds.is_binary, kinds.is_large_binary, kinds.is_fixed_size_binary, kinds.is_binary_view)
    return any(test(kind) for test in tests)


def _wider(name: str, known: pa.DataType, found: pa.DataType) -> pa.DataType:
    if known == found:
        return known
    if _is_list(known) and _is_list(found):
        return pa.list_(_wider(name, known.value_type, found.value_type))
    for kind in (known, found):
        if kinds.is_struct(kind) or kinds.is_binary(kind):
            raise SourceError(f"column {name!r} is {known} in one file and {found} in another; give it one type in all")
    return pa.string()


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if kind == pa.string():
        return as_text(column)
    if kinds.is_null(column.type):
        return pa.nulls(len(column), kind)
    if _is_list(kind) and _is_list(column.type):
        return _cast_list(column, kind)
    return column.cast(kind, safe=False)


def _cast_list(column: pa.Array, kind: pa.DataType) -> pa.Array:
    lists: Any = column.cast(pa.list_(column.type.value_type))
    values = _cast(lists.flatten(), kind.value_type)
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array([0, *sizes.cumsum().tolist()], pa.int32())
    return pa.ListArray.from_arrays(offsets, values, type=kind, mask=pc.is_null(lists))


def _check_case(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise SourceError(f"columns {other!r} and {name!r} differ by case only; rename one of them")
