"""Shadow mode: a challenger sees copies of requests; its answers are compared with those given, and nobody gets them.

Copies are answered one after another in a thread of their own, and only while there is time for it: of a server that
has more work than time, and of a challenger that is too slow, copies are skipped and counted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tamiz.config import ServeConfig
from tamiz.serving.batching import WorkLine
from tamiz.serving.current import CURRENT
from tamiz.serving.feedback import CHALLENGER, Records, is_sampled
from tamiz.serving.metrics import Metrics
from tamiz.serving.problems import log_error
from tamiz.serving.served import Models, Served, cost_of

if TYPE_CHECKING:
    from tamiz.model import Prediction

__all__ = ["Shadow"]

MOST_WAITING = 1_000_000  # characters of copies, as `cost_of` counts


class Shadow:
    """The comparison of what is served with its challengers.

    Args:
        models: knows the challengers.
        limits: whether to compare, and what share of requests.
        metrics: where to count.
        records: where the challenger's answers are kept, if those given are.
        line: tells when there is no time to spare.
    """

    def __init__(self, models: Models, limits: ServeConfig, metrics: Metrics, records: Records, line: WorkLine) -> None:
        self._models = models
        self._share = limits.shadow_share
        self._metrics = metrics
        self._records = records
        self._line = line
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._lock = threading.Lock()
        self._failed: set[tuple[str, str, str]] = set()
        self.watches = limits.shadow is not None

    def close(self) -> None:
        """Forget the copies that wait, and let the thread end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool, self._waiting = None, 0

    def copy(
        self,
        served: Served,
        texts: Sequence[str],
        predictions: Sequence[Prediction],
        places: Sequence[int] | None = None,
    ) -> None:
        """Let the challenger of a model see a request that has been answered; returns at once."""
        challenger = self._models.challenger(served.name)
        current = CURRENT.get()
        request_id = current.request_id if current else ""
        if challenger is None or challenger.version == served.version or not is_sampled(request_id, self._share):
            return
        pair, cost = (served.name, served.version or "", challenger.version or ""), cost_of(texts)
        with self._lock:
            room = self._waiting + cost <= MOST_WAITING and not self._line.overloaded
            self._waiting += cost if room else 0
        if not room:
            self._metrics.count_shadow(pair, "skipped", len(texts))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="tamiz-shadow")
        self._pool.submit(self._compare, (served, challenger), pair, list(texts), predictions, request_id, places)

    def _compare(
        self,
        both: tuple[Served, Served],
        pair: tuple[str, str, str],
        texts: list[str],
        given: Sequence[Prediction],
        request_id: str,
        places: Sequence[int] | None,
    ) -> None:
        """Run in the thread; never raises."""
        served, challenger = both
        try:
            found = challenger.model.predict(texts)
            labels, theirs_labels = served.model.labels, challenger.model.labels
            order = [theirs_labels.index(label) for label in labels] if set(labels) == set(theirs_labels) else None
            for ours, theirs in zip(given, found, strict=True):
                self._metrics.count_shadow(pair, "same" if _answer(ours) == _answer(theirs) else "other")
                if order is not None:
                    difference = np.abs(ours.probabilities - theirs.probabilities[order]).max()
                    self._metrics.observe_shadow(pair, float(difference))
            if self._records.samples:
                about: dict[str, Any] = {"request_id": request_id, "role": CHALLENGER, "places": places}
                self._records.keep_answers(challenger, texts, found, **about)
        except Exception as error:
            self._metrics.count_shadow(pair, "failed", len(texts))
            if pair not in self._failed:  # once a pair: a broken challenger fails at every request
                self._failed.add(pair)
                log_error("the challenger failed", error, model=pair[0], version=pair[2])
        finally:
            with self._lock:
                self._waiting = max(0, self._waiting - cost_of(texts))


def _answer(prediction: Prediction) -> Any:
    """Return an answer without the order of its labels."""
    return frozenset(prediction.label) if isinstance(prediction.label, tuple) else prediction.label
