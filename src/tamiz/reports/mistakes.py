"""The most confident mistakes, for people to read."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from tamiz.data.delimited import harmless
from tamiz.reports.sample import Sample
from tamiz.types import Task

__all__ = ["Mistake", "mistakes", "write_mistakes"]

_SHOWN = 300  # characters of a text


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        row_id: identifier of the example.
        truth: its label; multi-label: `not LABEL` where the label was given wrongly.
        decided: what the model answered, likewise.
        confidence: probability of that answer.
        text: the text, shortened.
    """

    row_id: str
    truth: str
    decided: str
    confidence: float
    text: str


def mistakes(sample: Sample, n: int = 200) -> list[Mistake]:
    """Return at most `n` wrong answers, the most confident first; abstentions are no answers.

    In multi-label tasks an answer is about one label of one example.
    """
    found = _wrong_labels(sample, n) if sample.task is Task.MULTI_LABEL else _wrong_rows(sample, n)
    return list(found)


def _wrong_rows(sample: Sample, n: int) -> Iterator[Mistake]:
    rows = np.flatnonzero((sample.decided >= 0) & (sample.decided != sample.targets))
    confidence = sample.probabilities[rows, sample.decided[rows]]
    for place in np.argsort(-confidence, kind="stable")[:n].tolist():
        row = int(rows[place])
        truth, decided = sample.labels[sample.targets[row]], sample.labels[sample.decided[row]]
        yield Mistake(sample.row_ids[row], truth, decided, float(confidence[place]), _short(sample.texts[row]))


def _wrong_labels(sample: Sample, n: int) -> Iterator[Mistake]:
    rows, labels = np.nonzero(sample.decided != sample.targets)
    p, given = sample.probabilities[rows, labels], sample.decided[rows, labels]
    confidence = np.where(given, p, 1 - p)
    for place in np.argsort(-confidence, kind="stable")[:n].tolist():
        row, name = int(rows[place]), sample.labels[labels[place]]
        truth, decided = (f"not {name}", name) if given[place] else (name, f"not {name}")
        yield Mistake(sample.row_ids[row], truth, decided, float(confidence[place]), _short(sample.texts[row]))


def _short(text: str) -> str:
    text = " ".join(text[: 4 * _SHOWN].split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def write_mistakes(path: Path, found: Sequence[Mistake]) -> None:
    """Write mistakes as CSV; a cell that a spreadsheet would take for a formula gets an apostrophe before it."""
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Mistake)])
        writer.writerows([_cell(cell) for cell in asdict(mistake).values()] for mistake in found)


def _cell(cell: str | float) -> str:
    return f"{cell:.6f}" if isinstance(cell, float) else harmless(cell)
