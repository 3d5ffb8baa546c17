"""The labelled examples that a report is about, with a model's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.types import BoolArray, FloatArray, Task

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample:
    """Examples of one side of the split, `n` of them over `k` labels, and what a model answers.

    Attributes:
        texts: the raw texts.
        row_ids: identifier of each.
        targets: int64 `(n,)` indices into `labels`; multi-label: bool `(n, k)`.
        raw: probabilities before calibration, `(n, k)`.
        probabilities: calibrated probabilities, `(n, k)`.
        decided: int64 `(n,)`, -1 for an abstention; multi-label: bool `(n, k)`.
        task: what kind of answer is given.
        labels: the labels in order.
        positive: index of the positive label of a binary task.
        columns: further columns, by name.
    """

    texts: Sequence[str]
    row_ids: Sequence[str]
    targets: NDArray[Any]
    raw: FloatArray
    probabilities: FloatArray
    decided: NDArray[Any]
    task: Task
    labels: tuple[str, ...]
    positive: int = 1
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def outcomes(self) -> BoolArray:
        """Whether each example has each label: bool `(n, k)`."""
        one_hot: BoolArray = self.targets[:, None] == np.arange(len(self.labels))
        return self.targets if self.task is Task.MULTI_LABEL else one_hot

    @property
    def right(self) -> BoolArray:
        """Whether each answer is entirely right: bool `(n,)`; an abstention is not."""
        same: BoolArray = self.targets == self.decided
        return np.asarray(same.all(axis=1)) if self.task is Task.MULTI_LABEL else same
