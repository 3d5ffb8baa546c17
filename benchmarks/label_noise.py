"""How well `tamiz check` finds wrong labels: five per cent of the news topics are changed, then looked for."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from benchmarks.datasets import Labelled, root
from benchmarks.record import Figure, Goal, Outcome, say
from tamiz.audit.suspects import held_out, ranked
from tamiz.classifiers import classifier_class
from tamiz.cleaning import Cleaner
from tamiz.config import Project, parse_project
from tamiz.types import FloatArray

__all__ = ["measure"]

_FLIPPED = 0.05
_MOST_ROWS = 20_000
_SEED = 20_240_613


def measure(options: dict[str, Any]) -> Outcome:
    """Change labels, rank the rows by doubt, and learn with and without the most doubtful."""
    folder = root() / "topics" / "agnews"
    project = parse_project(
        {"name": "agnews", "task": "multi-class", "data": {"source": str(folder / "train.parquet")}}
    )
    train, test = (_read(project, str(folder / f"{side}.parquet")) for side in ("train", "test"))
    rng = np.random.default_rng(_SEED)
    n, k = len(train.texts), len(train.labels)
    wrong = np.zeros(n, np.bool_)
    wrong[rng.choice(n, round(_FLIPPED * n), replace=False)] = True
    given = np.where(wrong, (train.targets + rng.integers(1, k, n)) % k, train.targets)
    say(f"{n:,} rows, {wrong.sum():,} labels changed at random")
    start = time.perf_counter()
    order, doubts = ranked(held_out(train.texts, given, train.labels, project), given, project.task)
    seconds = time.perf_counter() - start
    found = order[: wrong.sum()]
    suspected = doubts.suspected
    scores = {
        "as changed": _f1(project, train.texts, given, test),
        "without the most doubtful": _f1(project, *_without(train.texts, given, found), test),
        "unchanged": _f1(project, train.texts, train.targets, test),
    }
    say(f"F1 {scores}")
    goal = Goal(">=", 0.6)
    return Outcome(
        [
            Figure("precision at the number of changed labels", "", float(wrong[found].mean()), goal=goal),
            Figure("precision of all suspected rows", "", float(wrong[suspected].mean())),
            Figure("recall of all suspected rows", "", float(suspected[wrong].mean())),
            *(Figure(f"test macro F1, labels {name}", "", value) for name, value in scores.items()),
            Figure("time to find them", "s", seconds),
        ],
        {"rows": n, "changed": int(wrong.sum()), "suspected": int(suspected.sum()), "seed": _SEED},
    )


def _read(project: Project, place: str) -> Labelled:
    frame = pl.read_parquet(place).drop_nulls(["text", "label"]).head(_MOST_ROWS)
    labels = tuple(sorted(frame["label"].unique().to_list()))
    number = {label: at for at, label in enumerate(labels)}
    targets = np.array([number[label] for label in frame["label"]], np.int64)
    return Labelled(Cleaner(project.clean).many(frame["text"].to_list()), targets, labels)


def _without(texts: list[str], targets: NDArray[Any], rows: NDArray[Any]) -> tuple[list[str], NDArray[Any]]:
    kept = np.setdiff1d(np.arange(len(texts)), rows)
    return [texts[at] for at in kept], targets[kept]


def _f1(project: Project, texts: list[str], targets: NDArray[Any], test: Labelled) -> float:
    prepare = Cleaner(["case"])
    family: Any = classifier_class("linear")
    model = family(test.labels, project.task, seed=0).fit(prepare.many(texts), targets)
    probabilities: FloatArray = model.predict_proba(prepare.many(test.texts))
    return float(f1_score(test.targets, probabilities.argmax(axis=1), average="macro"))
