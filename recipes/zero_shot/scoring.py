"""Scores of an encoder on labels that it may not have been trained on, through the family that serves it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipes.zero_shot.exporting import nli_quality, read_training
from recipes.zero_shot.sources import LabelledSet, NliPairs
from recipes.zero_shot.training import Encoder
from tamiz.classifiers.zero_shot import ZeroShotClassifier
from tamiz.encoders.find import find
from tamiz.encoders.scores import SEEN
from tamiz.errors import ConfigError
from tamiz.metrics import score
from tamiz.types import FloatArray, IntArray, Task

__all__ = ["evaluate", "measure_of", "trained_on"]

# Not one with benchmarks/zero_shot.py: these words are trained on, those were fixed unseen; neither may know the other.
_TEMPLATE = "This text is about {}."
_LENGTH = 128


def trained_on(model: str) -> set[str] | None:
    """Return the sets that a model was trained on; None where neither its folder nor the catalogue says so."""
    if model in SEEN:
        return set(SEEN[model])
    try:
        return set(read_training(Path(model))["trained_on"])
    except ConfigError:
        return None


def evaluate(
    model: str,
    sets: Iterable[LabelledSet],
    *,
    rows: int = 0,
    form: str = "int8",
    unlabelled: Callable[[str], Sequence[str]] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Return accuracy, macro F1 and texts a second of each set, with the plainest words for its labels.

    Args:
        model: a name of `tamiz models` or a folder.
        sets: test parts, one label a text.
        rows: most texts a set, drawn with seed 0; 0 takes all.
        form: of the weights, as they are served.
        unlabelled: gives texts of a set, by its name, of which 500 are drawn that are not measured, to adapt labels and
            correct the prior; None, or no such text, does neither.
        say: told each result.
    """
    seen, found = trained_on(model), {}
    for one in sets:
        chosen = np.random.default_rng(0).permutation(len(one.texts))[: rows or None]
        texts, targets = [one.texts[row] for row in chosen], np.array([one.targets[row][0] for row in chosen])
        task = Task.MULTI_CLASS if len(one.labels) > 2 else Task.BINARY
        said = dict(zip(one.labels, one.words.first(), strict=True))
        about: dict[str, Any] = {"model": model, "form": form, "descriptions": said, "templates": (_TEMPLATE,)}
        classifier = ZeroShotClassifier(one.labels, task, **about).prepare()
        began = time.perf_counter()
        raw = classifier.predict_proba(texts)
        seconds = time.perf_counter() - began
        result: dict[str, Any] = {
            "rows": len(texts),
            "texts_per_second": len(texts) / seconds,
            "trained_on": None if seen is None else one.name in seen,
            **_figures(one, targets, raw, task),
        }
        measured = set(texts)
        others = [text for text in unlabelled(one.name) if text not in measured] if unlabelled else []
        if others:
            other = ZeroShotClassifier(one.labels, task, **about, adapt="unlabelled", prior="unlabelled").prepare()
            settled = other.settle(others)
            result["adapted"] = _figures(one, targets, settled.predict_proba(texts), task)
        found[one.name] = result
        say(f"{one.name}: accuracy {result['accuracy']:.3f}, macro F1 {result['macro_f1']:.3f}")
    return {"model": model, "form": form, "sets": found}


def _figures(of: LabelledSet, targets: IntArray, probabilities: FloatArray, task: Task) -> dict[str, float]:
    decided = probabilities.argmax(axis=1).astype(np.int64)
    values = score(targets, probabilities, decided, task=task, labels=of.labels)
    return {"accuracy": float((decided == targets).mean()), "macro_f1": float(values["f1_macro"])}


def measure_of(folder: Path, sets: Sequence[LabelledSet], nli: NliPairs, *, rows: int = 500) -> dict[str, float]:
    """Return the figures by which a share of the trained weights is chosen: NLI pairs, and accuracy on sets.

    Args:
        folder: weights in Hugging Face layout.
        sets: sets that the weights were not trained on and that stand in no table.
        nli: pairs of the development part.
        rows: most texts a set.
    """
    encoder = Encoder(find(str(folder)).folder, "fp32")
    figures = {"nli": nli_quality(encoder, nli)}
    for one in sets:
        chosen = np.random.default_rng(0).permutation(len(one.texts))[:rows]
        sentences = [_TEMPLATE.replace("{}", words) for words in one.words.first()]
        cosines = encoder.embed([one.texts[row] for row in chosen], _LENGTH) @ encoder.embed(sentences, _LENGTH).T
        right = [int(best) in one.targets[row] for best, row in zip(cosines.argmax(axis=1), chosen, strict=True)]
        figures[one.name] = float(np.mean(right))
    return figures
