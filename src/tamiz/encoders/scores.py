"""What models of the catalogue are worth without training, and the data sets they were trained on."""

from __future__ import annotations

__all__ = ["MEASURED", "SEEN", "SOURCE", "scores_of"]

SOURCE = "python -m benchmarks zero_shot"
"""Where the scores come from: rows of the sets' test parts, labels described, 8-bit form, no correction."""

MEASURED: dict[str, dict[str, float]] = {
    "minilm": {},
    "e5-small": {},
}
"""Accuracy without any training, by model and data set."""

SEEN: dict[str, tuple[str, ...]] = {"minilm": (), "e5-small": ()}
"""Data sets whose texts or labels were used to train a model: its scores on these are not zero-shot."""


def scores_of(name: str) -> dict[str, float]:
    """Return the zero-shot accuracy of a model by data set, without the sets it was trained on."""
    seen = SEEN.get(name, ())
    return {data_set: accuracy for data_set, accuracy in MEASURED.get(name, {}).items() if data_set not in seen}
