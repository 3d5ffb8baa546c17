"""Prometheus metrics, with labels from closed sets only: doors, methods, statuses, and the models' own labels.

With several worker processes, prometheus-client's multiprocess folder joins their figures. Its place must be in the
environment before prometheus-client is imported, which is the entry point's work; here it arrives as a path.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tamiz.serving.served import Served

if TYPE_CHECKING:
    from tamiz.model import Prediction

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ABSTAINED = "(none)"


class Metrics:
    """What one process counts.

    Args:
        multiprocess_dir: folder that all workers share, if there are several.
    """

    def __init__(self, multiprocess_dir: Path | None = None) -> None:
        self.registry = here = CollectorRegistry()
        self._multiprocess_dir = multiprocess_dir
        self._requests = Counter("tamiz_requests", "Requests answered", ["door", "method", "status"], registry=here)
        self._latency = Histogram(
            "tamiz_request_seconds",
            "Time to answer a request",
            ["door"],
            buckets=LATENCY_BUCKETS_S,
            registry=here,
        )
        self._predictions = Counter("tamiz_predictions", "Texts answered, by label", ["model", "label"], registry=here)
        self._serving = Gauge(
            "tamiz_model_info",
            "Processes that serve this version now",
            ["model", "version", "family"],
            multiprocess_mode="livesum",
            registry=here,
        )
        self._told: set[tuple[str, str, str]] = set()
        if multiprocess_dir is None:
            ProcessCollector(registry=self.registry)

    def observe(self, door: str, method: str, status: int, took_s: float) -> None:
        """Count one answered request."""
        self._requests.labels(door, method if method in METHODS else "other", status).inc()
        self._latency.labels(door).observe(took_s)

    def count_predictions(self, served: Served, predictions: Sequence[Prediction]) -> None:
        """Count what a model answered; a text with several labels counts for each."""
        if len(predictions) == 1 and isinstance(predictions[0].label, str):
            self._predictions.labels(served.name, predictions[0].label).inc()
            return
        tally = Tally(chain.from_iterable(_labels_of(prediction) for prediction in predictions))
        for label, count in tally.items():
            self._predictions.labels(served.name, label).inc(count)

    def set_served(self, served: Sequence[Served]) -> None:
        """Tell which versions this process serves now; versions served before stay, at 0."""
        now = {(one.name, one.version or "", one.model.manifest.family) for one in served}
        for labels in self._told | now:
            self._serving.labels(*labels).set(1 if labels in now else 0)
        self._told |= now

    def serving(self, name: str) -> dict[str, int]:
        """Return how many worker processes serve each version of a model now, of those that any serves."""
        counts: Tally[str] = Tally()
        for family in self._joined().collect():
            for sample in family.samples if family.name == "tamiz_model_info" else ():
                if sample.labels["model"] == name and sample.value:
                    counts[sample.labels["version"]] += int(sample.value)
        return dict(counts)

    def render(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._joined())

    def _joined(self) -> CollectorRegistry:
        """Return the figures of all worker processes together."""
        if self._multiprocess_dir is None:
            return self.registry
        joined = CollectorRegistry()
        MultiProcessCollector(joined, path=str(self._multiprocess_dir))  # type: ignore[no-untyped-call]
        return joined

    def close(self, pid: int) -> None:
        """Take a process that ends out of the sums over live processes."""
        if self._multiprocess_dir is not None:
            mark_process_dead(pid, path=str(self._multiprocess_dir))  # type: ignore[no-untyped-call]


def _labels_of(prediction: Prediction) -> Sequence[str]:
    label = prediction.label
    if label is None:
        return (ABSTAINED,)
    return (label,) if isinstance(label, str) else (label or (ABSTAINED,))
