"""Which rows make each step: one source a step, drawn by weight; a pure function of the seed and the step's number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.zero_shot.sources import LabelledSet, NliPairs

__all__ = ["Batch", "Mixture"]

_POOL = 8  # batches' worth of rows that are sorted by length together
_MOST_LABELS = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns.

    Attributes:
        source: name of the set, or `nli`.
        texts: of one side.
        sentences: of the other.
        right: which sentences belong to which text, `(texts, sentences)`.
        both_ways: whether sentences must find their texts, too.
    """

    source: str
    texts: list[str]
    sentences: list[str]
    right: NDArray[np.bool_]
    both_ways: bool


class Mixture:
    """Draws batches.

    Args:
        sets: labelled sets.
        nli: pairs; None for none.
        near: of each set, its labels by nearness to each, `(k, k)` places, nearest first.
        seed: of all draws.
        batch: texts of a labelled set a step.
        nli_batch: premises a step.
        nli_weight: how often NLI pairs are drawn, relative to the weights of the sets.
    """

    def __init__(
        self,
        sets: Sequence[LabelledSet],
        nli: NliPairs | None,
        near: Sequence[NDArray[np.int64]],
        *,
        seed: int,
        batch: int = 32,
        nli_batch: int = 64,
        nli_weight: float = 4.0,
    ) -> None:
        self._sets, self._nli, self._near, self._seed = list(sets), nli, list(near), seed
        self._batch, self._nli_batch = batch, nli_batch
        weights = np.array([one.weight for one in self._sets] + ([nli_weight] if nli else []))
        self._shares = weights / weights.sum()
        self._lengths = [np.array([len(text) for text in one.texts]) for one in self._sets]
        self._chances = [_chances(one) for one in self._sets]
        self._premises = np.array([len(text) for text in nli.premises]) if nli else None

    def shares(self) -> dict[str, float]:
        """Return how often each source is drawn."""
        names = [one.name for one in self._sets] + (["nli"] if self._nli else [])
        return dict(zip(names, self._shares.tolist(), strict=True))

    def draw(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng((self._seed, step))
        source = int(rng.choice(len(self._shares), p=self._shares))
        return self._labelled(source, rng) if source < len(self._sets) else self._pairs(rng)

    def _pairs(self, rng: np.random.Generator) -> Batch:
        assert self._nli is not None  # noqa: S101  # else it is not drawn
        assert self._premises is not None  # noqa: S101
        rows = _alike(self._premises, self._nli_batch, None, rng)
        yes = [_one(self._nli.entailed[row], rng) for row in rows]
        no = [_one(self._nli.contradicted[row], rng) for row in rows if self._nli.contradicted[row]]
        right = np.zeros((len(rows), len(yes) + len(no)), bool)
        right[:, : len(yes)] = np.array(yes)[:, None] == np.array(yes)[None, :]  # one sentence may follow from several
        return Batch("nli", [self._nli.premises[row] for row in rows], yes + no, right, True)

    def _labelled(self, source: int, rng: np.random.Generator) -> Batch:
        chosen = self._sets[source]
        rows = _alike(self._lengths[source], self._batch, self._chances[source], rng)
        answers = [chosen.targets[row] for row in rows]
        labels = _labels(answers, self._near[source], rng)
        place = {label: number for number, label in enumerate(labels.tolist())}
        right = np.zeros((len(rows), len(labels)), bool)
        for number, answer in enumerate(answers):
            right[number, [place[label] for label in answer]] = True
        texts = [chosen.texts[row] for row in rows]
        return Batch(chosen.name, texts, chosen.words.sentences(labels, rng), right, False)


def _one(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _chances(of: LabelledSet) -> NDArray[np.float64]:
    """Return how often each row is drawn: labels by the square root of their frequency."""
    counts = np.bincount([label for answer in of.targets for label in answer], minlength=len(of.labels))
    chances = np.array([counts[list(answer)].mean() ** -0.5 for answer in of.targets])
    return np.asarray(chances / chances.sum())


def _alike(
    lengths: NDArray[np.int64], size: int, chances: NDArray[np.float64] | None, rng: np.random.Generator
) -> list[int]:
    """Draw rows of like length, each at most once."""
    pool = rng.choice(len(lengths), min(len(lengths), size * _POOL), replace=False, p=chances)
    pool = pool[np.argsort(lengths[pool], kind="stable")]
    first = int(rng.integers(max(1, len(pool) // size))) * size
    return [int(row) for row in pool[first : first + size]]


def _labels(answers: Sequence[tuple[int, ...]], near: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return all labels in random order, or the right ones, the nearest to them and others, at most 64."""
    k = len(near)
    if k <= _MOST_LABELS:
        return np.asarray(rng.permutation(k))
    chosen = dict.fromkeys(label for answer in answers for label in answer)
    right = list(chosen)
    for rank in range(1, 3):  # rank 0 is the label itself
        for label in right:
            if len(chosen) < _MOST_LABELS:
                chosen.setdefault(int(near[label, rank]))
    for label in rng.permutation(k).tolist():
        if len(chosen) < _MOST_LABELS:
            chosen.setdefault(label)
    return np.asarray(rng.permutation(list(chosen)))
