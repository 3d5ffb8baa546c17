"""Correct what a zero-shot model thinks of labels before it has read a text, from texts without labels.

Some labels fit almost any text, others hardly any, for reasons that lie in their words. The correction takes from the
scores of each label what makes its mean probability over many texts the expected one; then scores of different labels
compare, and a threshold means the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tamiz.classifiers.base import sigmoid, softmax
from tamiz.errors import ConfigError, one_of
from tamiz.types import FloatArray

__all__ = ["USUAL_STRENGTH", "expected_shares", "shifts"]

USUAL_STRENGTH = 0.25
"""How much of the correction is made where nothing is known of the shares.

The most that helped both balanced news and unbalanced tweets, on rows apart from those reported.
"""

_ROUNDS = 200
_CLOSE = 1e-9


def expected_shares(labels: Sequence[str], known: Mapping[str, float], *, multi_label: bool) -> FloatArray:
    """Return the expected share of each label, `(k,)`.

    Args:
        labels: labels in order.
        known: shares of some of them.
        multi_label: whether the shares need not sum to one.

    Raises:
        ConfigError: `known` names something that is no label, or its shares leave nothing for the others.
    """
    for name in known:
        if name not in labels:
            raise ConfigError(f"shares: {name!r} is no label; {one_of(name, labels)}")
    k, total = len(labels), sum(known.values())
    others = k - len(known)
    if multi_label:
        rest = 1 / max(k, 2)
    elif not others:
        known = {name: share / total for name, share in known.items()}
        rest = 0.0
    elif total >= 1:
        raise ConfigError(f"shares: they sum to {total:g} and leave nothing for {others} other labels; lower them")
    else:
        rest = (1 - total) / others
    return np.array([known.get(label, rest) for label in labels])


def shifts(
    scores: FloatArray, shares: FloatArray, *, temperature: float, multi_label: bool, strength: float = 1.0
) -> FloatArray:
    """Return what to take from the scores of each label, `(k,)`, so that mean probabilities are the expected shares.

    Args:
        scores: of texts without labels, `(n, k)`.
        shares: expected, `(k,)`; they sum to one unless `multi_label`.
        temperature: by which scores are divided.
        multi_label: whether a sigmoid rather than a softmax makes probabilities of scores.
        strength: 1 meets the shares; less keeps a part of the differences between labels, and takes the level of all
            labels together from the scores in any case.

    Source: Zhou et al. (2024), "Batch calibration: rethinking calibration for in-context learning and prompt
    engineering", equation 5, repeated until the means are met.
    """
    start: FloatArray = scores.mean(axis=0)  # near the end, whatever the height of the scores
    solve = _independent if multi_label else _together
    found = solve(scores, shares, temperature, start)
    return np.asarray(found.mean() + strength * (found - found.mean()))


def _together(scores: FloatArray, shares: FloatArray, temperature: float, start: FloatArray) -> FloatArray:
    """Take from each label what it has too much of, until nothing is left; a common shift changes nothing."""
    found = start
    for _ in range(_ROUNDS):
        means = softmax((scores - found) / temperature).mean(axis=0)
        step = temperature * np.log(np.maximum(means, 1e-300) / shares)
        found = found + step
        if np.abs(step).max() < _CLOSE * temperature:
            break
    return found


def _independent(scores: FloatArray, shares: FloatArray, temperature: float, start: FloatArray) -> FloatArray:
    """Halve the interval that holds each label's shift; mean probabilities fall as the shift grows."""
    reach = np.abs(scores - start).max(axis=0) + temperature * np.abs(np.log(shares / (1 - shares))) + temperature
    low, high = start - reach, start + reach
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        above = sigmoid((scores - middle) / temperature).mean(axis=0) > shares
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)
