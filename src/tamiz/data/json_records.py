"""Read JSON lines, and JSON files that hold a list of records, as record batches of one schema.

The columns are the union of all keys, in the order in which they first occur. A column whose values differ in kind
(numbers here, words there) becomes text. Lines are read twice: once to learn the columns, once to yield rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tamiz.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_json_lines", "read_json_list", "starts_a_list"]

_BATCH_CHARACTERS = 1 << 23
_BATCH_ROWS = 50_000
_INT64 = range(-(2**63), 2**63)

# The kind of a value: one of these, or ("list", kind). `nothing` gives way to all others; `mixed` is kept as text.
_Kind = str | tuple[str, Any]
_SCALARS: dict[type, str] = {type(None): "nothing", bool: "boolean", float: "number", str: "text", dict: "mixed"}

_Record = dict[str, Any]


def starts_a_list(opened: Callable[[], TextIO], where: str) -> bool:
    """Tell whether a JSON file is one list of records; otherwise it is taken as one record a line.

    Raises:
        SourceError: the file is empty.
    """
    with opened() as stream:
        while block := stream.read(4096):
            if text := block.lstrip():
                return text.startswith("[")
    raise SourceError(f"{where} is empty: JSON records are expected")


def read_json_lines(opened: Callable[[], TextIO], where: str) -> Iterator[pa.RecordBatch]:
    """Read one JSON object per line; blank lines are skipped.

    Raises:
        SourceError: a line is not a JSON object, or there is none.
    """
    kinds: dict[str, _Kind] = {}
    for record, _ in _lines(opened, where):
        _learn(kinds, record)
    if not kinds:
        raise SourceError(f"{where} is empty: one JSON object per line is expected")
    yield from _batches(_lines(opened, where), kinds)


def read_json_list(opened: Callable[[], TextIO], where: str) -> Iterator[pa.RecordBatch]:
    """Read a JSON file that is one list of objects; the list is held in memory, so large data fits JSON lines better.

    Raises:
        SourceError: the file is not JSON, or not a list of objects, or the list is empty.
    """
    with opened() as stream:
        try:
            records = json.load(stream)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{where} is not valid JSON: {_reason(error)}") from error
    kinds: dict[str, _Kind] = {}
    for place, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise SourceError(f"{where}: item {place} of the list is {_name(record)}; an object is expected")
        _learn(kinds, record)
    if not kinds:
        raise SourceError(f"{where} is empty: a list of JSON objects is expected")
    yield from _batches(((record, 256) for record in records), kinds)


def _lines(opened: Callable[[], TextIO], where: str) -> Iterator[tuple[_Record, int]]:
    """Yield each record with the length of its line."""
    with opened() as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{where}: line {number} is not valid JSON: {_reason(error)}") from error
            if not isinstance(record, dict):
                raise SourceError(f"{where}: line {number} is {_name(record)}; an object is expected")
            yield record, len(line)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return (
            f"{error.msg} (line {error.lineno}, column {error.colno})"
            if error.lineno > 1
            else (f"{error.msg} (column {error.colno})")
        )
    return "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"


def _name(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _learn(kinds: dict[str, _Kind], record: _Record) -> None:
    for key, value in record.items():
        seen = kinds.get(key, "nothing")
        kind = _kind(value)
        if kind != seen:
            kinds[key] = _merge(seen, kind)
        elif key not in kinds:
            kinds[key] = kind


def _kind(value: object) -> _Kind:
    if isinstance(value, list):
        item: _Kind = "nothing"
        for one in value:
            item = _merge(item, _kind(one))
        return ("list", item)
    if type(value) is int:
        return "integer" if value in _INT64 else "mixed"
    return _SCALARS[type(value)]


def _merge(one: _Kind, other: _Kind) -> _Kind:
    if one == other or other == "nothing":
        return one
    if one == "nothing":
        return other
    if {one, other} == {"integer", "number"}:
        return "number"
    if isinstance(one, tuple) and isinstance(other, tuple):
        return ("list", _merge(one[1], other[1]))
    # One label written bare and several as a list is common in multi-label data.
    if isinstance(one, tuple) and one[1] in ("text", "nothing") and other == "text":
        return ("list", "text")
    if isinstance(other, tuple) and other[1] in ("text", "nothing") and one == "text":
        return ("list", "text")
    return "mixed"


def _batches(records: Iterator[tuple[_Record, int]], kinds: Mapping[str, _Kind]) -> Iterator[pa.RecordBatch]:
    rows: list[_Record] = []
    characters = 0
    for record, size in records:
        rows.append(record)
        characters += size
        if characters >= _BATCH_CHARACTERS or len(rows) >= _BATCH_ROWS:
            yield _batch(rows, kinds)
            rows, characters = [], 0
    if rows:
        yield _batch(rows, kinds)


def _batch(rows: Sequence[_Record], kinds: Mapping[str, _Kind]) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = [_array([row.get(key) for row in rows], kind) for key, kind in kinds.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(kinds))


def _array(values: list[Any], kind: _Kind) -> pa.Array:
    import pyarrow as pa

    plain = [_as(value, kind) for value in values]
    try:
        return pa.array(plain, _arrow_type(kind))
    except UnicodeEncodeError:  # half of a surrogate pair, written as an escape
        return pa.array([_mend(value) for value in plain], _arrow_type(kind))


def _as(value: Any, kind: _Kind) -> Any:
    if value is None or kind in ("text", "integer", "boolean"):
        return value
    if kind == "mixed":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if kind == "number":
        return float(value)
    if isinstance(kind, tuple):
        return [_as(item, kind[1]) for item in (value if isinstance(value, list) else [value])]
    return None


def _arrow_type(kind: _Kind) -> pa.DataType:
    import pyarrow as pa

    if isinstance(kind, tuple):
        return pa.list_(_arrow_type(kind[1]))
    return {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}.get(kind, pa.string())


def _mend(value: Any) -> Any:
    """Replace lone surrogates, which no UTF-8 text can hold, by U+FFFD."""
    if isinstance(value, list):
        return [_mend(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
