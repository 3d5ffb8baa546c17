"""How many examples a label it takes: frozen sentence embeddings beside n-grams, on two sets of short requests."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score

from benchmarks.datasets import Labelled, read, topic
from benchmarks.record import Board, Figure, Goal, Outcome, say
from tamiz.classifiers import classifier_class
from tamiz.cleaning import Cleaner
from tamiz.config import Project
from tamiz.types import Task

__all__ = ["measure"]

_SETS = ("banking77", "clinc150")
_SHOTS = (4, 8, 16, 32, None)
_DRAWS = 3
_HEADINGS = ["examples a label", "few_shot", "linear", "few_shot fit s", "linear fit s"]


def measure(options: dict[str, Any]) -> Outcome:
    """Draw 4, 8, 16, 32 examples a label three times over, then take all; accuracy on the set's own test rows."""
    figures, boards, details = [], [], {}
    for name in options["parts"] or _SETS:
        curve = _curve(name)
        details[name] = curve
        boards.append(Board(name, _HEADINGS, [_cells(point) for point in curve]))
        for point in curve:
            goal = Goal(">=", 1.0, ratio=True) if point["shots"] else None
            title = f"{name}, {point['shots'] or 'all'} examples a label: accuracy"
            figures.append(Figure(title, "", point["few_shot"], point["linear"], "`linear`, same examples", goal))
    return Outcome(figures, details, boards)


def _curve(name: str) -> list[dict[str, Any]]:
    project = topic(name)
    train, test = (_cleaned(project, places) for places in (project.data.source, project.data.test))
    curve = []
    for shots in _SHOTS:
        draws = [_drawn(train.targets, shots, seed) for seed in range(_DRAWS if shots else 1)]
        point: dict[str, Any] = {"shots": shots}
        for family in ("few_shot", "linear"):
            found = [_scored(family, train, rows, test) for rows in draws]
            point[family] = float(np.mean([score for score, _ in found]))
            point[f"{family}_draws"] = [score for score, _ in found]
            point[f"{family}_fit_s"] = float(np.mean([seconds for _, seconds in found]))
        say(f"{name}, {shots or 'all'}: few_shot {point['few_shot']:.3f}, linear {point['linear']:.3f}")
        curve.append(point)
    return curve


def _cleaned(project: Project, places: list[str] | None) -> Labelled:
    found = read(project, places)
    return Labelled(Cleaner(project.clean).many(found.texts), found.targets, found.labels)


def _drawn(targets: NDArray[Any], shots: int | None, seed: int) -> NDArray[Any]:
    """Return rows: at most `shots` of each label, drawn at random."""
    rows = np.random.default_rng(seed).permutation(len(targets))
    if shots is None:
        return rows
    return np.concatenate([rows[targets[rows] == label][:shots] for label in np.unique(targets)])


def _scored(family: str, train: Labelled, rows: NDArray[Any], test: Labelled) -> tuple[float, float]:
    """Return the accuracy on test and the seconds that the fit took."""
    cls: Any = classifier_class(family)
    start = time.perf_counter()
    fitted = cls(train.labels, Task.MULTI_CLASS, seed=0).fit([train.texts[row] for row in rows], train.targets[rows])
    seconds = time.perf_counter() - start
    return float(accuracy_score(test.targets, fitted.predict_proba(test.texts).argmax(axis=1))), seconds


def _cells(point: dict[str, Any]) -> list[str]:
    few, linear = point["few_shot"], point["linear"]
    seconds = [f"{point[f'{family}_fit_s']:.1f}" for family in ("few_shot", "linear")]
    return [str(point["shots"] or "all"), f"{few:.3f}", f"{linear:.3f}", *seconds]
