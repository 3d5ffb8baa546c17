"""A person's corrections of labels: a CSV file with `row_id` and `corrected_label`, applied as texts are cleaned.

A row is known by its `row_id`: the value of the project's id column or, without one, the start of its file's hash and
its place in the file. Lines without a `corrected_label` are passed over, so that a list of suspected rows can be filled
in as far as one has come. A column `side`, as that list has it, tells rows of a test set of the user's own from others
with the same `row_id`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path

from tamiz.config import Project
from tamiz.data.delimited import allow_long_fields
from tamiz.data.rows import Labels
from tamiz.errors import ColumnError, ConfigError, DataError, counted, one_of
from tamiz.types import Task

__all__ = ["CORRECTED", "DROP", "DROPPED", "Corrections", "filled_lines", "load_corrections", "split_labels"]

DROP = "-"
"""Value of `corrected_label` that takes a row out."""

CORRECTED, DROPPED = 1, 2
_COLUMNS = ("row_id", "corrected_label")
_SIDE = "side"
_SHOWN = 5

RowKey = tuple[str, str | None]
"""Row id, and part (`train` or `test`) or `None` for any."""


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
        by_id: what is to be done with each row, by row id and part; a part `None` is any.
    """

    def __init__(self, place: str = "", by_id: dict[RowKey, Correction] | None = None) -> None:
        self._place = place
        self._by_id = by_id or {}
        self._met: dict[RowKey, set[str]] = {}
        self._labels: set[str] = set()

    def __len__(self) -> int:
        """Return the number of rows to correct."""
        return len(self._by_id)

    @property
    def digest(self) -> str | None:
        """Hash of what is to be done, whatever else the file holds and in whatever order; `None` without any."""
        if not self._by_id:
            return None
        effect = sorted((row_id, part or "", one.labels) for (row_id, part), one in self._by_id.items())
        text = json.dumps(effect, ensure_ascii=False)
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def apply(self, ids: Sequence[str], labels: Sequence[Labels], part: str) -> tuple[list[Labels], list[int]]:
        """Return the labels after correction and, for each row, 0, `CORRECTED` or `DROPPED`.

        Args:
            ids: row ids.
            labels: labels of each row.
            part: `train` (`data.source`) or `test` (`data.test`).
        """
        out, marks = list(labels), [0] * len(ids)
        if not self._by_id:
            return out, marks
        for at, (row_id, own) in enumerate(zip(ids, labels, strict=True)):
            self._labels.update(own or ())
            key: RowKey = (row_id, part)
            if key not in self._by_id:
                key = (row_id, None)
            found = self._by_id.get(key)
            if found is None:
                continue
            self._met.setdefault(key, set()).add(part)
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
            DataError: a row id is not in the data, or both in the source and in the own test set, or a label is not one
                of the project's, or of the data's.
        """
        twice = sorted(self._by_id[key].line for key, parts in self._met.items() if len(parts) > 1)
        if twice:
            raise DataError(
                f"{self._place}: the row_id of {_lines(twice)} stands in data.source and in data.test; add a column "
                "`side` that says `train` or `test`"
            )
        unmet = [(key, one) for key, one in self._by_id.items() if key not in self._met]
        if unmet:
            sided = any(part for (_, part), _ in unmet)
            what = "row_id with the `side`" if sided else "row_id"
            raise DataError(
                f"{self._place}: no labelled row has the {what} of {_lines(sorted(one.line for _, one in unmet))}. "
                "Take the ids from `tamiz check --suspects FILE.csv` on the present data, or take the lines out"
                + ("; rows of data.test have the side `test`, all others `train`" if sided else "")
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
    found: dict[RowKey, Correction] = {}
    for line, cells in _filled(named, text):
        _add(found, _key(cells, project), Correction(line, _labels(cells["corrected_label"], project)), named)
    return Corrections(named, found)


def filled_lines(path: Path) -> list[dict[str, str]]:
    """Return the lines of a list of suspects that were filled in, as cells by column; none where there is no file.

    Raises:
        ConfigError: there is another file.
        DataError: it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is there and is no list of suspects; name another file") from error
    try:
        return [cells for _, cells in _filled(str(path), text)] if text.strip() else []
    except ColumnError as error:
        raise ConfigError(f"{path} is there and is no list of suspects; name another file") from error


def split_labels(cell: str, project: Project) -> tuple[str, ...]:
    """Return the labels in one cell: one, or for multi-label tasks the parts between `data.separator` (or `|`)."""
    if project.task is not Task.MULTI_LABEL:
        return (cell.strip(),)
    parts = (part.strip() for part in cell.split(project.data.separator or "|"))
    return tuple(dict.fromkeys(part for part in parts if part))


def _filled(place: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the cells of each line with a `corrected_label`."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets write what their country's settings say
    allow_long_fields()
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    names = [name.strip() for name in next(reader, [])]
    for column in _COLUMNS:
        if column not in names:
            raise ColumnError(f"{place}: there is no column {column!r}; {one_of(column, names)}")
    while True:
        line = reader.line_num + 1
        row = _next(reader, place, line)
        if row is None:
            return
        cells = dict(zip(names, row, strict=False))
        cells |= {column: cells.get(column, "").strip() for column in (*_COLUMNS, _SIDE)}
        if cells["corrected_label"]:
            if not cells["row_id"]:
                raise DataError(f"{place}: line {line} has a corrected_label and no row_id")
            yield line, cells


def _next(reader: Iterator[list[str]], place: str, line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise DataError(f"{place}: line {line} is not CSV: {error}") from error


def _labels(given: str, project: Project) -> Labels:
    return None if given == DROP else split_labels(given, project)


def _key(cells: Mapping[str, str], project: Project) -> RowKey:
    """Return row id and part; only a test set of the user's own is a part of its own."""
    if project.data.test is None:
        return cells["row_id"], None
    return cells["row_id"], {"train": "train", "validation": "train", "test": "test"}.get(cells[_SIDE])


def _add(found: dict[RowKey, Correction], key: RowKey, correction: Correction, place: str) -> None:
    known = found.setdefault(key, correction)
    if known.labels != correction.labels:
        raise DataError(f"{place}: lines {known.line} and {correction.line} correct the same row in different ways")


def _lines(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN]))
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"
