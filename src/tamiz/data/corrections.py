"""A person's corrections of labels: a CSV file with `row_id` and `corrected_label`, applied as texts are cleaned.

A row is known by its `row_id`: the value of the project's id column or, without one, the start of its file's hash and
its place in the file. Lines without a `corrected_label` are passed over, so that a list of suspected rows can be filled
in as far as one has come.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path

from tamiz.config import Project
from tamiz.data.rows import Labels
from tamiz.errors import ConfigError, DataError, counted, one_of
from tamiz.types import Task

__all__ = ["CORRECTED", "DROP", "DROPPED", "Corrections", "load_corrections", "split_labels"]

DROP = "-"
"""Value of `corrected_label` that takes a row out."""

CORRECTED, DROPPED = 1, 2
_COLUMNS = ("row_id", "corrected_label")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Correction:
    """What one line of the file says.

    Attributes:
        line: its first line in the file, from 1.
        labels: the labels of the row; `None` takes the row out.
    """

    line: int
    labels: Labels


class Corrections:
    """The corrections of a project, and which of them have met their row.

    Args:
        place: the file, for messages.
        by_id: what is to be done with each row, by row id.
    """

    def __init__(self, place: str = "", by_id: dict[str, Correction] | None = None) -> None:
        self._place = place
        self._by_id = by_id or {}
        self._met: set[str] = set()
        self._labels: set[str] = set()

    def __len__(self) -> int:
        """Return the number of rows to correct."""
        return len(self._by_id)

    @property
    def digest(self) -> str | None:
        """Hash of what is to be done, whatever else the file holds and in whatever order; `None` without any."""
        if not self._by_id:
            return None
        effect = {row_id: one.labels for row_id, one in self._by_id.items()}
        text = json.dumps(effect, sort_keys=True, ensure_ascii=False)
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def apply(self, ids: Sequence[str], labels: Sequence[Labels]) -> tuple[list[Labels], list[int]]:
        """Return the labels after correction and, for each row, 0, `CORRECTED` or `DROPPED`."""
        out, marks = list(labels), [0] * len(ids)
        if not self._by_id:
            return out, marks
        for at, (row_id, own) in enumerate(zip(ids, labels, strict=True)):
            self._labels.update(own or ())
            found = self._by_id.get(row_id)
            if found is None:
                continue
            self._met.add(row_id)
            if found.labels is None:
                marks[at] = DROPPED
            else:
                out[at], marks[at] = found.labels, CORRECTED
        return out, marks

    def check(self, names: Collection[str] | None) -> None:
        """Refuse, once all rows have been seen, what does not fit the data.

        Args:
            names: labels of the project; by default all labels of the data are allowed.

        Raises:
            DataError: a row id is not in the data, or a label is not one of the project's, or of the data's.
        """
        unmet = sorted(one.line for row_id, one in self._by_id.items() if row_id not in self._met)
        if unmet:
            raise DataError(
                f"{self._place}: no labelled row has the row_id of {_lines(unmet)}. Take the ids from "
                "`tamiz check --suspects FILE.csv` on the present data, or take the lines out"
            )
        allowed = self._labels if names is None else set(names)
        wrong = [
            (one.line, label) for one in self._by_id.values() for label in one.labels or () if label not in allowed
        ]
        if wrong:
            line, label = min(wrong)
            others = len({at for at, _ in wrong} - {line})
            more = f" (so on {counted(others, 'more line')})" if others else ""
            raise DataError(
                f"{self._place}: line {line}: corrected_label {label!r} is no label of the project{more}; "
                f"{one_of(label, allowed)}. {DROP!r} takes a row out; a new label must stand in labels.names"
            )


def load_corrections(project: Project) -> Corrections:
    """Read the file that `labels.corrections` names; without one there is nothing to correct.

    Raises:
        ConfigError: the file is not there or cannot be read.
        DataError: a column is missing, a line has no row id, or two lines differ about a row.
    """
    named = project.labels.corrections
    if named is None:
        return Corrections()
    place = project.resolve(named)
    if "://" in place:
        raise ConfigError(f"labels.corrections: got {named!r}; allowed: a CSV file on this machine")
    try:
        text = Path(place).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        raise ConfigError(
            f"labels.corrections: {place} {why}. `tamiz check --suspects FILE.csv` writes such a file"
        ) from error
    return Corrections(named, _read(named, text, project))


def split_labels(cell: str, project: Project) -> tuple[str, ...]:
    """Return the labels in one cell: one, or for multi-label tasks the parts between `data.separator` (or `|`)."""
    if project.task is not Task.MULTI_LABEL:
        return (cell.strip(),)
    parts = (part.strip() for part in cell.split(project.data.separator or "|"))
    return tuple(dict.fromkeys(part for part in parts if part))


def _read(place: str, text: str, project: Project) -> dict[str, Correction]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets write what their country's settings say
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    names = [name.strip() for name in next(reader, [])]
    for column in _COLUMNS:
        if column not in names:
            raise DataError(f"{place}: there is no column {column!r}; {one_of(column, names)}")
    at_id, at_label = (names.index(column) for column in _COLUMNS)
    found: dict[str, Correction] = {}
    while True:
        line = reader.line_num + 1
        cells = _next(reader, place, line)
        if cells is None:
            return found
        given = cells[at_label].strip() if len(cells) > max(at_id, at_label) else ""
        if given:
            _add(found, cells[at_id].strip(), Correction(line, _labels(given, project)), place)


def _next(reader: Iterator[list[str]], place: str, line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise DataError(f"{place}: line {line} is not CSV: {error}") from error


def _labels(given: str, project: Project) -> Labels:
    return None if given == DROP else split_labels(given, project)


def _add(found: dict[str, Correction], row_id: str, correction: Correction, place: str) -> None:
    if not row_id:
        raise DataError(f"{place}: line {correction.line} has a corrected_label and no row_id")
    known = found.setdefault(row_id, correction)
    if known.labels != correction.labels:
        raise DataError(f"{place}: lines {known.line} and {correction.line} correct the same row in different ways")


def _lines(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN]))
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"
