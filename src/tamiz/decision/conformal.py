"""Split conformal prediction: sets of labels that hold the true one with a stated probability.

The guarantee is marginal: over examples exchangeable with those of the fit, the set holds the true label with at least
the stated probability, whatever the classifier. In multi-label tasks it holds for each label on its own: a label that
is true is in the set with at least that probability.

Source:
    Vovk, Gammerman, Shafer (2005), Algorithmic Learning in a Random World, chapters 2.2 and 4.5 (label-conditional, the
    multi-label case here). Quantile with the finite-sample correction: Angelopoulos, Bates (2021), A Gentle
    Introduction to Conformal Prediction, section 1.1. `lac`: Sadinle, Lei, Wasserman (2019), Least Ambiguous Set-Valued
    Classifiers With Bounded Error Levels. `aps`: Romano, Sesia, Candes (2020), Classification with Valid and Adaptive
    Coverage (without randomisation; the top label is always in the set, so sets are a little larger than need be).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from tamiz.errors import ConfigError
from tamiz.types import BoolArray, FloatArray, Task

__all__ = ["Conformal", "fit_conformal"]


@dataclass(frozen=True)
class Conformal:
    """A fitted conformal predictor.

    Attributes:
        coverage: how often the set holds the true label.
        quantiles: greatest score of a label in the set: one; multi-label: one per label, 1 where a label has too few
            examples to leave it out ever.
        examples: how many examples each quantile comes from.
        score: `lac` or `aps`.
        abstain: whether the rule answers only where the set holds exactly the decided label.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    coverage: float
    quantiles: tuple[float, ...]
    examples: tuple[int, ...] = ()
    score: Literal["lac", "aps"] = "lac"
    abstain: bool = True

    def __post_init__(self) -> None:
        """Refuse what can be no conformal predictor."""
        if not 0 < self.coverage < 1:
            raise ConfigError(f"conformal.coverage: got {self.coverage}, allowed: above 0 and below 1")
        if not self.quantiles:
            raise ConfigError("conformal: at least one quantile is needed")

    def sets(self, probabilities: FloatArray) -> BoolArray:
        """Return which labels are in the set of each row of calibrated probabilities: bool `(n, k)`."""
        quantile = self.quantiles[0] if len(self.quantiles) == 1 else np.array(self.quantiles)
        found: BoolArray = _scores(probabilities, self.score) <= quantile
        if self.score == "aps" and len(probabilities):
            found[np.arange(len(found)), probabilities.argmax(axis=1)] = True
        return found


def fit_conformal(
    probabilities: FloatArray,
    targets: NDArray[Any],
    task: Task,
    *,
    coverage: float,
    score: Literal["lac", "aps"] = "lac",
    abstain: bool = True,
) -> Conformal:
    """Find the quantile of the scores of true labels.

    Args:
        probabilities: `(n, k)`, calibrated, of examples that neither classifier nor calibrator was fitted on.
        targets: int64 `(n,)`; multi-label: bool `(n, k)`.
        task: what kind of answer is given.
        coverage: how often the set must hold the true label, between 0 and 1.
        score: `lac`: 1 - p; `aps`: sum of the probabilities down to the label's own. Multi-label: `lac` only.
        abstain: see `Conformal`.

    Raises:
        ConfigError: there are too few examples for this coverage.
    """
    scores = _scores(probabilities, score)
    if task is Task.MULTI_LABEL:
        columns = [scores[targets[:, j], j] for j in range(scores.shape[1])]
    else:
        columns = [scores[np.arange(len(targets)), targets]]
    found = [_quantile(column, coverage) for column in columns]
    if all(quantile is None for quantile in found):
        most, needed = max(len(column) for column in columns), math.ceil(round(coverage / (1 - coverage), 6))
        of_what = "true labels of one kind" if task is Task.MULTI_LABEL else "examples"
        raise ConfigError(
            f"conformal.coverage {coverage}: needs at least {needed} validation {of_what}, there are {most}; "
            "give more labelled texts, a larger split.validation or a lower coverage"
        )
    quantiles = tuple(1.0 if quantile is None else quantile for quantile in found)
    return Conformal(coverage, quantiles, tuple(len(column) for column in columns), score, abstain)


def _scores(probabilities: FloatArray, score: str) -> FloatArray:
    """Return how ill each label fits its row, `(n, k)`; each row depends on that row alone."""
    if score == "lac":
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def _quantile(scores: FloatArray, coverage: float) -> float | None:
    """Return the `ceil((n + 1) * coverage)`-th smallest score, `None` where there are fewer."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)  # 100 * .55 is 55.00000000000001
    if rank > len(scores):
        return None
    return float(np.partition(scores, rank - 1)[rank - 1])
