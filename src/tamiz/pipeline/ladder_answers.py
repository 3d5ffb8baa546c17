"""Labels that people filled in: read, checked as a whole, and added to those that are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamiz.data.readers import open_source
from tamiz.errors import ColumnError, LabelError, one_of
from tamiz.pipeline.ladder_state import NONE, Labelled, State, id_of, place_of
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


def take_labels(state: State, path: Path, texts: Sequence[str], *, correct: bool = False) -> Taken:
    """Add the labels of a file to those of a ladder; the same label again adds nothing.

    Args:
        state: what is known.
        path: a table with a column `label` and `id`, `text` or both, others aside; blank labels are left out.
        texts: the ladder's texts; a row is known by its id, without one by its text, and with both they must agree.
        correct: take other labels for texts that have one already; the earlier ones stay on record.

    Raises:
        SourceError: the file cannot be read.
        ColumnError: it has no `label`, or neither `id` nor `text`.
        LabelError: a label, id or text is unknown, an id is of another text, or one text has two labels; nothing of the
            file is taken in.
    """
    given = _checked(state, path, texts)
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


def _checked(state: State, path: Path, texts: Sequence[str]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return row and labels by id."""
    found: dict[str, tuple[int, tuple[str, ...]]] = {}
    ids = {id_of(place) for place in range(state.texts)}
    by_text: dict[str, str] = {}
    faults: list[str] = []
    for row, id_, text, cell in _rows(path):
        names = _names(cell, state.task)
        if names is None:
            continue
        if id_ is None:
            by_text = by_text or {_plain(one): id_of(place) for place, one in enumerate(texts)}
            id_ = by_text.get(_plain(text or ""), "")
        labels, fault = _known(names, state.labels)
        if id_ not in ids:
            fault = f"unknown id {id_[:20]!r}; leave the column as it was written" if id_ else "unknown text"
        elif text is not None and _plain(text) != _plain(texts[place_of(id_)]):
            fault = f"{id_} is another text in this ladder; leave the column as it was written, or give texts alone"
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


def _plain(text: str) -> str:
    """Return a text as any table gives it back: spreadsheets change line ends and spaces."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _rows(path: Path) -> Iterator[tuple[int, str | None, str | None, Any]]:
    """Yield number (the head is row 1), id and text (where there is such a column) and label cell of each row."""
    source, row = open_source([str(path)], text="id"), 1
    for file in source.paths():
        for batch in source.batches(file):
            names = batch.schema.names
            if "label" not in names or not {"id", "text"} & set(names):
                missing = "label" if "label" not in names else "id"
                raise ColumnError(f"{path}: no column {missing!r}; {one_of(missing, names)}")
            ids, texts = ([*batch.column(n).to_pylist()] if n in names else None for n in ("id", "text"))
            for at, cell in enumerate(batch.column("label").to_pylist()):
                row += 1
                yield row, _said(ids, at), _said(texts, at), cell


def _said(cells: list[Any] | None, at: int) -> str | None:
    return None if cells is None else str(cells[at] or "").strip()


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
    return [id_ or "" for _, id_, _, _ in _rows(path)]
