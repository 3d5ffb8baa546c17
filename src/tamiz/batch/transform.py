"""Batch prediction as a pure function from a record batch to a record batch."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from tamiz.errors import ColumnError, one_of
from tamiz.model import Model
from tamiz.types import Task

__all__ = ["answer_columns", "check_column", "predict_batch"]


def answer_columns(model: Model) -> list[str]:
    """Return the names of the columns that prediction adds."""
    return list(model.answer_columns)


def check_column(column: str, names: Sequence[str]) -> None:
    """Refuse a table without the text column.

    Raises:
        ColumnError: there is no such column.
    """
    if column not in names:
        raise ColumnError(f"no column {column!r} to predict from; {one_of(column, names)}. Name it with --text-column")


def predict_batch(model: Model, batch: pa.RecordBatch, *, column: str | None = None) -> pa.RecordBatch:
    """Add the model's answers to a batch of rows.

    Columns of the batch whose names the answers need are replaced. A missing text is answered like an empty one.

    Args:
        model: the model.
        batch: rows with a text column.
        column: its name; by default the model's own.

    Returns:
        The input columns, `predicted_label` (a list for multi-label tasks), `predicted_probability` (likewise) and one
        `p_<label>` a label.

    Raises:
        ColumnError: there is no such column.
    """
    column = column or model.text_column
    names = batch.schema.names
    check_column(column, names)
    texts = ["" if value is None else str(value) for value in batch.column(column).to_pylist()]
    predictions = model.predict(texts)
    answers = dict(zip(answer_columns(model), _answers(model, predictions), strict=True))
    kept = {name: batch.column(name) for name in names if name not in answers}
    return pa.RecordBatch.from_pydict({**kept, **answers})


def _answers(model: Model, predictions: list) -> list[pa.Array]:  # type: ignore[type-arg]
    label, number = pa.string(), pa.float64()
    if model.task is Task.MULTI_LABEL:
        label, number = pa.list_(label), pa.list_(number)
    return [
        pa.array([p.label for p in predictions], label),
        pa.array([p.probability for p in predictions], number),
        *(pa.array([float(p.probabilities[j]) for p in predictions], pa.float64()) for j in range(len(model.labels))),
    ]
