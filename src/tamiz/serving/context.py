"""What every door shares: the models, the limits, and the one way from texts to predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from tamiz.config import ServeConfig
from tamiz.serving.limits import check_texts
from tamiz.serving.metrics import Metrics
from tamiz.serving.served import Models, Served, cost_of

if TYPE_CHECKING:
    from tamiz.model import Prediction
    from tamiz.types import Explanation

__all__ = ["Context"]


@dataclass
class Context:
    """The surroundings of a request.

    Attributes:
        models: what is served.
        limits: what a request may cost.
        metrics: where to count.
        threads: predictions computed beside the event loop at once.
    """

    models: Models
    limits: ServeConfig
    metrics: Metrics
    threads: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    _limiter: anyio.CapacityLimiter | None = field(default=None, init=False)

    async def predict(self, served: Served, texts: Sequence[str]) -> Sequence[Prediction]:
        """Answer the texts: here when that is quick, else in a thread, so that the event loop stays responsive.

        Raises:
            TooLargeError: too many texts, or one too long.
        """
        check_texts(texts, self.limits)
        if cost_of(texts) <= served.inline_cost:
            predictions = served.model.predict(texts)
        else:
            predictions = await anyio.to_thread.run_sync(served.model.predict, texts, limiter=self._threads())
        if len(predictions) != len(texts):
            raise RuntimeError(f"the model gave {len(predictions)} answers to {len(texts)} texts")
        self.metrics.count_predictions(served, predictions)
        return predictions

    async def explain(self, served: Served, text: str, label: str | None) -> Explanation:
        """Explain the answer to one text, with the same care for the event loop.

        Raises:
            TooLargeError: the text is too long.
            RequestError: there is no such label.
        """
        check_texts([text], self.limits)
        explain = partial(served.model.explain, text, label, budget_ms=self.limits.explain_budget_ms)
        return await anyio.to_thread.run_sync(explain, limiter=self._threads())

    def _threads(self) -> anyio.CapacityLimiter:
        if self._limiter is None:  # made inside the event loop, where older releases of anyio want it
            self._limiter = anyio.CapacityLimiter(self.threads)
        return self._limiter
