"""Labels by falling score, and the answer of zero-shot pipelines that is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tamiz.types import FloatArray

__all__ = ["ranked", "sequence_answer"]


def ranked(labels: Sequence[str], scores: FloatArray) -> list[tuple[str, float]]:
    """Return labels with their scores `(k,)`, the highest first, equal ones in label order."""
    return sorted(zip(labels, scores.tolist(), strict=True), key=lambda one: -one[1])


def sequence_answer(
    text: str, labels: Sequence[str], probabilities: FloatArray, *, top_k: int | None = None
) -> dict[str, Any]:
    """Return the answer to one text as zero-shot pipelines give it, the highest score first, equal ones in label order.

    Args:
        text: the text as it was asked.
        labels: the labels, `k` of them.
        probabilities: of the labels, `(k,)`.
        top_k: give so many at most.
    """
    best = ranked(labels, probabilities)[:top_k]
    return {"sequence": text, "labels": [label for label, _ in best], "scores": [score for _, score in best]}
