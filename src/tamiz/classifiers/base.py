"""What the families share: checked targets, typed parameters, a small JSON file beside the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamiz.errors import ConfigError, LabelError, PackageError
from tamiz.types import BoolArray, Classifier, FloatArray, Progress, Remembers, Task

__all__ = [
    "Counter",
    "Family",
    "Params",
    "check_labels",
    "column_of",
    "indicators",
    "prefixed",
    "probabilities",
    "read_arrays",
    "remembering",
    "sigmoid",
    "softmax",
]


_SETTINGS = "classifier.json"
_FREE_BYTES = 64 * 2**20  # below this size no ratio of compression is suspicious
_LOWEST = -700.0  # a score, whose exponential is still a number
_MOST_RATIO = 300  # weights hardly shrink; an array of zeros shrinks to a thousandth


class Params(BaseModel):
    """Parameters of a family; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Counter:
    """Add up the texts that have been counted and pass the sum on.

    Args:
        progress: told the sum; nothing where `None`.
        message: name of the step.
        total: the sum at the end.
    """

    def __init__(self, progress: Progress | None, message: str, total: int) -> None:
        self._progress, self._message, self._total, self._done = progress, message, total, 0

    def __call__(self, texts: int) -> None:
        """Count `texts` more."""
        self._done += texts
        if self._progress:
            self._progress(self._message, self._done, self._total)


def prefixed(progress: Progress | None, who: str) -> Progress | None:
    """Return a progress that says whose it is."""
    if progress is None:
        return None
    return lambda message, done=0, total=0: progress(f"{who}: {message}", done, total)


P = TypeVar("P", bound=Params)


class Family(Generic[P]):
    """What a classifier is given: labels, task, typed parameters and a seed.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: of whatever a fit draws.
        params: fields of the subclass's `Params`.

    Raises:
        ConfigError: the labels do not fit the task.
    """

    Params: type[P]
    tolerance: float = 1e-9
    """How far a text's probabilities may move with the texts beside it; 1e-6 where float32 sums depend on the batch."""

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        self.labels = tuple(labels)
        self.task = task
        check_labels(self.labels, task)
        self.params = self.Params(**params)
        self._seed = seed

    def anew(self, seed: int) -> Self:
        """Return a classifier with the same labels, task and parameters that has learnt nothing yet."""
        return type(self)(self.labels, self.task, seed=seed, **self.params.model_dump())

    def write_settings(self, folder: Path) -> None:
        """Write labels, task and parameters beside the weights."""
        settings = {"labels": list(self.labels), "task": str(self.task), "params": self.params.model_dump()}
        (folder / _SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def from_settings(cls, folder: Path) -> Self:
        """Return a classifier of what `write_settings` wrote that has learnt nothing yet.

        Raises:
            PackageError: the file is missing or damaged.
        """
        try:
            settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            labels, task, params = tuple(settings["labels"]), Task(settings["task"]), dict(settings["params"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PackageError(f"{_SETTINGS} in the package is missing or damaged: {error}") from error
        return cls(labels, task, **params)


def check_labels(labels: tuple[str, ...], task: Task) -> None:
    """Refuse labels that do not fit the task.

    Raises:
        ConfigError: fewer than two labels, one stands twice, or a binary task has not two.
    """
    if len(labels) < 2 or (task is Task.BINARY and len(labels) != 2):
        raise ConfigError(f"a {task} classifier cannot have {len(labels)} labels")
    if len(set(labels)) != len(labels):
        raise ConfigError("a label stands twice in the list of labels")


def indicators(targets: NDArray[Any], k: int, task: Task, n: int) -> BoolArray:
    """Return targets as bool `(n, k)`: which labels each text has.

    Raises:
        LabelError: targets have the wrong shape, type or values, or there is no example.
    """
    expected = (n, k) if task is Task.MULTI_LABEL else (n,)
    if targets.shape != expected:
        raise LabelError(f"targets have shape {targets.shape}; {n} texts of a {task} task need {expected}")
    if n == 0:
        raise LabelError("there is no example to learn from")
    if task is Task.MULTI_LABEL:
        return targets.astype(np.bool_)
    if targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= k:
        raise LabelError(f"targets must be whole numbers from 0 to {k - 1}")
    return np.asarray(targets[:, None] == np.arange(k))


def sigmoid(scores: FloatArray) -> FloatArray:
    """Return `1 / (1 + exp(-score))` without overflow; never 0."""
    values = np.exp(-np.maximum(scores, _LOWEST, dtype=np.float64))
    values += 1.0
    return np.asarray(np.reciprocal(values, out=values))


def softmax(scores: FloatArray) -> FloatArray:
    """Return rows that sum to one."""
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def probabilities(scores: FloatArray, task: Task) -> FloatArray:
    """Return probabilities `(n, k)` from scores `(n, columns)`; binary tasks have one column, for the second label."""
    if task is Task.MULTI_CLASS:
        return softmax(scores)
    p = sigmoid(scores)
    return np.hstack([1.0 - p, p]) if task is Task.BINARY else p


def remembering(classifier: Classifier) -> Classifier:
    """Return the classifier for texts that are learnt from: what an encoder says of them is kept, if it has one."""
    return classifier.remembering() if isinstance(classifier, Remembers) else classifier


def column_of(label: int, task: Task) -> tuple[int, int]:
    """Return which column of the scores speaks of a label, and with which sign."""
    return (0, 2 * label - 1) if task is Task.BINARY else (label, 1)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an npz file, refusing pickled objects and arrays far larger than the file.

    Raises:
        PackageError: the file is missing or damaged, or unpacks to too much.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            unpacked_bytes = sum(member.file_size for member in file.zip.infolist())
            if unpacked_bytes > max(_FREE_BYTES, _MOST_RATIO * path.stat().st_size):
                raise ValueError(f"it would unpack to {unpacked_bytes} bytes")
            return {name: file[name] for name in file.files}
    except Exception as error:  # numpy raises what zipfile, zlib and its own header parser raise
        raise PackageError(f"{path.name} in the package is missing or damaged: {error}") from error
