"""Long texts: which pieces of one are read, and how the answers for the pieces become one answer.

Pure functions over lists of token ids without special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tamiz.errors import ConfigError, one_of
from tamiz.types import FloatArray, IntArray

__all__ = ["HEAD_SHARE", "POLICIES", "POOLINGS", "Policy", "Pooling", "pieces", "pool", "spread"]

Policy = Literal["head", "tail", "head_tail", "windows"]
Pooling = Literal["mean", "max"]

POLICIES: dict[str, str] = {
    "head": "The beginning.",
    "tail": "The end.",
    "head_tail": "The beginning (a quarter) and the end, joined.",
    "windows": "All of it, in overlapping windows whose answers are pooled.",
}
"""What each policy reads of a text that is too long, the cheapest first."""

POOLINGS: tuple[str, ...] = ("mean", "max")

HEAD_SHARE = 0.25
"""How much of the room the beginning gets in `head_tail`: the share of 128 in 510 tokens.

Source: Sun, Qiu, Xu & Huang (2019), "How to fine-tune BERT for text classification?", section 5.3.1.
"""


def pieces(
    ids: Sequence[int], room: int, policy: str = "head", *, overlap: int = 0, most: int | None = None
) -> list[list[int]]:
    """Cut the ids of one text into one or more pieces of at most `room` ids.

    Args:
        ids: token ids of the text, without special tokens.
        room: most ids in a piece.
        policy: one of `POLICIES`; a text that fits is one piece under all of them.
        overlap: how many ids neighbouring windows share.
        most: most windows of a text, spread evenly over it; `None` for no limit.

    Raises:
        ConfigError: `room` is not positive, `overlap` not smaller than it, or the policy is unknown.

    Example:
        >>> pieces([1, 2, 3, 4, 5], 2, "windows")
        [[1, 2], [3, 4], [4, 5]]
    """
    if room < 1 or not 0 <= overlap < room:
        raise ConfigError(f"pieces of {room} tokens with an overlap of {overlap} cannot be cut; give more length")
    if policy not in POLICIES:
        raise ConfigError(f"length policy: unknown {policy!r}; {one_of(policy, POLICIES)}")
    ids = list(ids)
    if len(ids) <= room:
        return [ids]
    if policy == "head":
        return [ids[:room]]
    if policy == "tail":
        return [ids[-room:]]
    if policy == "head_tail":
        head = int(room * HEAD_SHARE)
        return [ids[:head] + ids[head - room :]]
    return [ids[start : start + room] for start in _starts(len(ids), room, overlap, most)]


def _starts(n: int, room: int, overlap: int, most: int | None) -> list[int]:
    """Return where windows begin; the last one ends with the text."""
    last, step = n - room, room - overlap
    count = 1 + -(-last // step)
    if most is not None and count > most:
        return [round(place * last / max(1, most - 1)) for place in range(most)]
    return [min(place * step, last) for place in range(count)]


def spread(counts: Sequence[int]) -> IntArray:
    """Return which text each piece belongs to, int64 `(pieces,)`, from how many pieces each text has."""
    return np.repeat(np.arange(len(counts)), np.asarray(counts, np.int64))


def pool(scores: FloatArray, owners: IntArray, n: int, how: str = "mean") -> FloatArray:
    """Pool the answers for pieces into answers `(n, k)` for texts.

    Args:
        scores: probabilities `(pieces, k)`.
        owners: which text each piece belongs to, ascending; every text has at least one.
        n: how many texts.
        how: `mean`, or `max`, the largest of each label.

    Raises:
        ConfigError: `how` is unknown.
    """
    if how not in POOLINGS:
        raise ConfigError(f"pooling: unknown {how!r}; {one_of(how, POOLINGS)}")
    if n == 0:
        return np.empty((0, scores.shape[1]))
    first = np.searchsorted(owners, np.arange(n))
    if how == "max":
        return np.asarray(np.maximum.reduceat(scores, first, axis=0))
    counts = np.bincount(owners, minlength=n)
    return np.asarray(np.add.reduceat(scores, first, axis=0) / counts[:, None])
