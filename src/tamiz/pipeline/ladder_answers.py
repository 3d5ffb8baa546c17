"""Labels that people filled in: read, checked as a whole, and added to those that are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamiz.data.readers import open_source
from tamiz.errors import ColumnError, LabelError, one_of
from tamiz.pipeline.ladder_state import NONE, Labelled, State, id_of
from tamiz.types import Task

__all__ = ["Taken", "ids_of", "take_labels"]

_SHOWN = 5


@dataclass(frozen=True)
class Taken:
    """What came of a file of labels.

    Attributes:
        labelled: all labels, with the new ones at the end.
        new: how many are new.
        conflicts: what was not taken, because the text has another label already; one sentence each.
    """

    labelled: tuple[Labelled, ...]
    new: int
    conflicts: tuple[str, ...]


def take_labels(state: State, path: Path, *, correct: bool = False) -> Taken:
    """Add the labels of a file to those of a ladder; the same label again adds nothing.

    Args:
        state: what is known.
        path: a table with columns `id` and `label`, others aside; blank labels are left out.
        correct: take other labels for texts that have one already; the earlier ones stay on record.

    Raises:
        SourceError: the file cannot be read.
        ColumnError: it has no `id` or `label`.
        LabelError: a label or id is unknown, or one text has two labels; nothing of the file is taken in.
    """
    given = _checked(state, path)
    held, added, conflicts = state.current(), [], []
    random = state.sampled()
    batch_of = {row.id: batch.number for batch in state.batches for row in batch.rows}
    for id_, (row, labels) in given.items():
        before = held.get(id_)
        if before is not None and before.labels == labels:
            continue
        if before is not None and not correct:
            said = ",".join(before.labels) or NONE
            conflicts.append(
                f"{path.name}, row {row}: {id_} has the label {said!r} and keeps it; "
                f"{','.join(labels) or NONE!r} was not taken (with --correct it is)"
            )
            continue
        added.append(Labelled(id_, labels, id_ in random, batch_of.get(id_, 0)))
    return Taken((*state.labelled, *added), len(added), tuple(conflicts))


def _checked(state: State, path: Path) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return row and labels by id."""
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    ids = {id_of(place) for place in range(state.texts)}
    faults: list[str] = []
    for row, id_, cell in _rows(path):
        names = _names(cell, state.task)
        if names is None:
            continue
        labels, fault = _known(names, state.labels)
        if id_ not in ids:
            fault = f"unknown id {id_[:20]!r}; leave the column as it was written"
        elif fault is None and id_ in found and found[id_][1] != labels:
            fault = f"{id_} has another label than in row {found[id_][0]}; leave one of them"
        if fault:
            faults.append(f"row {row}: {fault}")
        else:
            found.setdefault(id_, (row, labels))
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise LabelError(f"{path}: nothing was taken in. " + "; ".join(faults[:_SHOWN]) + more)
    return found


def _rows(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield number (the head is row 1), id and label cell of each row."""
    source, row = open_source([str(path)], text="id"), 1
    for file in source.paths():
        for batch in source.batches(file):
            names = batch.schema.names
            for name in ("id", "label"):
                if name not in names:
                    raise ColumnError(f"{path}: no column {name!r}; {one_of(name, names)}")
            for id_, cell in zip(batch.column("id").to_pylist(), batch.column("label").to_pylist(), strict=True):
                row += 1
                yield row, str(id_ or "").strip(), cell


def _names(cell: Any, task: Task) -> list[str] | None:
    """Return the labels that a cell names; `None` where it is not filled in."""
    if isinstance(cell, list):
        return [str(one).strip() for one in cell]
    said = "" if cell is None else str(cell).strip()
    if not said:
        return None
    if task is not Task.MULTI_LABEL:
        return [said]
    return [] if said == NONE else [part.strip() for part in said.split(",") if part.strip()]


def _known(names: Sequence[str], labels: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """Return labels in the project's order, and what is wrong with one that is none."""
    for name in names:
        if name not in labels:
            return (), f"unknown label {name[:80]!r}; {one_of(name[:80], labels)}"
    return tuple(label for label in labels if label in names), None


def ids_of(path: Path) -> list[str]:
    """Return the ids of a table in order."""
    return [id_ for _, id_, _ in _rows(path)]
