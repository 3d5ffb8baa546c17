"""Rungs compared on texts drawn at random that they did not learn from, by an exact paired test.

Source:
    Flipping signs of paired differences: Fisher (1935), The Design of Experiments, section 21; with differences of one
    unit it is McNemar's exact test. Texts needed to tell: Connor (1987), Sample Size for Testing Differences in
    Proportions for the Paired-Sample Design. Several comparisons at once: Holm (1979).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.decision import DecisionRule
from tamiz.metrics import holm
from tamiz.pipeline.ladder_suggest import FEWEST
from tamiz.types import BoolArray, FloatArray, IntArray, Task

__all__ = ["Against", "Answering", "Climb", "climb", "folds", "right_counts", "sign_flip", "texts_to_tell"]

_FOLDS = 5
_POWER = 0.8
_TRIES = 20
Answering = Callable[[IntArray, IntArray], dict[str, FloatArray]]
"""Lets each rung learn from texts at the first places; returns its probabilities `(n, k)` of those at the second."""


@dataclass(frozen=True)
class Against:
    """A rung beside the current one.

    Attributes:
        rung: its name.
        current: name of the current one.
        right: share of texts it answers right.
        current_right: that of the current one.
        wins: texts it answers right more often than the current one.
        losses: texts it answers right less often.
        p: two-sided p-value of no difference.
        p_adjusted: the same for as many comparisons as there were.
        verdict: `better`, `worse` or `undecided`.
        more_texts: about how many more texts drawn at random would tell, if the difference is what it seems; `None`
            where the test tells, or the rung is not ahead.
    """

    rung: str
    current: str
    right: float
    current_right: float
    wins: int
    losses: int
    p: float
    p_adjusted: float
    verdict: str
    more_texts: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class Climb:
    """Which rung the comparisons lead to.

    Attributes:
        rung: its name.
        rounds: comparisons with each rung that was current, in order; those with `rung` last.
    """

    rung: str
    rounds: tuple[tuple[Against, ...], ...]


def _right(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> BoolArray:
    same = DecisionRule(task).decide(probabilities) == targets
    return np.asarray(same.all(axis=1) if same.ndim == 2 else same, np.bool_)


def folds(
    targets: NDArray[Any], measured: IntArray, *, seed: int, near: IntArray | None = None
) -> list[IntArray] | None:
    """Divide the measured texts into folds, stratified by label, each label left in the rest of every fold.

    Texts of one cluster are in one fold, stratified by the label of the first, and its rest has none of them.

    Args:
        targets: of all labelled texts: int64 `(n,)`; multi-label: bool `(n, k)`.
        measured: places of those that are measured.
        seed: of the division.
        near: cluster of near-duplicates of each labelled text, `(n,)`; by default each text is one of its own.

    Returns:
        Places a fold; `None` where no division leaves each label of two texts or more an example to learn from.
    """
    from sklearn.model_selection import StratifiedKFold

    codes = np.unique(targets, axis=0, return_inverse=True)[1].ravel()
    near = np.arange(len(targets)) if near is None else near
    firsts = measured[np.sort(np.unique(near[measured], return_index=True)[1])]
    if len(firsts) < 2:
        return None
    for attempt in range(_TRIES):
        division = StratifiedKFold(min(_FOLDS, len(firsts)), shuffle=True, random_state=seed + 7919 * attempt)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rare labels are in fewer folds
            try:
                parts = [firsts[held] for _, held in division.split(firsts, codes[firsts])]
            except ValueError:  # no label has as many texts as there are folds
                order = firsts[np.random.default_rng(seed + attempt).permutation(len(firsts))]
                order = order[codes[order].argsort(kind="stable")]
                parts = [np.sort(order[start :: division.n_splits]) for start in range(division.n_splits)]
        if all(_teaches(targets[_apart(near, part)], targets) for part in parts):
            return [measured[np.isin(near[measured], near[part])] for part in parts]
    return None


def _apart(near: IntArray, held: IntArray) -> IntArray:
    """Return the places of texts of which no near-duplicate is held out."""
    return np.flatnonzero(~np.isin(near, near[held]))


def _teaches(learnt: NDArray[Any], targets: NDArray[Any]) -> bool:
    """Tell whether two labels and all that occur twice are there to learn from; multi-label: all, and their absence."""
    if targets.ndim == 1:
        found, counts = np.unique(targets, return_counts=True)
        there = set(np.unique(learnt).tolist())
        return len(there) >= 2 and there >= set(found[counts >= FEWEST].tolist())
    return bool((learnt.any(axis=0) == targets.any(axis=0)).all() and (~learnt).any(axis=0).all())


def right_counts(
    answering: Answering,
    targets: NDArray[Any],
    measured: IntArray,
    divisions: Sequence[Sequence[IntArray]],
    task: Task,
    *,
    near: IntArray | None = None,
) -> dict[str, IntArray]:
    """Return, of each rung, how often each measured text is answered right by what did not learn from it.

    Args:
        answering: the rungs.
        targets: of all labelled texts.
        measured: places of those that are measured; the others are learnt from only.
        divisions: of the measured texts into folds; each text is answered once a division.
        task: what kind of answer is given.
        near: clusters as for `folds`; no text is answered by what learnt from a near-duplicate of it.
    """
    counts: dict[str, IntArray] = {}
    near = np.arange(len(targets)) if near is None else near
    for parts in divisions:
        for held in parts:
            for name, probabilities in answering(_apart(near, held), held).items():
                found = counts.setdefault(name, np.zeros(len(targets), np.int64))
                found[held] += _right(probabilities, targets[held], task)
    return {name: found[measured] for name, found in counts.items()}


def sign_flip(differences: IntArray) -> float:
    """Return the exact two-sided p-value of whole-number differences `(n,)` whose signs are chance.

    Example:
        >>> round(sign_flip(np.array([1] * 8 + [-1] * 2 + [0] * 9)), 4)
        0.1094
    """
    sizes = np.abs(differences[differences != 0])
    total, chances = int(sizes.sum()), np.ones(1)
    for size in sizes.tolist():  # chances of each sum of those that are positive
        longer = np.zeros(len(chances) + size)
        longer[: len(chances)] += chances / 2
        longer[size:] += chances / 2
        chances = longer
    distance = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(chances[distance >= abs(int(differences.sum()))].sum()))


def texts_to_tell(differences: NDArray[Any], alpha: float) -> int | None:
    """Return how many texts would tell such a difference in four of five cases; `None` where there is none above 0.

    Their unit does not matter; whole numbers have an exact mean, which is 0 where wins and losses are even.
    """
    from scipy.stats import norm

    mean, square = float(differences.mean()), float((differences**2).mean())
    if mean <= 0:
        return None
    error, missed = (float(norm.isf(chance)) for chance in (alpha / 2, 1 - _POWER))
    spread = error * math.sqrt(square) + missed * math.sqrt(max(0.0, square - mean**2))
    return math.ceil((spread / mean) ** 2)


def climb(current: str, rights: Mapping[str, IntArray], repeats: int, alpha: float) -> Climb:
    """Step to the lightest heavier rung that is surely better, while there is one; else to a surely better lighter one.

    Args:
        current: name of the current rung.
        rights: of each rung, lightest first, how often each text was answered right, `(n,)`.
        repeats: how often each was asked.
        alpha: error probability of all comparisons with one rung together.
    """
    order, rounds = list(rights), []
    while True:
        found = _beside(current, rights, repeats, alpha)
        rounds.append(found)
        better = [one for one in found if one.verdict == "better"]
        heavier = [one.rung for one in better if order.index(one.rung) > order.index(current)]
        if heavier:
            current = heavier[0]
        elif better:
            current = max(better, key=lambda one: one.right).rung
        else:
            return Climb(current, tuple(rounds))


def _beside(current: str, rights: Mapping[str, IntArray], repeats: int, alpha: float) -> tuple[Against, ...]:
    others = {name: counts - rights[current] for name, counts in rights.items() if name != current}
    raw = {name: sign_flip(difference) for name, difference in others.items()}
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    n, found = len(rights[current]), []
    for name, difference in others.items():
        told = adjusted[name] <= alpha
        verdict = "undecided" if not told else "better" if difference.sum() > 0 else "worse"
        needed = None if told else texts_to_tell(difference, alpha / len(others))
        found.append(
            Against(
                rung=name,
                current=current,
                right=float(rights[name].mean() / repeats),
                current_right=float(rights[current].mean() / repeats),
                wins=int((difference > 0).sum()),
                losses=int((difference < 0).sum()),
                p=raw[name],
                p_adjusted=adjusted[name],
                verdict=verdict,
                more_texts=None if needed is None else max(1, needed - n),
            )
        )
    return tuple(found)
