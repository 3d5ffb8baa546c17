"""The baseline that every other family must beat: label frequencies, whatever the text says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers import base
from tamiz.types import Explanation, FloatArray, Progress, Task, Validation

__all__ = ["PriorClassifier"]


class PriorClassifier(base.Family[base.Params]):
    """Answer with the frequencies of the labels in training, one example a label added."""

    class Params(base.Params):
        """The baseline has no parameters."""

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        super().__init__(labels, task, seed=seed, **params)
        self.prior_: FloatArray = np.full(len(self.labels), np.nan)

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Count the labels."""
        has = base.indicators(targets, len(self.labels), self.task, len(texts))
        counts = has.sum(axis=0) + 1.0
        self.prior_ = counts / (len(texts) + 2.0) if self.task is Task.MULTI_LABEL else counts / counts.sum()
        return self

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return the same row for every text."""
        return np.tile(self.prior_, (len(texts), 1))

    def explain(self, text: str, label: int) -> Explanation:
        """Say that no word counts."""
        p = self.prior_[label]
        score = float(np.log(p) if self.task is Task.MULTI_CLASS else np.log(p / (1 - p)))
        return Explanation(self.labels[label], base=score, score=score, contributions=())

    def save(self, folder: Path) -> None:
        """Write the frequencies."""
        self.write_settings(folder)
        np.savez(folder / "prior.npz", prior=self.prior_)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the frequencies."""
        model = cls.from_settings(folder)
        model.prior_ = base.read_arrays(folder / "prior.npz")["prior"]
        return model
