"""One fit and one prediction in a process of its own, for `scaling`: a Parquet file in, seconds as JSON out."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tamiz.classifiers.linear import LinearClassifier
from tamiz.types import Task

__all__ = ["main"]


def main(who: str, path: Path) -> dict[str, Any]:
    """Fit and predict with `linear` or with `peer` on all rows of a file."""
    texts, labels = _read(path)
    names = tuple(sorted(set(labels)))
    number = {name: place for place, name in enumerate(names)}
    targets = np.fromiter((number[label] for label in labels), np.int64, len(labels))
    loaded_mb = _peak_mb()
    fit, predict = _ours(names) if who == "linear" else _theirs()
    start = time.perf_counter()
    fit(texts, targets)
    seconds, peaks = {"fit": time.perf_counter() - start}, {"fit": _peak_mb()}
    start = time.perf_counter()
    probabilities = predict(texts)
    seconds["predict"], peaks["predict"] = time.perf_counter() - start, _peak_mb()
    return {
        "seconds": seconds,
        "loaded_mb": loaded_mb,
        "peaks_mb": peaks,
        "features": int(_features(who, fit)),
        "text_mb": sum(map(len, texts)) / 1e6,
        "train_accuracy": float((np.asarray(probabilities).argmax(axis=1) == targets).mean()),
    }


def _read(path: Path) -> tuple[list[str], list[str]]:
    texts: list[str] = []
    labels: list[str] = []
    for batch in pq.ParquetFile(path).iter_batches(columns=["narrative", "category"]):
        texts += batch.column(0).to_pylist()
        labels += batch.column(1).to_pylist()
    return texts, labels


Fit = Callable[[list[str], Any], Any]


def _ours(names: tuple[str, ...]) -> tuple[Fit, Callable[[list[str]], Any]]:
    classifier = LinearClassifier(names, Task.MULTI_CLASS, seed=0)
    return classifier.fit, classifier.predict_proba


def _theirs() -> tuple[Fit, Callable[[list[str]], Any]]:
    from benchmarks import peers

    pipeline = peers.bigrams()
    return pipeline.fit, pipeline.predict_proba


def _features(who: str, fit: Any) -> int:
    fitted = fit.__self__
    return len(fitted.features_) if who == "linear" else fitted[0].idf_.shape[0]


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
