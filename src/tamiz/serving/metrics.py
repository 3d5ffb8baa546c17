"""Prometheus metrics, with labels from closed sets only: doors, methods, statuses, and the models' own labels.

With several worker processes, prometheus-client's multiprocess folder joins their figures. Its place must be in the
environment before prometheus-client is imported, which is the entry point's work; here it arrives as a path.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tamiz.serving.served import Served

if TYPE_CHECKING:
    from tamiz.model import Prediction

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TURN_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
TEXT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SHARE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
APART_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
ABSTAINED = "(none)"
LIVE_FILE = re.compile(r"gauge_live\w*_(\d+)\.db")


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
        self._in_flight = Gauge(
            "tamiz_requests_in_flight", "Requests under way", multiprocess_mode="livesum", registry=here
        )
        self._errors = Counter(
            "tamiz_errors", "Requests answered with an error, by kind", ["door", "kind"], registry=here
        )
        self._add_models()
        self._add_shadow()
        self._told: set[tuple[str, str, str]] = set()
        # To find a child by its labels takes prometheus-client longer than to count; they are from closed sets.
        self._observers = cache(self._observer)
        self._counters = cache(self._counter)
        if multiprocess_dir is None:
            ProcessCollector(registry=self.registry)

    def _add_models(self) -> None:
        """Make the figures of what models answer."""
        here = self.registry
        self._predictions = Counter("tamiz_predictions", "Texts answered, by label", ["model", "label"], registry=here)
        self._confidence = Histogram(
            "tamiz_confidence",
            "Probability of the answered label; multi-label: of the most probable one",
            ["model"],
            buckets=SHARE_BUCKETS,
            registry=here,
        )
        self._queue = Histogram(
            "tamiz_queue_seconds", "Time in the line", ["model"], buckets=TURN_BUCKETS_S, registry=here
        )
        self._batch = Histogram(
            "tamiz_batch_texts",
            "Texts that a thread answered at once",
            ["model"],
            buckets=TEXT_BUCKETS,
            registry=here,
        )
        self._serving = Gauge(
            "tamiz_model_info",
            "Processes that serve this version now",
            ["model", "version", "family"],
            multiprocess_mode="livesum",
            registry=here,
        )
        self._created = Gauge(
            "tamiz_model_created_timestamp_seconds",
            "When the served version was made; its age is time() less this",
            ["model"],
            multiprocess_mode="livemin",
            registry=here,
        )
        self._feedback = Counter("tamiz_feedback", "Labels given as feedback", ["model", "label"], registry=here)
        self._records = Counter(
            "tamiz_records", "Answers to be kept, by what became of them", ["outcome"], registry=here
        )

    def _add_shadow(self) -> None:
        """Make the figures of the comparison of served versions with their challengers."""
        here, about = self.registry, ["model", "version", "challenger"]
        self._shadow = Counter("tamiz_shadow_texts", "Texts compared", [*about, "outcome"], registry=here)
        self._apart = Histogram(
            "tamiz_shadow_difference",
            "Largest difference between the two versions' probabilities of a text",
            about,
            buckets=APART_BUCKETS,
            registry=here,
        )

    def observe(self, door: str, method: str, status: int, took_s: float) -> None:
        """Count one answered request."""
        inc, observe = self._observers(door, method if method in METHODS else "other", status)
        inc()
        observe(took_s)

    def _observer(self, door: str, method: str, status: int) -> tuple[Callable[[], None], Callable[[float], None]]:
        return self._requests.labels(door, method, status).inc, self._latency.labels(door).observe

    def in_flight(self, change: int) -> None:
        """Note that a request has come (1) or is answered (-1)."""
        self._in_flight.inc(change)

    def count_error(self, door: str, kind: str) -> None:
        """Count a request answered with an error."""
        self._errors.labels(door, kind).inc()

    def observe_queue(self, model: str, waited_s: float) -> None:
        """Note how long a request stood in the line."""
        self._queue.labels(model).observe(waited_s)

    def observe_batch(self, model: str, texts: int) -> None:
        """Note how many texts were answered at once."""
        self._batch.labels(model).observe(texts)

    def count_feedback(self, model: str, labels: Sequence[str]) -> None:
        """Count a piece of feedback; one with several labels counts for each."""
        for label in labels or (ABSTAINED,):
            self._feedback.labels(model, label).inc()

    def count_records(self, outcome: str, count: int) -> None:
        """Count answers that were kept, or not for the reason given."""
        self._records.labels(outcome).inc(count)

    def count_shadow(self, pair: tuple[str, str, str], outcome: str, count: int = 1) -> None:
        """Count texts by how the challenger's answers compare.

        Args:
            pair: model, version served, version of the challenger.
            outcome: `same`, `other`, `failed` or `skipped`.
            count: how many.
        """
        self._shadow.labels(*pair, outcome).inc(count)

    def observe_shadow(self, pair: tuple[str, str, str], apart: float) -> None:
        """Note how far apart two versions' probabilities of a text are."""
        self._apart.labels(*pair).observe(apart)

    def count_predictions(self, served: Served, predictions: Sequence[Prediction]) -> None:
        """Count what a model answered; a text with several labels counts for each."""
        if len(predictions) == 1 and isinstance(predictions[0].label, str):
            inc, observe = self._counters(served.name, predictions[0].label)
            inc()
            observe(predictions[0].probability)  # type: ignore[arg-type]
            return
        confidence = self._confidence.labels(served.name)
        for prediction in predictions:
            answered = prediction.probability
            confidence.observe(answered if isinstance(answered, float) else prediction.probabilities.max())
        tally = Tally(chain.from_iterable(_labels_of(prediction) for prediction in predictions))
        for label, count in tally.items():
            self._predictions.labels(served.name, label).inc(count)

    def _counter(self, model: str, label: str) -> tuple[Callable[[], None], Callable[[float], None]]:
        return self._predictions.labels(model, label).inc, self._confidence.labels(model).observe

    def set_served(self, served: Sequence[Served]) -> None:
        """Tell which versions this process serves now; versions served before stay, at 0."""
        now = {(one.name, one.version or "", one.model.manifest.family) for one in served}
        for labels in self._told | now:
            self._serving.labels(*labels).set(1 if labels in now else 0)
        self._told |= now
        for one in served:
            self._created.labels(one.name).set(datetime.fromisoformat(one.model.manifest.created_at).timestamp())

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
        for found in self._multiprocess_dir.glob("gauge_live*.db"):
            name = LIVE_FILE.fullmatch(found.name)
            if name is not None and not _is_alive(int(name[1])):  # killed, without a chance to take itself out
                self.close(int(name[1]))
        joined = CollectorRegistry()
        _Workers(joined, path=str(self._multiprocess_dir))  # type: ignore[no-untyped-call]
        return joined

    def close(self, pid: int) -> None:
        """Take a process that ends out of the sums over live processes."""
        if self._multiprocess_dir is not None:
            with suppress(FileNotFoundError):  # another worker was quicker
                mark_process_dead(pid, path=str(self._multiprocess_dir))  # type: ignore[no-untyped-call]


class _Workers(MultiProcessCollector):
    """Joins the workers' files; one that a starting worker makes just now has no size yet, and cannot be read."""

    def collect(self) -> Iterable[Metric]:
        files = [str(found) for found in Path(self._path).glob("*.db") if _size(found)]
        return self.merge(files)  # type: ignore[no-any-return, no-untyped-call]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # of a worker that has ended since
        return 0


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # where this would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _labels_of(prediction: Prediction) -> Sequence[str]:
    label = prediction.label
    if label is None:
        return (ABSTAINED,)
    return (label,) if isinstance(label, str) else (label or (ABSTAINED,))
