"""Which groups go to validation and test, so that every label has its share there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.types import IntArray

__all__ = ["SIDES", "TEST", "TRAIN", "VALIDATION", "Groups", "Held", "fill"]

SIDES = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of rows that have no side yet.

    Attributes:
        keys: what identifies each group, the same in every run.
        group: index into `keys` of each (group, label) pair.
        label: index of its label.
        rows: rows of the group that have the label.
    """

    keys: Sequence[str]
    group: IntArray
    label: IntArray
    rows: IntArray


@dataclass(frozen=True, slots=True)
class Held:
    """What already stands on the sides.

    Attributes:
        rows: rows by side and label, int64 `(3, k)`.
        groups: number of groups by label, int64 `(k,)`.
    """

    rows: IntArray
    groups: IntArray


def fill(groups: Groups, held: Held, *, validation: float, test: float, seed: int) -> NDArray[np.int8]:
    """Return the side of every group, int8 `(n,)`.

    Labels take turns, the rarest first; a group belongs to the rarest of its labels. Within a label groups stand in the
    order of a hash of seed and key, and the first fill the shares of test and validation up to the nearest group, less
    what stands there already; the rest is for training. A label with a group for each side has at least one on each,
    unless that would take the last training group of another label.

    Source: Sechidis, Tsoumakas & Vlahavas (2011), "On the stratification of multi-label data", for the order of labels.
    """
    return _Filling(groups, held, {TEST: test, VALIDATION: validation}, seed).run()


class _Filling:
    def __init__(self, groups: Groups, held: Held, shares: dict[int, float], seed: int) -> None:
        n, k = len(groups.keys), held.rows.shape[1]
        self._sides = np.zeros(n, np.int8)
        self._visited = np.zeros(n, np.bool_)
        self._shares = {side: share for side, share in shares.items() if share > 0}
        self._on_side = held.rows.copy()
        self._groups = held.groups + np.bincount(groups.label, minlength=k)
        self._in_training = np.bincount(groups.label, minlength=k) + (held.rows[TRAIN] > 0)
        self._totals = held.rows.sum(axis=0)
        np.add.at(self._totals, groups.label, groups.rows)
        rank = _ranks(groups.keys, seed)
        self._by_label = _Pairs(groups.label, groups.group, groups.rows, k, rank)
        self._by_group = _Pairs(groups.group, groups.label, groups.rows, n)

    def run(self) -> NDArray[np.int8]:
        for label in np.argsort(self._totals, kind="stable").tolist():
            groups, rows = self._by_label.of(label)
            for side in self._shares:
                self._ensure(label, side, groups, rows)
            mine = ~self._visited[groups]
            self._visited[groups] = True
            self._walk(label, groups[mine].tolist(), rows[mine].tolist())
        return self._sides

    def _need(self, label: int, side: int) -> int:
        return int(self._shares[side] * self._totals[label] + 0.5) - int(self._on_side[side, label])

    def _ensure(self, label: int, side: int, groups: IntArray, rows: IntArray) -> None:
        """Give the side a first group of the label, of the size wanted where there is one."""
        if self._on_side[side, label] or self._groups[label] <= len(self._shares):
            return
        free = np.flatnonzero(self._sides[groups] == TRAIN)
        most = max(self._need(label, side), int(rows[free].min(initial=np.iinfo(np.int64).max)))
        for wanted in (free[rows[free] <= most], free[rows[free] > most]):
            for group in map(int, groups[wanted]):
                if self._may_leave(group):
                    self._move(group, side)
                    return

    def _walk(self, label: int, groups: list[int], rows: list[int]) -> None:
        needs = {side: self._need(label, side) for side in self._shares}
        for group, n in zip(groups, rows, strict=True):
            if all(need <= 0 for need in needs.values()):
                return
            # Up to twice the need: taking the group then ends nearer to the share than leaving it.
            side = next((side for side, need in needs.items() if 0 < n <= 2 * need), None)
            if side is not None and self._sides[group] == TRAIN and self._may_leave(group):
                self._move(group, side)
                needs[side] -= n

    def _may_leave(self, group: int) -> bool:
        """Tell whether training keeps a group of each label without this one."""
        labels, _ = self._by_group.of(group)
        return bool((self._in_training[labels] > 1).all())

    def _move(self, group: int, side: int) -> None:
        labels, rows = self._by_group.of(group)
        self._sides[group] = side
        self._on_side[side, labels] += rows
        self._in_training[labels] -= 1


class _Pairs:
    """Pairs found by their first member, in order of rank of the second."""

    def __init__(self, first: IntArray, second: IntArray, rows: IntArray, n: int, rank: IntArray | None = None) -> None:
        order = np.lexsort((second if rank is None else rank[second], first))
        self._second, self._rows = second[order], rows[order]
        self._bounds = np.searchsorted(first[order], np.arange(n + 1))

    def of(self, at: int) -> tuple[NDArray[Any], NDArray[Any]]:
        start, end = self._bounds[at], self._bounds[at + 1]
        return self._second[start:end], self._rows[start:end]


def _ranks(keys: Sequence[str], seed: int) -> IntArray:
    """Return the place of each key in the order of a hash."""
    digests = (sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest() for key in keys)
    hashes = np.fromiter((int.from_bytes(digest[:8], "big") for digest in digests), np.uint64, len(keys))
    ranks = np.empty(len(keys), np.int64)
    ranks[np.argsort(hashes, kind="stable")] = np.arange(len(keys))
    return ranks
