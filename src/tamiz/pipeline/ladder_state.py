"""What a ladder knows, on disk: texts, labels in the order they came, batches, decisions; and the model of its rung.

`ladder.json` is replaced whole and is the only file that is believed; all others are written from it, so that a run
that is killed anywhere is made good by the next one.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from tamiz._files import explain, flush_folder, holding, replacing
from tamiz.errors import BusyError, DataError, SourceError
from tamiz.model import Model
from tamiz.types import Task

__all__ = [
    "BATCH",
    "LABELS",
    "MODEL",
    "NONE",
    "STATE",
    "TEXTS",
    "Batch",
    "Labelled",
    "State",
    "Suggestion",
    "id_of",
    "locked",
    "place_of",
    "read_state",
    "read_texts",
    "replace_model",
    "restore_model",
    "write_batch",
    "write_labels",
    "write_state",
    "write_texts",
]

STATE, TEXTS, LABELS, BATCH, MODEL = "ladder.json", "texts.jsonl", "labels.csv", "to_label.csv", "model"
NONE = "-"
"""What stands for no label at all where a text may have several."""

_FORMAT = 1
_NEXT, _FORMER = ".model.next", ".model.former"
_SLOTS = (".model.a", ".model.b")  # `model` is a link to one of them, where the system has links


@dataclass(frozen=True)
class Labelled:
    """One label that was taken in; of several for one text the last holds.

    Attributes:
        id: of the text.
        labels: one, or several or none of a multi-label task.
        random: whether the text was drawn at random, and so counts in figures of quality.
        batch: number of the batch it was asked in; 0 where it was in none.
    """

    id: str
    labels: tuple[str, ...]
    random: bool
    batch: int


@dataclass(frozen=True)
class Suggestion:
    """A text to label.

    Attributes:
        id: of the text.
        random: whether it was drawn at random.
        hint: what the rung's model says of it, with commas between several labels.
        score: the probability of that; of several labels, of the least sure.
        why: why it was picked.
    """

    id: str
    random: bool
    hint: str
    score: float
    why: str


@dataclass(frozen=True)
class Batch:
    """Texts that were suggested together.

    Attributes:
        number: from 1.
        after: how many labels had been taken in.
        rows: the texts.
    """

    number: int
    after: int
    rows: tuple[Suggestion, ...]


@dataclass(frozen=True)
class State:
    """All that a ladder knows besides its texts and its project file.

    Attributes:
        labels: in order.
        task: what kind of answer is given.
        seed: of every draw.
        size: texts of a batch.
        random_share: share of a batch that is drawn at random.
        alpha: error probability of a comparison.
        texts: how many there are.
        rung: name of the candidate in use.
        labelled: every label that was taken in, in order; never taken away.
        batches: every batch, in order.
        decisions: every decision, in order.
        zero_shot: what zero-shot said before there were labels.
        model: what the written model was made of.
    """

    labels: tuple[str, ...]
    task: Task
    seed: int
    size: int
    random_share: float
    alpha: float
    texts: int
    rung: str
    labelled: tuple[Labelled, ...] = ()
    batches: tuple[Batch, ...] = ()
    decisions: tuple[dict[str, Any], ...] = ()
    zero_shot: dict[str, Any] = field(default_factory=dict)
    model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Read what `to_dict` gave, after a way through JSON."""
        fields = {name: value for name, value in record.items() if name != "format"}
        fields["labelled"] = tuple(Labelled(**{**one, "labels": tuple(one["labels"])}) for one in fields["labelled"])
        batches = [{**one, "rows": tuple(Suggestion(**row) for row in one["rows"])} for one in fields["batches"]]
        fields["batches"] = tuple(Batch(**one) for one in batches)
        fields |= {"labels": tuple(fields["labels"]), "task": Task(fields["task"])}
        return cls(**{**fields, "decisions": tuple(fields["decisions"])})

    def current(self) -> dict[str, Labelled]:
        """Return the label that holds of each labelled text, by its id, in the order they first came."""
        return {one.id: one for one in self.labelled}

    def sides(self) -> tuple[list[str], list[str]]:
        """Return the ids of texts that are drawn at random, in the order they are drawn, and of those picked.

        The texts are divided once, at random: what uncertainty picks can never be among those that measure.
        """
        order = np.random.default_rng(self.seed).permutation(self.texts)
        count = min(self.texts, max(1, math.ceil(self.random_share * self.texts)))
        ids = [id_of(place) for place in order.tolist()]
        return ids[:count], ids[count:]

    def sampled(self) -> set[str]:
        """Return the ids of the texts that were drawn at random so far: what comes in their order up to the last asked.

        A text of the same side that somebody picked, and that no draw has reached, is no random one.
        """
        asked = {row.id for batch in self.batches for row in batch.rows if row.random}
        drawn = self.sides()[0]
        last = max((place for place, id_ in enumerate(drawn) if id_ in asked), default=-1)
        return set(drawn[: last + 1])

    def with_batch(self, batch: Batch) -> Self:
        """Return a copy with one more batch; texts that were labelled before their turn may be drawn by now."""
        state = replace(self, batches=(*self.batches, batch))
        sampled = state.sampled()
        return replace(state, labelled=tuple(replace(one, random=one.id in sampled) for one in state.labelled))

    def with_(self, **changes: Any) -> Self:
        """Return a copy with changed attributes."""
        return replace(self, **changes)


def id_of(place: int) -> str:
    """Return the id of the text at a place, counted from 0."""
    return f"t{place + 1}"


def place_of(id_: str) -> int:
    """Return the place of the text with an id."""
    return int(id_[1:]) - 1


def read_state(folder: Path) -> State:
    """Read the state of a ladder.

    Raises:
        SourceError: there is none, or it is damaged or of a newer format.
    """
    path = folder / STATE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        newer = record["format"] > _FORMAT
        state = None if newer else State.from_dict(record)
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {explain(error)}; begin with: tamiz ladder TEXTS --labels"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is damaged: {type(error).__name__}; restore it from a backup") from error
    if state is None:
        raise SourceError(f"{path} has format {record['format']}; this Tamiz reads up to {_FORMAT}; update it")
    return state


def write_state(folder: Path, state: State) -> None:
    """Replace the state of a ladder."""
    with _replacing(folder / STATE) as file:
        json.dump(state.to_dict(), file, ensure_ascii=False, indent=1)


def write_texts(folder: Path, texts: Sequence[str]) -> None:
    """Write the texts, one a line as JSON; that of line 7 has the id `t7`."""
    with _replacing(folder / TEXTS) as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)


def read_texts(folder: Path, count: int) -> list[str]:
    """Read what `write_texts` wrote.

    Raises:
        SourceError: the file is missing or damaged, or has another number of texts.
    """
    path = folder / TEXTS
    try:
        with path.open(encoding="utf-8") as file:
            texts = [str(json.loads(line)) for line in file]
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} is missing or damaged; restore it from a backup") from error
    if len(texts) != count:
        raise SourceError(f"{path} has {len(texts)} texts, and the ladder began with {count}; restore it from a backup")
    return texts


def write_labels(folder: Path, state: State, texts: Sequence[str]) -> None:
    """Replace the table of labelled texts, which the project file names as its source."""
    with _replacing(folder / LABELS) as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text", "label", "drawn"))
        for one in state.current().values():
            drawn = "random" if one.random else "picked"
            label = ",".join(one.labels) or "[]"  # a cell without anything would mean that nobody has labelled the text
            writer.writerow((one.id, _encodable(texts[place_of(one.id)]), label, drawn))


def write_batch(folder: Path, batch: Batch, texts: Sequence[str]) -> None:
    """Replace the table to fill in; its labels must have been taken in."""
    with _replacing(folder / BATCH) as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text", "label", "hint", "score", "why"))
        for row in batch.rows:
            text = _encodable(texts[place_of(row.id)])
            writer.writerow((row.id, text, "", row.hint, f"{row.score:.3f}", row.why))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """Yield a file to write that takes the path's name when it is complete and on the disk.

    Raises:
        SourceError: the disk refused.
    """
    try:
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise SourceError(f"{path} could not be written: {explain(error)}") from error


def replace_model(folder: Path, model: Model) -> None:
    """Write a package and let `model` stand for it: one atomic change of a link, so that there always is one.

    Where the system makes no links, the package itself is moved there, in two steps that `restore_model` makes good.

    Raises:
        PackageError: the disk refused.
    """
    target = folder / MODEL
    slot = folder / _SLOTS[_slot(target) == _SLOTS[0]]
    _remove(slot)
    model.save(slot)
    _point(target, slot)
    _tidy(folder)


def restore_model(folder: Path) -> None:
    """Make good a replacement that was cut off, and take away what one left behind."""
    former, target = folder / _FORMER, folder / MODEL
    if former.exists() and not target.exists():
        target.unlink(missing_ok=True)  # a link to nothing
        former.rename(target)
    _tidy(folder)


def _slot(target: Path) -> str | None:
    """Return the name of the folder that `model` is a link to; None where it is none."""
    return target.readlink().name if target.is_symlink() else None


def _point(target: Path, slot: Path) -> None:
    """Put a link to a package, or else the package, in the place of the former one."""
    link, former = _link(target, slot), target.with_name(_FORMER)
    if target.exists() and not (target.is_symlink() and link.is_symlink()):
        _remove(former)
        target.rename(former)
    link.replace(target)
    flush_folder(target.parent)


def _link(target: Path, slot: Path) -> Path:
    """Make a link to a package beside `model`, and return it; or the package, where there are no links."""
    link = target.with_name(_NEXT)
    _remove(link)
    if sys.platform == "win32":  # which replaces no link to a folder
        return slot
    try:
        link.symlink_to(slot.name)
    except OSError:  # not every file system has links
        return slot
    return link


def _tidy(folder: Path) -> None:
    """Remove what `model` does not stand for."""
    for name in {_NEXT, _FORMER, *_SLOTS} - {_slot(folder / MODEL)}:
        _remove(folder / name)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the ladder's lock.

    Raises:
        BusyError: another process has it.
        DataError: the lock cannot be made.
    """

    def refuse() -> None:
        raise BusyError(f"{folder}: another `tamiz ladder` works on it; wait until it ends and try again")

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(holding(folder / ".lock", poll_s=0.1, waiting=refuse))
        except OSError as error:
            raise DataError(f"{folder}: the lock cannot be made: {explain(error)}") from error
        yield
