"""Move the vectors of labels towards the texts that they are nearest to; no label of a text is looked at.

A sentence about a label lies elsewhere than texts do, and its words say little. What is compared are therefore
directions: how a label departs from the mean of all labels, and how its texts depart from the mean of all texts.
"""

from __future__ import annotations

import numpy as np

from tamiz.classifiers.base import softmax
from tamiz.types import FloatArray

__all__ = ["KEPT", "adapted", "unit"]

KEPT = 0.5
"""Share of a label's own direction that is kept.

From 0.4 to 0.6, one step or two, and whatever the temperature, accuracy came out alike on complaints (5 categories, 17
products), film snippets and film genres, 3 to 4 points above that without; more steps lost the labels' meaning. A
mixture of Gaussians with shares of labels, fitted by expectation maximisation, was another point better there and worse
elsewhere, above all with many labels.
"""

_LEAST = np.finfo(np.float64).tiny  # what all texts may belong to a label that none is near to


def adapted(labels: FloatArray, texts: FloatArray, *, temperature: float) -> FloatArray:
    """Return the vectors of labels, moved; as far from their mean as before, so that a temperature still suits them.

    Args:
        labels: vectors of length one, `(k, d)`.
        texts: vectors of texts without labels, `(n, d)`.
        temperature: by which cosines are divided to tell to which labels a text belongs, and how much.

    Source: Ren et al. (2018), "Meta-learning for semi-supervised few-shot classification", section 3.1.1 (one step of
    soft k-means from given prototypes), of directions rather than vectors.
    """
    belongs = softmax(texts @ labels.T / temperature)
    means = belongs.T @ texts / np.maximum(belongs.sum(axis=0), _LEAST)[:, None]
    middle = labels.mean(axis=0)
    departures = labels - middle
    mixed = KEPT * unit(departures) + (1 - KEPT) * unit(means - texts.mean(axis=0))
    return unit(middle + np.linalg.norm(departures, axis=1, keepdims=True) * unit(mixed))


def unit(vectors: FloatArray) -> FloatArray:
    """Return vectors `(n, d)` with a length of one; zero stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
