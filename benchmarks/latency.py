"""Microseconds for one complaint in process, cleaning included, beside scikit-learn's pipeline on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import mean
from typing import Any

import numpy as np
import polars as pl

from benchmarks import peers
from benchmarks.datasets import root
from benchmarks.models import complaints_model
from benchmarks.record import Figure, Goal, Outcome, say
from tamiz.model import Model

__all__ = ["measure"]

_CALLS = 2_500
_WARM_UP = 20
_LENGTHS = (650, 850)


def measure(options: dict[str, Any]) -> Outcome:
    """Take turns between two models and the peer, one call each, over many texts; then time the parts."""
    defaults, example = complaints_model(defaults=True), complaints_model()
    pipeline = peers.bigrams().fit(defaults.texts, defaults.targets)
    unlabeled = pl.read_parquet(root() / "complaints" / "unlabeled.parquet")["narrative"].to_list()
    texts = [text for text in (*defaults.others, *unlabeled) if _LENGTHS[0] <= len(text) <= _LENGTHS[1]]
    say(f"{len(texts)} texts of {mean(map(len, texts)):.0f} characters in the mean")
    models = {"family defaults": defaults.model, "example's parameters": example.model}
    calls: dict[str, Call] = {name: model.predict for name, model in models.items()}
    seconds = _turns({**calls, "peer": pipeline.predict_proba}, texts)
    figures = []
    for name in models:
        for share in (50, 99):
            pair = [np.percentile(seconds[who], share).item() * 1e6 for who in (name, "peer")]
            goal = Goal("<=", 1 / 3, ratio=True)
            what = f"one complaint, {name}: p{share}"
            figures.append(Figure(what, "us", pair[0], pair[1], peer_name=peers.BIGRAMS, goal=goal))
    details: dict[str, Any] = {
        "calls_each": _CALLS,
        "texts": len(texts),
        "mean_characters": mean(map(len, texts)),
        "training_rows": len(defaults.texts),
    }
    for name, model in models.items():
        parts = _parts(model, texts)
        details[name] = {"params": model.manifest.params, "parts_us": parts}
        say(f"{name}: " + ", ".join(f"{part} {microseconds:.0f} us" for part, microseconds in parts.items()))
    return Outcome(figures, details)


Call = Callable[[list[str]], Any]


def _turns(calls: dict[str, Call], texts: list[str]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(_CALLS + _WARM_UP):
        one = [texts[number % len(texts)]]
        for name, call in calls.items():
            start = time.perf_counter()
            call(one)
            seconds[name].append(time.perf_counter() - start)
    return {name: found[_WARM_UP:] for name, found in seconds.items()}


def _parts(model: Model, texts: list[str]) -> dict[str, float]:
    """Return median microseconds of what `Model.predict` does, step by step."""
    classifier: Any = model.classifier
    seconds: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[..., Any], *given: Any) -> Any:
        start = time.perf_counter()
        answer = function(*given)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return answer

    for text in texts * 2:
        (cleaned,) = timed("cleaning", model._cleaner.many, [text])
        probabilities = timed("classifier", classifier.predict_proba, [cleaned])
        for block in classifier.features_._blocks:
            batch = timed(f"{block.kind}: numbers", block.index.sequences.read, [cleaned])
            found = timed(f"{block.kind}: keys, look-up", block.index._look_up, batch.sequence)
            counts = timed(f"{block.kind}: counts", block.index._count, found, batch.starts)
            timed(f"{block.kind}: weights", block.weigh, counts)
        (row,) = timed("all features", _rows, classifier, cleaned)
        timed("score", classifier._score, row)
        calibrated = timed("calibration", model.calibrator.apply, probabilities)
        timed("rule", model.rule.decide, calibrated)
        timed("the whole", model.predict, [text])
    return {name: float(np.median(found) * 1e6) for name, found in seconds.items()}


def _rows(classifier: Any, cleaned: str) -> list[Any]:
    return list(classifier.features_.rows([cleaned]))
