"""Which texts to label next: some at random, to measure by; the others unsure ones that differ from each other.

Source:
    Uncertainty by margin: Settles (2009), Active Learning Literature Survey, section 3.1. Uncertain and diverse at once
    by k-means++ seeding: Ash, Zhang, Krishnamurthy, Langford, Agarwal (2020), Deep Batch Active Learning by Diverse,
    Uncertain Gradient Lower Bounds (BADGE); here over the encoder's embeddings, weighted by uncertainty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tamiz.decision import DecisionRule
from tamiz.model import Model
from tamiz.pipeline.ladder_state import NONE, Batch, State, Suggestion, place_of
from tamiz.types import FloatArray, Progress, Task

__all__ = ["FEWEST", "Embed", "answered", "suggest", "uncertainty"]

FEWEST = 2
"""Texts a label needs before anything can learn it and be measured."""

_CONSIDERED = 1000  # texts whose uncertainty is looked at for one batch
_FRESH = 250  # of them that were not looked at for the batch before: an encoder remembers what it has read
_SHORTLIST, _PART = 10, 4  # times as many as are picked, and at most such a part: the most uncertain
_CHUNK = 200
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def uncertainty(probabilities: FloatArray, task: Task) -> FloatArray:
    """Return 0 (sure) to 1 of each text: one less the margin of the two best labels; multi-label: of the least sure.

    Args:
        probabilities: `(n, k)`, two labels or more.
        task: what kind of answer is given.
    """
    if task is Task.MULTI_LABEL:
        return np.asarray((1 - np.abs(2 * probabilities - 1)).max(axis=1))
    best = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(1 - (best[:, 1] - best[:, 0]))


def answered(model: Model, texts: Sequence[str], progress: Progress | None = None) -> FloatArray:
    """Return probabilities `(n, k)` of raw texts, and tell how far it is."""
    parts = [np.empty((0, len(model.labels)))]
    for start in range(0, len(texts), _CHUNK):
        parts.append(model.predict_proba(texts[start : start + _CHUNK]))
        if progress:
            progress(f"asking {model.manifest.candidate or model.manifest.family}", start + len(parts[-1]), len(texts))
    return np.vstack(parts)


def suggest(
    state: State,
    texts: Sequence[str],
    model: Model,
    embed: Embed,
    *,
    told: Callable[[], Model] | None = None,
    progress: Progress | None = None,
) -> Batch:
    """Choose the next batch: fewer texts than asked for only where no more are left.

    Texts drawn at random that were left blank come again, so that the sample stays random. Of the others, some are
    those most likely to have a label that has too few, and the rest are unsure ones that differ from each other.

    Args:
        state: what is known.
        texts: all texts.
        model: that of the rung.
        embed: gives vectors `(n, d)` of raw texts.
        told: gives a model that knows labels by their names, and so those of which nothing could be learnt yet.
        progress: told how far it is.
    """
    number, known = len(state.batches) + 1, state.current()
    drawn, rest = state.sides()
    wanted = max(1, round(state.size * state.random_share))
    random = [id_ for id_ in drawn if id_ not in known][:wanted]
    left = [id_ for id_ in rest if id_ not in known]
    first = _FRESH * len(state.batches) % max(1, len(left))
    pool = [*left[first:], *left[:first]][:_CONSIDERED]
    said = answered(model, [texts[place_of(id_)] for id_ in (*random, *pool)], progress)
    count = min(state.size - len(random), len(pool))
    found: dict[str, str] = {}
    if count > 0 and (lacking := _lacking(state)):
        known_by_name = told() if told else model
        likely = said[len(random) :]
        if known_by_name is not model:
            likely = answered(known_by_name, [texts[place_of(id_)] for id_ in pool], progress)
        found = _likely(state, pool, likely, lacking, count // 2)
    reasons = _picked(state, pool, said[len(random) :], count, found, texts, embed)
    about = dict(zip((*random, *pool), said, strict=True))
    why = {**dict.fromkeys(random, "drawn at random"), **reasons}
    rows = [_suggestion(state, id_, about[id_], reason, random=id_ not in reasons) for id_, reason in why.items()]
    return Batch(number, len(state.labelled), tuple(rows))


def _suggestion(state: State, id_: str, probabilities: FloatArray, why: str, *, random: bool) -> Suggestion:
    if state.task is not Task.MULTI_LABEL:
        best = int(probabilities.argmax())
        return Suggestion(id_, random, state.labels[best], float(probabilities[best]), why)
    chosen = np.flatnonzero(DecisionRule(state.task).decide(probabilities[None])[0]).tolist()
    sure = np.abs(probabilities - 0.5) + 0.5
    hint = ",".join(state.labels[place] for place in chosen) or NONE
    return Suggestion(id_, random, hint, float(sure.min()), why)


def _picked(
    state: State,
    pool: Sequence[str],
    said: FloatArray,
    count: int,
    found: dict[str, str],
    texts: Sequence[str],
    embed: Embed,
) -> dict[str, str]:
    """Return the reason for each text that is picked, those that were found before among them."""
    if count <= 0:
        return {}
    unsure = uncertainty(said, state.task)
    order = [place for place in (-unsure).argsort(kind="stable").tolist() if pool[place] not in found]
    missing = count - len(found)
    short = order[: max(missing, min(_SHORTLIST * missing, len(order) // _PART))]
    chosen = list(range(len(short)))
    if len(short) > missing:
        vectors = embed([texts[place_of(pool[place])] for place in short])
        chosen = _diverse(vectors, unsure[short], missing, (state.seed, len(state.batches)))
    for place in [short[one] for one in chosen]:
        found[pool[place]] = _doubt(state, said[place])
    return found


def _doubt(state: State, probabilities: FloatArray) -> str:
    if state.task is Task.MULTI_LABEL:
        return f"unsure about {state.labels[int(np.abs(probabilities - 0.5).argmin())]}"
    second, first = probabilities.argsort(kind="stable")[-2:].tolist()
    return f"unsure between {state.labels[first]} and {state.labels[second]}"


def _lacking(state: State) -> list[tuple[int, int]]:
    """Return number of texts and place of each label that has too few, the rarest first."""
    counts = dict.fromkeys(state.labels, 0)
    for one in state.current().values():
        for label in one.labels:
            counts[label] += 1
    return sorted((count, place) for place, count in enumerate(counts.values()) if count < FEWEST)


def _likely(
    state: State, pool: Sequence[str], said: FloatArray, lacking: Sequence[tuple[int, int]], most: int
) -> dict[str, str]:
    """Return the texts most likely to have a label that has too few, one a label in turn."""
    ranked = {place: iter((-said[:, place]).argsort(kind="stable").tolist()) for _, place in lacking}
    found: dict[str, str] = {}
    for turn in range(FEWEST):
        for count, place in lacking:
            if len(found) >= most or count + turn >= FEWEST:
                continue
            best = next((one for one in ranked[place] if pool[one] not in found), None)
            if best is not None:
                found[pool[best]] = f"perhaps {state.labels[place]}, which has few texts"
    return found


def _diverse(vectors: NDArray[np.float32], unsure: FloatArray, count: int, seed: tuple[int, int]) -> list[int]:
    """Return places of vectors that are far from each other, uncertain ones rather than others."""
    from sklearn.cluster import kmeans_plusplus

    weights = np.maximum(unsure, 1e-6)
    state = np.random.RandomState(np.random.SeedSequence(seed).generate_state(1)[0])
    _, places = kmeans_plusplus(np.asarray(vectors, np.float64), count, sample_weight=weights, random_state=state)
    chosen = list(dict.fromkeys(int(place) for place in places))
    for place in range(len(vectors)):  # equal vectors may be drawn twice: the most uncertain take their place
        if len(chosen) >= count:
            break
        if place not in chosen:
            chosen.append(place)
    return chosen
