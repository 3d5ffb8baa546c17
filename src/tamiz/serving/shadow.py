"""Shadow mode: a challenger sees copies of requests; its answers are compared with those given, and nobody gets them.

Copies are answered one after another in a thread of their own, and only while there is time for it: of a server that
has more work than time, and of a challenger that is too slow, copies are skipped and counted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

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

    def copy(self, served: Served, texts: Sequence[str], predictions: Sequence[Prediction]) -> None:
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
        self._pool.submit(self._compare, challenger, pair, list(texts), predictions, request_id)

    def _compare(
        self,
        challenger: Served,
        pair: tuple[str, str, str],
        texts: list[str],
        given: Sequence[Prediction],
        request_id: str,
    ) -> None:
        """Run in the thread; never raises."""
        try:
            found = challenger.model.predict(texts)
            for ours, theirs in zip(given, found, strict=True):
                self._metrics.count_shadow(pair, "same" if ours.label == theirs.label else "other")
                if ours.probabilities.shape == theirs.probabilities.shape:
                    self._metrics.observe_shadow(pair, float(np.abs(ours.probabilities - theirs.probabilities).max()))
            if self._records.samples:
                self._records.keep_answers(challenger, texts, found, request_id=request_id, role=CHALLENGER)
        except Exception as error:
            self._metrics.count_shadow(pair, "failed", len(texts))
            if pair not in self._failed:  # once a pair: a broken challenger fails at every request
                self._failed.add(pair)
                log_error("the challenger failed", error, model=pair[0], version=pair[2])
        finally:
            with self._lock:
                self._waiting = max(0, self._waiting - cost_of(texts))
