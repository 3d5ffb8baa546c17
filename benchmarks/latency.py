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

_PEER = "TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2) + LogisticRegression(), uncleaned texts"
_CALLS = 2_500
_LENGTHS = (650, 850)


def measure(options: dict[str, Any]) -> Outcome:
    """Take turns between the two, one call each, over many texts; then time the parts of `Model.predict`."""
    fitted = complaints_model()
    pipeline = peers.bigrams().fit(fitted.texts, fitted.targets)
    unlabeled = pl.read_parquet(root() / "complaints" / "unlabeled.parquet")["narrative"].to_list()
    texts = [text for text in (*fitted.others, *unlabeled) if _LENGTHS[0] <= len(text) <= _LENGTHS[1]]
    say(f"{len(texts)} texts of {mean(map(len, texts)):.0f} characters in the mean")
    ours, theirs = _turns(fitted.model, pipeline, texts)
    figures = []
    for share in (50, 99):
        pair = np.percentile(ours, share).item() * 1e6, np.percentile(theirs, share).item() * 1e6
        goal = Goal("<=", 1 / 3, ratio=True)
        figures.append(Figure(f"one text of about 750 characters, p{share}", "us", *pair, _PEER, goal))
    parts = _parts(fitted.model, texts)
    details = {
        "calls_each": _CALLS,
        "texts": len(texts),
        "mean_characters": mean(map(len, texts)),
        "training_rows": len(fitted.texts),
        "features": len(fitted.model.manifest.labels),
        "params": fitted.model.manifest.params,
        "parts_us": parts,
    }
    for name, microseconds in parts.items():
        say(f"{name}: {microseconds:.1f} us")
    return Outcome(figures, details)


def _turns(model: Model, pipeline: Any, texts: list[str]) -> tuple[list[float], list[float]]:
    ours, theirs = [], []
    for text in texts[:20]:
        model.predict([text]), pipeline.predict_proba([text])
    for call in range(_CALLS):
        text = [texts[call % len(texts)]]
        start = time.perf_counter()
        model.predict(text)
        middle = time.perf_counter()
        pipeline.predict_proba(text)
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
    return ours, theirs


def _parts(model: Model, texts: list[str]) -> dict[str, float]:
    """Return median microseconds of what `Model.predict` does, step by step."""
    classifier: Any = model.classifier
    seconds: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        answer = call()
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return answer

    for text in texts * 2:
        (cleaned,) = timed("cleaning", lambda text=text: model._cleaner.many([text]))
        probabilities = timed("classifier", lambda cleaned=cleaned: classifier.predict_proba([cleaned]))
        for block in classifier.features_._blocks:
            batch = timed(f"{block.kind}: numbers", lambda b=block, c=cleaned: b.index.sequences.read([c]))
            found = timed(f"{block.kind}: keys, look-up", lambda b=block, s=batch: b.index._look_up(s.sequence))
            counts = timed(f"{block.kind}: counts", lambda b=block, f=found, s=batch: b.index._count(f, s.starts))
            timed(f"{block.kind}: weights", lambda b=block, c=counts: b.weigh(c))
        (row,) = timed("all features", lambda c=cleaned: list(classifier.features_.rows([c])))
        timed("score", lambda r=row: classifier._score(r))
        calibrated = timed("calibration", lambda p=probabilities: model.calibrator.apply(p))
        timed("rule", lambda p=calibrated: model.rule.decide(p))
        timed("the whole", lambda text=text: model.predict([text]))
    return {name: float(np.median(found) * 1e6) for name, found in seconds.items()}
