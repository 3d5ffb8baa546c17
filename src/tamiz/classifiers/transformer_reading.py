"""From texts to rows of token ids, and from logits of rows to probabilities of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers import base
from tamiz.encoders.lengths import pieces, pool, spread
from tamiz.types import FloatArray, IntArray, Task

__all__ = ["MODEL", "TOLERANCE", "Ids", "Predict", "Reader", "Rows"]

MODEL = "model.onnx"
TOLERANCE = 1e-5
"""A text's probabilities alone and among others may differ by this much."""

Ids = NDArray[np.int32]
"""Token ids of one piece of text."""
Predict = Callable[[Sequence[Ids]], FloatArray]
"""Gives logits `(n, k)` for rows of token ids."""


@dataclass(frozen=True)
class Rows:
    """What the network reads of texts.

    Attributes:
        ids: token ids of each piece, special ones included.
        owners: which text each piece belongs to, ascending.
        n: how many texts.
    """

    ids: list[Ids]
    owners: IntArray
    n: int


@dataclass(frozen=True)
class Reader:
    """How texts are read.

    Attributes:
        tokenizer: of the encoder.
        prefix: stands before every text.
        max_length: most tokens of a piece, special ones included.
        policy: what is read of a longer text.
        overlap: share of a window that the next one repeats.
        most: most windows of a text.
        pooling: how the probabilities of pieces become one.
    """

    tokenizer: Any
    prefix: str
    max_length: int
    policy: str
    overlap: float
    most: int | None
    pooling: str

    def by(self, policy: str) -> Reader:
        """Return the same reader with another policy for long texts."""
        return replace(self, policy=policy)

    def tokens(self, texts: Sequence[str]) -> list[Ids]:
        """Return all token ids of each text, without special ones."""
        return [np.asarray(ids, np.int32) for ids in self._read(texts)]

    def rows(self, texts: Sequence[str]) -> Rows:
        """Return what is read of texts."""
        ids: list[Ids] = []
        counts: list[int] = []
        for tokens in self._read(texts):
            found = self._cut(tokens)
            counts.append(len(found))
            ids += found
        return Rows(ids, spread(counts), len(texts))

    def cut(self, tokens: Sequence[Ids]) -> Rows:
        """Return what is read of tokenised texts."""
        found = [self._cut(ids.tolist()) for ids in tokens]
        return Rows([ids for row in found for ids in row], spread([len(row) for row in found]), len(tokens))

    def probabilities(self, logits: FloatArray, rows: Rows, task: Task) -> FloatArray:
        """Return probabilities `(n, k)` of texts from logits of their pieces."""
        each = base.sigmoid(logits) if task is Task.MULTI_LABEL else base.softmax(logits)
        pooled = pool(each, rows.owners, rows.n, self.pooling)
        if task is Task.MULTI_LABEL:
            return pooled.clip(0.0, 1.0)  # a mean of ones may round to more
        return np.asarray(pooled / pooled.sum(axis=1, keepdims=True))

    def answers(self, model: Any, rows: Rows, task: Task) -> FloatArray:
        """Return probabilities `(n, k)` of texts by an exported model."""
        return self.probabilities(np.asarray(model.run(rows.ids), np.float64), rows, task)

    @property
    def room(self) -> int:
        """Most tokens of a piece without the special ones."""
        return self.max_length - int(self.tokenizer.specials)

    def _cut(self, tokens: Sequence[int]) -> list[Ids]:
        overlap = int(self.overlap * self.room)
        found = pieces(tokens, self.room, self.policy, overlap=overlap, most=self.most)
        return [np.asarray(self.tokenizer.wrap(piece), np.int32) for piece in found]

    def _read(self, texts: Sequence[str]) -> Iterator[list[int]]:
        yield from self.tokenizer.read(self.prefix + text for text in texts)
