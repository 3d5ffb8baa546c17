"""Figures of parts of the examples: by columns with few values, by year, by length of the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np

from tamiz.card import SliceFigures
from tamiz.errors import counted
from tamiz.metrics import share_interval
from tamiz.reports.sample import Sample
from tamiz.types import BoolArray, IntArray, Task

__all__ = ["left_out", "length_parts", "name_of", "shortened", "slice_figures"]

LENGTH = "length of the text"
_MOST_VALUES = 20
_LONGEST_NAME = 60


def slice_figures(sample: Sample) -> list[SliceFigures]:
    """Measure each quarter of the texts by length, then each value of each column that has 2 to 20.

    Times are taken by year. The figures are `accuracy` (multi-label: `subset_accuracy` and `f1_micro`) and `f1_macro`
    over the labels that are true or decided in the slice.
    """
    if not len(sample):
        return []
    return [
        _figures(sample, column, value, rows)
        for column, codes, values in _divisions(sample)
        for code, value in enumerate(values)
        if (rows := codes == code).any()
    ]


def _divisions(sample: Sample) -> Iterator[tuple[str, IntArray, list[str]]]:
    """Yield name, code of each example (-1 for none) and names of the codes."""
    yield LENGTH, *length_parts(sample.texts)
    for name, cells in sample.columns.items():
        names = [name_of(cell) for cell in cells]
        values = sorted(set(names))
        if 2 <= len(values) <= _MOST_VALUES:
            code = {value: i for i, value in enumerate(values)}
            yield name, np.array([code[value] for value in names]), [shortened(value) for value in values]


def left_out(sample: Sample) -> list[str]:
    """Say which columns have one value, or too many, to divide the examples by."""
    counts = {name: len({name_of(cell) for cell in cells}) for name, cells in sample.columns.items()}
    return [
        f"{name} ({counted(count, 'value')}, at most {_MOST_VALUES})"
        for name, count in counts.items()
        if not 2 <= count <= _MOST_VALUES
    ]


def length_parts(texts: Sequence[str]) -> tuple[IntArray, list[str]]:
    """Divide texts into quarters by their length.

    Returns:
        Part of each text, and names of the parts; fewer than four where many texts are equally long.
    """
    sizes = np.array([len(text) for text in texts])
    bounds = np.unique(np.quantile(sizes, [0.25, 0.5, 0.75], method="lower"))
    bounds = bounds[bounds < sizes.max()]
    codes = np.searchsorted(bounds, sizes, side="left")
    edges = [int(sizes.min()), *(int(bound) + 1 for bound in bounds)]
    ends = [*(int(bound) for bound in bounds), int(sizes.max())]
    return codes, [f"{low:,} to {high:,} characters" for low, high in zip(edges, ends, strict=True)]


def name_of(cell: Any) -> str:
    """Return what the examples with this value of a column are called; times are taken by year."""
    if cell is None or cell == "":
        return "(none)"
    return str(cell.year) if isinstance(cell, date) else str(cell)


def shortened(name: str) -> str:
    """Return a name cut to what fits in a table."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _figures(sample: Sample, column: str, value: str, rows: BoolArray) -> SliceFigures:
    targets, decided, right = sample.targets[rows], sample.decided[rows], sample.right[rows]
    bounds = share_interval(int(right.sum()), len(right))
    several = sample.task is Task.MULTI_LABEL
    figures = {"subset_accuracy" if several else "accuracy": float(right.mean())}
    hits, total = _counts(targets, decided, len(sample.labels), several=several)
    if several:
        figures["f1_micro"] = float(2 * hits.sum() / max(total.sum(), 1))
    found = total > 0
    figures["f1_macro"] = float((2 * hits[found] / total[found]).mean()) if found.any() else 0.0
    return SliceFigures(column, value, len(right), figures, bounds)


def _counts(targets: Any, decided: Any, k: int, *, several: bool) -> tuple[IntArray, IntArray]:
    """Return by label the right decisions, and the true examples plus the decisions."""
    if several:
        return (targets & decided).sum(axis=0), targets.sum(axis=0) + decided.sum(axis=0)
    hits = np.bincount(targets[targets == decided], minlength=k)
    return hits, np.bincount(targets, minlength=k) + np.bincount(decided[decided >= 0], minlength=k)
