"""The film-genre recipe: as published (dense), and as `nb_stack` and `linear` do it; one process each."""

from __future__ import annotations

from typing import Any

from benchmarks.record import Figure, Goal, Outcome, say
from benchmarks.running import Child, child

__all__ = ["measure"]

_PEER = (
    "CountVectorizer(max_features=10000) and TfidfVectorizer(max_features=10000), made dense, Normalizer, "
    "OneVsRestClassifier of a StackingClassifier of MultinomialNB and ComplementNB under LogisticRegression"
)
_WAYS = ("dense", "recipe", "nb_stack", "words", "linear")


def measure(options: dict[str, Any]) -> Outcome:
    """Fit on four fifths of the movies and score the fifth, in a process each."""
    runs = {name: child(["-m", "benchmarks.recipe_child", name]) for name in _WAYS}
    for name, run in runs.items():
        say(f"{name}: {run.answer['fit_s']:.1f} s, {run.peak_mb:.0f} MB, macro ROC AUC {run.answer['auc']:.4f}")
    dense = runs["dense"]
    figures = [
        *_beside(runs["recipe"], dense, "the same recipe, sparse", 1 / 30, 1 / 6, dense.answer["auc"] - 0.001),
        *_beside(runs["nb_stack"], dense, "nb_stack at its defaults", None, None, dense.answer["auc"]),
        *_beside(runs["words"], dense, "linear, words alone", 1 / 60, None, dense.answer["auc"] + 0.1),
        *_beside(runs["linear"], dense, "linear, as in the example", None, None, dense.answer["auc"] + 0.1),
    ]
    return Outcome(figures, {name: run._asdict() for name, run in runs.items()})


def _beside(ours: Child, dense: Child, name: str, time: float | None, memory: float | None, auc: float) -> list[Figure]:
    seconds = ours.answer["fit_s"], dense.answer["fit_s"]
    grown = ours.answer["grown_mb"], dense.answer["grown_mb"]
    limits = [None if bound is None else Goal("<=", round(bound, 4), ratio=True) for bound in (time, memory)]
    scores = ours.answer["auc"], dense.answer["auc"]
    return [
        Figure(f"{name}: fit and predict", "s", *seconds, _PEER, limits[0]),
        Figure(f"{name}: memory above the texts'", "MB", *grown, _PEER, limits[1]),
        Figure(f"{name}: macro ROC AUC", "", *scores, _PEER, Goal(">=", round(auc, 4))),
    ]
