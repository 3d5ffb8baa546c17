"""The contracts between floors: what a classifier, a registry and a source must do, and what passes between them.

Implementations never import each other; the entry points put them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHECKED_ROWS",
    "EARLIER_SECONDS",
    "GOES_ON",
    "BoolArray",
    "Borrows",
    "Classifier",
    "Contribution",
    "Explanation",
    "Explains",
    "FloatArray",
    "IntArray",
    "Point",
    "Progress",
    "Promptable",
    "Refits",
    "Registry",
    "Remembers",
    "Resumes",
    "RunRecord",
    "RunState",
    "Source",
    "SourceFile",
    "Task",
    "Tells",
    "TopFeatures",
    "Traces",
    "Validation",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
RunState = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
EARLIER_SECONDS = "earlier_seconds"
"""Among `figures` of a classifier: seconds of its fit that earlier processes spent before they were cut off."""
GOES_ON = "goes on from"
"""How a report of progress begins that says where an earlier run was cut off: people are always shown it."""
CHECKED_ROWS = 20_000
"""Most rows that `tamiz check` looks at for label errors, if nothing else is asked for."""


class Task(StrEnum):
    """What kind of answer a classifier gives."""

    BINARY = "binary"
    MULTI_CLASS = "multi-class"
    MULTI_LABEL = "multi-label"


class Validation(NamedTuple):
    """Held-out examples for early stopping and for choices made inside `fit`."""

    texts: Sequence[str]
    targets: NDArray[Any]


class Point(NamedTuple):
    """One value of a figure that changes during a fit.

    Attributes:
        step: when: changes of the weights so far.
        name: what, such as `train_loss`.
        value: how much.
    """

    step: int
    name: str
    value: float


class Progress(Protocol):
    """Told how far a long step has come."""

    def __call__(self, message: str, done: int = 0, total: int = 0) -> None:
        """Report `done` of `total` units of the step called `message` (0 of 0: unknown)."""


class Classifier(Protocol):
    """A learner from texts to label probabilities.

    `labels` and `task` are given at construction. Binary has two labels; rows of probabilities sum to one unless the
    task is multi-label. Texts are always a sequence, never one string, and are not mutated.
    """

    labels: tuple[str, ...]
    task: Task

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from `n` texts.

        Args:
            texts: the examples, already cleaned.
            targets: int64 `(n,)` indices into `labels`; for multi-label tasks bool `(n, k)`.
            validation: held-out examples in the same form; may steer the fit, never enters it.
            progress: told how far the fit has come.
        """

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)` in the order of `labels`; each text's row is independent of the others."""

    def save(self, folder: Path) -> None:
        """Write the fitted state into the existing empty `folder`, without pickle."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one stretch of the text adds to the score of a label.

    Attributes:
        start: first character, in the text given to `explain`.
        end: one past the last character.
        value: signed addition to the score (log-odds).
    """

    start: int
    end: int
    value: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a label got its score: `score = base + sum of contributions`, exactly.

    Attributes:
        label: the explained label.
        base: the score of a text without known words; where words are left out in turn, what no single one explains.
        score: log-odds (binary, multi-label, and all tasks where words are left out) or unnormalised log-probability
            (multi-class), before calibration.
        contributions: one per stretch of text with any effect, in text order.
    """

    label: str
    base: float
    score: float
    contributions: tuple[Contribution, ...]


@runtime_checkable
class Explains(Protocol):
    """A classifier that can say exactly which words made its score; of the others words are left out in turn."""

    def explain(self, text: str, label: int) -> Explanation:
        """Explain the score of `labels[label]`; spans refer to `text`."""


@runtime_checkable
class Promptable(Protocol):
    """A classifier that answers for labels it was not trained on."""

    @property
    def passes(self) -> int:
        """How often its network reads a text for an answer."""

    def with_labels(
        self, labels: Sequence[str], *, template: str | Sequence[str] | None = None, multi_label: bool = False
    ) -> Classifier:
        """Return a classifier for other labels; cheap, nothing is loaded again, and this one stays as it is.

        Args:
            labels: one or more, all different.
            template: sentence in which `{}` stands for the label, or several, which are averaged; by default the
                classifier's own. It is filled in literally.
            multi_label: whether each label is answered by itself; so is one label alone.

        Raises:
            RequestError: there is no label, one stands twice or is blank, or a template has no `{}`.
        """


@runtime_checkable
class Remembers(Protocol):
    """A classifier whose encoder need not read a text twice."""

    def remembering(self) -> Classifier:
        """Return a classifier that keeps what the encoder says of texts; for texts to learn from, not for serving."""


@runtime_checkable
class Refits(Protocol):
    """A classifier that settles something on validation (when to stop, weights) which a fit on all examples keeps."""

    def refit(
        self, texts: Sequence[str], targets: NDArray[Any], *, seed: int, progress: Progress | None = None
    ) -> Classifier:
        """Return a new classifier fitted on these texts with what this one settled."""


@runtime_checkable
class Borrows(Protocol):
    """A classifier made of others, some of which may be fitted already."""

    def borrow(self, members: Mapping[int, Classifier]) -> None:
        """Take these members, by place, in the next `fit` instead of fitting them."""


@runtime_checkable
class Resumes(Protocol):
    """A classifier whose fit, cut off, goes on from what it kept."""

    def keep_in(self, folder: Path | None) -> None:
        """Keep the state of the next `fit` or `refit` in `folder`, and go on from what is there; `None` keeps none."""


@runtime_checkable
class Traces(Protocol):
    """A classifier that records figures while it is fitted."""

    def history(self) -> Sequence[Point]:
        """Return figures by step, those of one name in order; during a fit those so far, none for a loaded classifier.

        What comes later never changes what was given before.
        """

    def figures(self) -> Mapping[str, float]:
        """Return what the history comes to, such as `best_epoch`."""


@runtime_checkable
class Tells(Protocol):
    """A classifier that settled something while it was fitted which the record of the model should say."""

    def facts(self) -> Mapping[str, Any]:
        """Return JSON-able facts by name."""


@runtime_checkable
class TopFeatures(Protocol):
    """A classifier that can name the words that speak most for a label."""

    def top_features(self, label: int, n: int) -> list[tuple[str, float]]:
        """Return at most `n` words or n-grams that raise the score of `labels[label]`, strongest first.

        The strength is what one occurrence adds to the score, before the text's length is taken into account.
        """


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: local path, that from the project folder for a file in it, or `s3://` address.
        sha256: hash of its bytes, hexadecimal.
        size_bytes: its length.
        reading: how its bytes are to be read where that was stated, such as an encoding.
    """

    path: str
    sha256: str
    size_bytes: int
    reading: str = ""


class Source(Protocol):
    """Where texts come from: files of one format."""

    def files(self) -> Sequence[SourceFile]:
        """List the files in a stable order."""

    def batches(self, file: SourceFile) -> Iterator[pa.RecordBatch]:
        """Read one file as record batches, rows in file order.

        Raises:
            SourceError: the file is damaged or not of the stated format.
        """


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished training of a candidate, as the registry keeps it.

    Attributes:
        run_id: the registry's own identifier.
        key: what the run was made from; two runs with one key are the same run.
        candidate: name of the candidate.
        family: name of its classifier family.
        metrics: `val_*`, cost figures and, for a registered version, `test_*`.
        params: flattened parameters.
        version: version in the model store, if registered.
    """

    run_id: str
    key: str
    candidate: str
    family: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    version: str | None = None


class Registry(Protocol):
    """The record of experiments and versions that people browse."""

    def record(
        self,
        *,
        key: str,
        candidate: str,
        family: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Path | None = None,
        history: Sequence[Point] = (),
    ) -> str:
        """Record one finished candidate and return its run id.

        A second call with the same `key` records nothing and returns the first one's id; a run that was begun by
        `follow` is finished. The files of the folder `artifacts` are stored with the run; those values of `history`
        that it does not have yet by their steps, before the final `metrics`.
        """

    def follow(self, *, key: str, candidate: str, family: str, points: Sequence[Point]) -> str:
        """Add figures to the run of a candidate that is still in training, and return the run's id.

        The first call begins the run, which `runs` does not return before `record` has finished it; one of an earlier
        process that was killed is gone on with. A finished run stays as it is.

        Args:
            key: what the run is made from, as `record` is given it.
            candidate: name of the candidate.
            family: name of its classifier family.
            points: all figures so far, those of one name by ascending steps; none is added twice.
        """

    def register(self, run_id: str, *, version: str, metrics: Mapping[str, float], artifacts: Path) -> None:
        """Make a recorded run a version of the project's model.

        Its `metrics` (test figures) and the files in `artifacts` join the run's own. The folder `package`
        among them is the model's package, needed the first time. Repeating it changes nothing.
        """

    def alias(self, name: str, version: str | None) -> None:
        """Point an alias such as `champion` at a version; `None` removes it."""

    def runs(self) -> Sequence[RunRecord]:
        """Return the recorded runs, newest first."""

    def nested(
        self,
        *,
        key: str,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        parent: str | None = None,
        state: RunState = "FINISHED",
        times: tuple[float, float] | None = None,
        artifacts: Path | None = None,
    ) -> str:
        """Record a run of a search, apart from the candidates, and return its id.

        A second call with the same `key` adds metrics and artifacts to the first one's run.

        Args:
            key: what the run is of.
            name: as people see it.
            params: flattened parameters.
            metrics: figures.
            tags: further facts.
            parent: id of the search's own run, inside which it stands; `None` for that run itself.
            state: how it ended, or `RUNNING`.
            times: when it began and ended, in seconds since 1970; by default now.
            artifacts: folder of files to store with the run.
        """
