"""What every door shares: the models, the limits, and the one way from texts to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tamiz.config import ServeConfig
from tamiz.serving.batching import WorkLine
from tamiz.serving.feedback import Records
from tamiz.serving.inline import MOST_INLINE_TEXTS, beside
from tamiz.serving.limits import check_texts
from tamiz.serving.metrics import Metrics
from tamiz.serving.served import Models, Served, cost_of
from tamiz.serving.shadow import Shadow

if TYPE_CHECKING:
    from tamiz.model import Prediction
    from tamiz.types import Explanation

__all__ = ["Context"]

EXPLAIN_COST = 10  # an explanation takes about as long as so many answers to its text


@dataclass
class Context:
    """The surroundings of a request.

    Attributes:
        models: what is served.
        limits: what a request may cost.
        metrics: where to count.
        line: the work that is too long for the event loop.
        records: what is kept of answers.
        shadow: what copies of requests go to.
    """

    models: Models
    limits: ServeConfig
    metrics: Metrics
    line: WorkLine = field(init=False)
    records: Records = field(init=False)
    shadow: Shadow = field(init=False)

    def __post_init__(self) -> None:
        self.line = WorkLine(self.limits, self.metrics)
        self.records = Records(self.limits.records, self.metrics)
        self.shadow = Shadow(self.models, self.limits, self.metrics, self.records, self.line)

    async def predict(
        self, served: Served, texts: Sequence[str], *, count: bool = True, places: Sequence[int] | None = None
    ) -> Sequence[Prediction]:
        """Answer the texts: here when that is quick, else in their turn, so that the event loop stays responsive.

        Args:
            served: what answers.
            texts: the texts.
            count: whether to count and keep the answers and to show them to a shadow; not where the caller chose the
                labels, for there is no end of those.
            places: of the texts in the request; by default in this order.

        Raises:
            TooLargeError: too many texts, or one too long.
            OverloadedError: the wait would be too long.
            DeadlineError: the time is up.
        """
        check_texts(texts, self.limits)
        cost = cost_of(texts)
        if self.line.takes(served, cost):
            predictions: Sequence[Prediction] = await self.line.predict(served, texts, cost)
        else:
            predictions = served.model.predict(texts)
            if len(predictions) != len(texts):
                raise RuntimeError(f"the model gave {len(predictions)} answers to {len(texts)} texts")
        if not count:
            return predictions
        await beside(len(predictions) > MOST_INLINE_TEXTS, self.metrics.count_predictions, served, predictions)
        if self.records.samples:
            self.records.keep_answers(served, texts, predictions, places=places)
        if self.shadow.watches:
            self.shadow.copy(served, texts, predictions, places)
        return predictions

    async def explain(self, served: Served, text: str, label: str | None) -> Explanation:
        """Explain the answer to one text, with the same care for the event loop.

        Raises:
            TooLargeError: the text is too long.
            RequestError: there is no such label.
            OverloadedError: the wait would be too long.
            DeadlineError: the time is up.
        """
        check_texts([text], self.limits)
        work = partial(served.model.explain, text, label, budget_ms=self.limits.explain_budget_ms)
        return await self.line.call(served, work, EXPLAIN_COST * cost_of([text]))

    def close(self) -> None:
        """Let threads end and files be closed."""
        self.line.close()
        self.shadow.close()
        self.records.close()
