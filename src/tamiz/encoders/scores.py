"""What models of the catalogue are worth without training, and the data sets they were trained on."""

from __future__ import annotations

__all__ = ["MEASURED", "SEEN", "SOURCE", "scores_of"]

SOURCE = "test parts, labels in words, neither adapted nor corrected; python -m benchmarks zero_shot measures them anew"
"""Where the scores come from."""

MEASURED: dict[str, dict[str, float]] = {
    "minilm": {
        "agnews": 0.76,
        "banking77": 0.65,
        "clinc150": 0.74,
        "imdb": 0.72,
        "newsgroups": 0.64,
        "noticias_es": 0.21,
        "resolutions": 0.29,
    },
    "e5-small": {"agnews": 0.74, "banking77": 0.59, "clinc150": 0.71, "noticias_es": 0.41, "resolutions": 0.23},
    "tamiz-zero-shot": {"agnews": 0.79, "banking77": 0.69, "imdb": 0.75, "noticias_es": 0.18, "resolutions": 0.32},
    "tamiz-zero-shot-multilingual": {
        "agnews": 0.80,
        "banking77": 0.65,
        "imdb": 0.76,
        "noticias_es": 0.57,
        "resolutions": 0.30,
    },
}
"""Accuracy without any training, by model and data set."""

SEEN: dict[str, tuple[str, ...]] = {
    "tamiz-zero-shot": ("newsgroups", "clinc150", "movies"),
    "tamiz-zero-shot-multilingual": ("newsgroups", "clinc150", "movies"),
}
"""Data sets whose texts or labels were used to train a model: its scores on these are not zero-shot."""


def scores_of(name: str) -> dict[str, float]:
    """Return the zero-shot accuracy of a model by data set, without the sets it was trained on."""
    seen = SEEN.get(name, ())
    return {data_set: accuracy for data_set, accuracy in MEASURED.get(name, {}).items() if data_set not in seen}
