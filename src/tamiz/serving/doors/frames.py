"""MLflow's shapes of a table: `dataframe_split`, `dataframe_records` and `instances`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field

from tamiz.serving.problems import FieldError, InvalidFieldsError

__all__ = ["InstancesBody", "RecordsBody", "SplitBody", "instance_texts", "record_texts", "split_texts"]

Cell = Any


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    params: dict[str, Any] | None = Field(None, description="Taken, as MLflow's server does, and of no effect")


class SplitFrame(BaseModel):
    """A table: names of columns, and rows of cells."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: list[str | int] = Field(min_length=1)
    data: Annotated[list[list[Cell]], FailFast()]
    index: list[Any] | None = None


class SplitBody(_Body):
    """A table as `pandas.DataFrame.to_dict(orient="split")` gives it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}]}
    )

    dataframe_split: SplitFrame


class RecordsBody(_Body):
    """A table as a list of its rows."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"dataframe_records": [{"text": "a"}]}]})

    dataframe_records: Annotated[list[dict[str, Cell]], FailFast()]


class InstancesBody(_Body):
    """Texts, or rows, or lists of one text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"instances": ["a", "b"]}]})

    instances: Annotated[list[str | dict[str, Cell] | list[Cell]], FailFast()]


def split_texts(body: SplitBody, column: str) -> list[str]:
    """Return the texts of a table.

    Raises:
        InvalidFieldsError: there is no such column, or a row or cell is wrong.
    """
    frame, where = body.dataframe_split, "body.dataframe_split"
    names = [str(name) for name in frame.columns]
    at = names.index(_name_of(column, names, f"{where}.columns"))
    for row, cells in enumerate(frame.data):
        if len(cells) != len(names):
            raise _wrong(f"{where}.data[{row}]", f"The row has {len(cells)} cells, and there are {len(names)} columns")
    return [_text(cells[at], f"{where}.data[{row}]") for row, cells in enumerate(frame.data)]


def record_texts(body: RecordsBody, column: str) -> list[str]:
    """Return the texts of a list of rows.

    Raises:
        InvalidFieldsError: a row has no such column, or a cell is wrong.
    """
    where = "body.dataframe_records"
    return [_of_row(row, column, f"{where}[{place}]") for place, row in enumerate(body.dataframe_records)]


def instance_texts(body: InstancesBody, column: str) -> list[str]:
    """Return the texts of a list of instances.

    Raises:
        InvalidFieldsError: an instance is neither a text, nor a row with such a column, nor a list of one text.
    """
    return [_of_instance(one, column, f"body.instances[{place}]") for place, one in enumerate(body.instances)]


def _of_instance(one: str | dict[str, Cell] | list[Cell], column: str, where: str) -> str:
    if isinstance(one, str):
        return one
    if isinstance(one, dict):
        return _of_row(one, column, where)
    if len(one) != 1:
        raise _wrong(where, f"A list of one text is expected, not of {len(one)}")
    return _text(one[0], where)


def _of_row(row: dict[str, Cell], column: str, where: str) -> str:
    name = _name_of(column, list(row), where)
    return _text(row[name], f"{where}.{name}")


def _name_of(column: str, names: Sequence[str], where: str) -> str:
    """Return the name of the text's column; pandas calls a single one without a name 0."""
    if column in names:
        return column
    if list(names) == ["0"]:
        return "0"
    raise _wrong(where, f"The column {column!r}, which holds the text, is missing")


def _text(cell: Cell, where: str) -> str:
    """Return a cell as a text, as `tamiz predict` does: a missing one is empty."""
    if cell is None or cell != cell:  # pandas writes a missing cell as NaN
        return ""
    if isinstance(cell, list | dict):
        raise _wrong(where, "A text is expected")
    return str(cell)


def _wrong(where: str, message: str) -> InvalidFieldsError:
    return InvalidFieldsError(f"One field is wrong: {where}: {message}", [FieldError(where, message, "wrong_table")])
