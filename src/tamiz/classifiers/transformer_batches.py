"""Batches of texts of like length, so that short texts do not pay for the padding of long ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.types import IntArray

__all__ = ["budget_batches", "padded", "shuffled_batches"]

_BUCKET = 50  # batches that are shuffled together before they are sorted by length


def shuffled_batches(lengths: IntArray, size: int, *, seed: int, epoch: int) -> list[IntArray]:
    """Return the rows of each batch of an epoch, all of the same size but for one.

    The order depends on seed and epoch alone, so that a training can go on in the middle of an epoch.

    Args:
        lengths: tokens of each row, `(n,)`.
        size: rows in a batch.
        seed: of the training.
        epoch: from 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    batches: list[IntArray] = []
    for start in range(0, len(order), size * _BUCKET):
        bucket = order[start : start + size * _BUCKET]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        batches += [bucket[place : place + size] for place in range(0, len(bucket), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def budget_batches(lengths: IntArray, tokens: int) -> Iterator[IntArray]:
    """Yield rows in batches of at most `tokens` tokens with their padding, short rows first, each row once."""
    order = np.argsort(lengths, kind="stable")
    batch: list[int] = []
    for row in order.tolist():
        if batch and (len(batch) + 1) * max(1, int(lengths[row])) > tokens:
            yield np.array(batch)
            batch = []
        batch.append(row)
    if batch:
        yield np.array(batch)


def padded(rows: Sequence[Sequence[int] | NDArray[Any]], pad: int) -> tuple[Any, Any]:
    """Return ids and mask, int64 `(n, length)`, of rows filled up with `pad`."""
    longest = max(1, max(len(row) for row in rows))
    ids, mask = np.full((len(rows), longest), pad, np.int64), np.zeros((len(rows), longest), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask
