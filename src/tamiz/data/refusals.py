"""Why a row may not enter silver, judged over all rows at once from a few numbers each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tamiz.config import Project
from tamiz.data.corrections import CORRECTED, DROPPED
from tamiz.data.rows import Labels
from tamiz.errors import DataError, LabelError, counted, one_of
from tamiz.types import Task

__all__ = ["Judged", "KeyTable", "Reason", "check_labels", "different", "folded", "judge", "text_key"]


class Reason:
    """Reasons for a refusal; their texts stand in the quarantine table. `KEPT` is no refusal."""

    KEPT = ""
    MISSING = "text is missing"
    EMPTY = "text is empty after cleaning"
    UNLISTED = "label is not in the project's list"
    CLASH = "text also stands in the test set"
    CONFLICT = "same text with different labels"
    DUPLICATE = "duplicate of another row"
    RARE = "label has too few examples"
    UNTRAINED = "label has no training example"
    DROPPED = "dropped by a correction"
    REPLACED = "replaced by the row of a newer file"

    ALL = (KEPT, MISSING, EMPTY, UNLISTED, CLASH, CONFLICT, DUPLICATE, RARE, UNTRAINED, DROPPED, REPLACED)
    REPEATS = (CLASH, DUPLICATE, REPLACED)
    """Rows that are there already: nothing is wrong with them, so they do not count against `max_refused`."""


def folded(text: str) -> str:
    """Return `text` without differences of case and space.

    Example:
        >>> folded("  Not GOOD ")
        'not good'
    """
    return " ".join(text.casefold().split())


def different(texts: Iterable[str], *, known: Iterable[str] = ()) -> list[str]:
    """Return texts that are not blank, the first of those that are equal but for case and space.

    Args:
        texts: the texts.
        known: others, whose equals are left out too.

    Example:
        >>> different(["Good film", " ", "good  film", "bad"], known=["BAD"])
        ['Good film']
    """
    seen = {"", *map(folded, known)}
    found: dict[str, str] = {}
    for text in texts:
        if (key := folded(text)) not in seen:
            found.setdefault(key, text)
    return list(found.values())


def text_key(text: str) -> str:
    """Return the key under which a cleaned text is known: 32 hexadecimal digits, the same for equal folded texts."""
    return blake2b(folded(text).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on all rows.

    Attributes:
        reasons: index into `Reason.ALL` for each row, int8 `(n,)`.
        current: whether each row is of the newest content of its file, bool `(n,)`.
        counts: training examples by label, after the refusals.
        notices: what the user should know about labels and ids.
    """

    reasons: NDArray[np.int8]
    current: NDArray[np.bool_]
    counts: Counter[str]
    notices: tuple[str, ...]


class KeyTable:
    """What the verdict needs of each row, about 50 bytes; rows are added in the order of the scan."""

    def __init__(self) -> None:
        self._label_codes: dict[tuple[str, ...], int] = {}
        self._sources: dict[str, int] = {}
        self._parts: list[dict[str, NDArray[Any]]] = []

    def add(
        self,
        *,
        part: str,
        texts: Sequence[str],
        labels: Sequence[Labels],
        reasons: Sequence[str],
        origin: tuple[Sequence[Any], Sequence[str], Sequence[int]],
        ids: Sequence[str] | None,
        corrected: Sequence[int],
    ) -> None:
        """Add a batch: text keys, labels, reasons known so far, (time, source, row), given ids, marks of corrections.

        Args:
            part: `train`, `test` or `unlabeled`.
            texts: text keys.
            labels: labels of each row, after correction.
            reasons: reasons known so far.
            origin: times of ingest, sources and row numbers.
            ids: ids, where repeated ones are to be told.
            corrected: 0, `CORRECTED` or `DROPPED` (see `corrections.py`).
        """
        n = len(texts)
        halves = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").reshape(n, 2).astype(np.uint64)
        ingested, sources, rows = origin
        self._parts.append(
            {
                "part": np.full(n, _PARTS.index(part), np.int8),
                "high": halves[:, 0],
                "low": halves[:, 1],
                "label": np.fromiter((self._code(label) for label in labels), np.int32, n),
                "reason": np.fromiter((Reason.ALL.index(reason) for reason in reasons), np.int8, n),
                "ingested": np.array([int(when.timestamp() * 1e6) for when in ingested], np.int64),
                "source": np.fromiter((self._sources.setdefault(s, len(self._sources)) for s in sources), np.int32, n),
                "row": np.array(rows, np.int64),
                "corrected": np.array(corrected, np.int8),
                "id": np.fromiter((_id_hash(i) for i in ids), np.uint64, n) if ids else np.zeros(n, np.uint64),
            }
        )

    def _code(self, labels: Labels) -> int:
        if labels is None:
            return -1
        return self._label_codes.setdefault(tuple(sorted(labels)), len(self._label_codes))

    @property
    def label_sets(self) -> list[tuple[str, ...]]:
        """Labels by code."""
        return list(self._label_codes)

    def frame(self) -> pl.DataFrame:
        """Return one row a row, with its position `at` and its place `order` by ingest time, source and row number.

        Raises:
            DataError: there is no row.
        """
        if not self._parts:
            raise DataError("the lake holds no row of the source; see whether its files have any")
        columns = {name: np.concatenate([p.pop(name) for p in self._parts]) for name in list(self._parts[0])}
        # Source codes follow the scan, which follows no promise of Delta's; names do.
        by_name = np.argsort(np.argsort(np.array(list(self._sources), dtype=np.str_)))
        order = np.lexsort((columns.pop("row"), by_name[columns["source"]], columns["ingested"]))
        columns["order"] = np.empty(len(order), np.int64)
        columns["order"][order] = np.arange(len(order))
        return pl.DataFrame(columns).with_row_index("at")


_PARTS = ("train", "test", "unlabeled")
_TEXT = ["high", "low"]
_LEAST_LABELS = 2


def _id_hash(id_: str) -> int:
    return int.from_bytes(blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def judge(keys: KeyTable, project: Project, *, ids_given: bool) -> Judged:
    """Decide which rows are refused.

    Where ids are given, a row gives way to the one of its id in a newer content of its file. Other rows of the test set
    are refused only where they could not be scored. Among the others, in this order: texts that stand in the test set;
    repeats of a text that a person has corrected or dropped; texts with different labels, all of them; repeats of a
    text, but for the first labelled row in order of ingest; and rows with a label that then has too few examples.
    """
    frame = keys.frame()
    reasons = frame["reason"].to_numpy().copy()
    current = frame.select(pl.col("ingested") == pl.col("ingested").max().over("part", "source")).to_series().to_numpy()
    if ids_given:
        replaced = frame.filter(pl.col("ingested") < pl.col("ingested").max().over("part", "source", "id"))
        _refuse(reasons, replaced, Reason.REPLACED)
        frame = frame.with_columns(reason=pl.Series(reasons))
    _refuse_repeats(frame, reasons)
    rare = _refuse_rare(frame, reasons, keys.label_sets, project.labels.min_examples)
    counts = _count(frame, reasons, keys.label_sets)
    _refuse_untrained(frame, reasons, keys.label_sets, counts, rare, project.labels.names)
    notices = [*_label_notices(counts, project), *_rare_notices(rare)]
    if ids_given:
        notices += _id_notices(frame, reasons)
    return Judged(reasons, current, counts, tuple(notices))


def check_labels(counts: Counter[str], project: Project, quarantine: str) -> None:
    """Refuse labels that no classifier can tell apart.

    Raises:
        LabelError: fewer than two labels have examples, or a binary task has more than two.
    """
    shown = ", ".join(f"{label!r} ({n})" for label, n in sorted(counts.items())[:20]) or "none"
    if len(counts) < _LEAST_LABELS:
        raise LabelError(
            f"a classifier needs at least two labels with examples; labels left in column {project.data.label!r}: "
            f"{shown}. Add examples of another label, or see why rows were refused in {quarantine}"
        )
    if project.task is Task.BINARY and len(counts) > _LEAST_LABELS:
        raise LabelError(
            f"task is binary and column {project.data.label!r} has {len(counts)} labels: {shown}. "
            "Use task: multi-class, or list the two labels to keep under labels"
        )


def _refuse(reasons: NDArray[np.int8], rows: pl.DataFrame, reason: str) -> None:
    reasons[rows["at"].to_numpy()] = Reason.ALL.index(reason)


def _refuse_repeats(frame: pl.DataFrame, reasons: NDArray[np.int8]) -> None:
    open_ = frame.filter(pl.col("reason") == 0)
    test = open_.filter(pl.col("part") == _PARTS.index("test"))
    rest = open_.filter(pl.col("part") != _PARTS.index("test"))
    _refuse(reasons, rest.join(test, on=_TEXT, how="semi"), Reason.CLASH)
    rest = _refuse_repeats_of_corrected(frame, reasons, rest.join(test, on=_TEXT, how="anti"))
    labelled = rest.filter(pl.col("label") >= 0)
    torn = labelled.filter(pl.col("label").n_unique().over(_TEXT) > 1)
    _refuse(reasons, torn, Reason.CONFLICT)
    left = rest.join(torn, on="at", how="anti").sort(pl.col("label") < 0, "order")
    _refuse(reasons, left.filter(pl.int_range(pl.len()).over(_TEXT) > 0), Reason.DUPLICATE)


def _refuse_repeats_of_corrected(frame: pl.DataFrame, reasons: NDArray[np.int8], rest: pl.DataFrame) -> pl.DataFrame:
    """Refuse rows whose text a person has judged in another row, and return those that are left.

    Else a corrected row would be at odds with its own uncorrected repeats, and a repeat take a dropped row's place.
    """
    replaced = Reason.ALL.index(Reason.REPLACED)
    judged = frame.filter(
        (pl.col("corrected") > 0) & (pl.col("part") == _PARTS.index("train")) & (pl.col("reason") != replaced)
    )
    for mark, reason in ((CORRECTED, Reason.DUPLICATE), (DROPPED, Reason.DROPPED)):
        repeats = rest.filter(pl.col("corrected") == 0).join(
            judged.filter(pl.col("corrected") == mark), on=_TEXT, how="semi"
        )
        _refuse(reasons, repeats, reason)
        rest = rest.join(repeats, on="at", how="anti")
    return rest


def _labelled_train(frame: pl.DataFrame, reasons: NDArray[np.int8]) -> NDArray[np.bool_]:
    train = frame["part"].to_numpy() == _PARTS.index("train")
    return np.asarray(train & (reasons == 0) & (frame["label"].to_numpy() >= 0))


def _count(frame: pl.DataFrame, reasons: NDArray[np.int8], label_sets: list[tuple[str, ...]]) -> Counter[str]:
    codes = frame["label"].to_numpy()[_labelled_train(frame, reasons)]
    counts: Counter[str] = Counter()
    for labels, n in zip(label_sets, np.bincount(codes, minlength=len(label_sets)).tolist(), strict=True):
        for label in labels:
            counts[label] += n
    return +counts


def _refuse_rare(
    frame: pl.DataFrame, reasons: NDArray[np.int8], label_sets: list[tuple[str, ...]], least: int
) -> dict[str, int]:
    """Refuse rows with rare labels until none is left (a refused row may carry further labels); return those labels."""
    rare: dict[str, int] = {}
    codes = frame["label"].to_numpy()
    while True:
        few = {label: n for label, n in _count(frame, reasons, label_sets).items() if n < least}
        if not few:
            return rare
        rare |= few
        hit = np.array([any(label in few for label in labels) for labels in label_sets], np.bool_)
        reasons[_labelled_train(frame, reasons) & hit[codes]] = Reason.ALL.index(Reason.RARE)


def _refuse_untrained(
    frame: pl.DataFrame,
    reasons: NDArray[np.int8],
    label_sets: list[tuple[str, ...]],
    counts: Counter[str],
    rare: Iterable[str],
    names: Sequence[str] | None,
) -> None:
    """Refuse test rows with a label that no training row has."""
    codes = frame["label"].to_numpy()
    test = (frame["part"].to_numpy() == _PARTS.index("test")) & (reasons == 0) & (codes >= 0)
    rare = set(rare)
    known = set(counts) | (set(names or ()) - rare)
    for reason, is_hit in ((Reason.RARE, rare.__contains__), (Reason.UNTRAINED, lambda label: label not in known)):
        hit = np.array([any(map(is_hit, labels)) for labels in label_sets], np.bool_)
        if hit.any():
            reasons[test & (reasons == 0) & hit[codes]] = Reason.ALL.index(reason)


def _label_notices(counts: Counter[str], project: Project) -> list[str]:
    notices = []
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts):
        spellings.setdefault(folded(label), []).append(label)
    for alike in spellings.values():
        if len(alike) > 1:
            shown = " and ".join(f"{label!r} ({counts[label]})" for label in alike)
            notices.append(
                f"labels {shown} differ only by case or space and are kept apart; unite them if they are one"
            )
    single = [label for label in sorted(counts) if counts[label] == 1]
    if single:
        have = "labels have" if len(single) > 1 else "label has"
        notices.append(
            f"{len(single)} {have} a single example, which stays in training and measures nothing: {_listed(single)}"
        )
    for label in project.labels.names or ():
        if label not in counts:
            notices.append(f"label {label!r} of the project has no example; {one_of(label, counts)}")
    return notices


def _rare_notices(rare: dict[str, int]) -> list[str]:
    if not rare:
        return []
    return [f"labels with fewer examples than labels.min_examples were refused: {_listed(sorted(rare))}"]


def _id_notices(frame: pl.DataFrame, reasons: NDArray[np.int8]) -> list[str]:
    kept = frame.filter(pl.Series(reasons == 0))
    repeated = int(kept.select((pl.len() - pl.struct("part", "id").n_unique()).alias("n")).item())
    rows = counted(repeated, "row", ("has", "have"))
    return [f"{rows} an id that an earlier row has; row_id is not unique"] if repeated else []


def _listed(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
