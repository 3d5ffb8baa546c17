"""Explanations for any classifier: leave parts of the text out, one at a time, and see how far the score moves.

For families without an exact explanation. A word's value is what the score loses without it. Where time or passes do
not suffice for every word, stretches of neighbouring words are left out first, then the single words of those that
moved the score most.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

import numpy as np

from tamiz.types import Classifier, Contribution, Explanation, FloatArray, Task

__all__ = ["BUDGET_MS", "PASSES", "occlude"]

BUDGET_MS = 2000.0
PASSES = 400

_BATCH = 32  # texts asked at once: few, so that the time is kept to
_LEAST = 1e-12
_DUST = 1e-4  # what the batch may do to the log-odds of encoders
# Scripts that write no spaces have a word of each character.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD_OR_MARKS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]+")
_SENTENCE_ENDS = re.compile(r"[.!?\n\u3002\uff01\uff1f]")

Span = tuple[int, int]
Part = list[Span]


def occlude(
    classifier: Classifier, text: str, label: int, *, budget_ms: float = BUDGET_MS, passes: int = PASSES
) -> Explanation:
    """Explain the log-odds of a label by what they lose when a word, or a stretch of words, is left out.

    The values are those of single changes and need not add up by themselves; the base holds the remainder. It is what
    no single part accounts for: the score of an empty text, what words say only together or several of them say
    alike, and parts that there was no budget to try.

    Args:
        classifier: any fitted classifier.
        text: a text as the classifier reads it.
        label: which of its labels.
        budget_ms: time to spend after the whole text was asked for, which may load what the classifier needs; the
            batch under way when it ends is finished.
        passes: most texts to ask the classifier, besides the whole one.

    Source: Li, Monroe & Jurafsky (2016), "Understanding neural networks through representation erasure", section 3.
    """
    scores = _Scores(classifier, label, budget_ms / 1000, passes)
    whole = scores.of(text)
    words = [match.span() for match in _WORD_OR_MARKS.finditer(text)]
    if scores.too_slow_for(len(words)):
        scores.time_again(text)
    room = scores.affordable()
    if len(words) <= room:
        left_out = dict(zip(words, scores.without(text, words), strict=False))
    else:
        left_out = _coarse_to_fine(scores, text, _parts(text, words, most=max(room // 2, 1)), whole)
    values = {span: whole - score for span, score in left_out.items() if abs(whole - score) > _DUST}
    contributions = tuple(Contribution(start, end, value) for (start, end), value in sorted(values.items()))
    rest = whole - sum(c.value for c in contributions)
    return Explanation(classifier.labels[label], base=rest, score=whole, contributions=contributions)


class _Scores:
    """Log-odds of a label, for as long as time and passes last."""

    def __init__(self, classifier: Classifier, label: int, budget_s: float, passes: int) -> None:
        self._classifier, self._label = classifier, label
        self._budget_s, self._ends_s = budget_s, 0.0
        self._left = passes
        self._each_s = 0.0

    def of(self, text: str) -> float:
        """Return the score of the whole text, which no budget forbids; the time begins after it."""
        score = float(self._ask([text])[0])
        self._ends_s = time.perf_counter() + self._budget_s
        return score

    def too_slow_for(self, count: int) -> bool:
        """Tell whether the time, rather than the passes, allows fewer texts than `count`."""
        return self._in_time() < min(self._left, count)

    def time_again(self, text: str) -> None:
        """Take the time of a text anew: the first one may have waited for something to be loaded."""
        if self._budget_s > 0:
            self._left -= 1
            self._ask([text])

    def affordable(self) -> int:
        """Return how many texts may still be asked, as far as the time of the last ones tells."""
        return min(self._left, self._in_time())

    def _in_time(self) -> int:
        return max(0, int((self._ends_s - time.perf_counter()) / self._each_s))

    def without(self, text: str, spans: Sequence[Span]) -> Iterator[float]:
        """Yield the score of the text without each span, in order; fewer than there are spans when the budget ends."""
        done = 0
        while done < len(spans) and (room := min(self.affordable(), _BATCH)):
            batch = spans[done : done + room]
            done += len(batch)
            self._left -= len(batch)
            yield from self._ask([text[:start] + text[end:] for start, end in batch]).tolist()

    def _ask(self, texts: Sequence[str]) -> FloatArray:
        begun_s = time.perf_counter()
        p = self._classifier.predict_proba(texts)
        self._each_s = max((time.perf_counter() - begun_s) / len(texts), 1e-9)
        return _log_odds(p, self._label, self._classifier.task)


def _log_odds(p: FloatArray, label: int, task: Task) -> FloatArray:
    """Return the log-odds of a label against all others; others are summed, for `1 - p` has few digits near one."""
    own = p[:, label]
    others = 1.0 - own if task is Task.MULTI_LABEL else np.delete(p, label, axis=1).sum(axis=1)
    return np.asarray(np.log(np.maximum(own, _LEAST)) - np.log(np.maximum(others, _LEAST)))


def _coarse_to_fine(scores: _Scores, text: str, parts: Sequence[Part], whole: float) -> dict[Span, float]:
    """Return scores without each part, and without each word instead in the parts that move the score most."""
    spans = [(part[0][0], part[-1][1]) for part in parts]
    left_out = dict(zip(spans, scores.without(text, spans), strict=False))
    for place in sorted(range(len(left_out)), key=lambda place: -abs(left_out[spans[place]] - whole)):
        words = parts[place]
        if len(words) == 1:
            continue
        found = list(scores.without(text, words)) if len(words) <= scores.affordable() else []
        if len(found) < len(words):
            break
        del left_out[spans[place]]
        left_out.update(zip(words, found, strict=True))
    return left_out


def _parts(text: str, words: Sequence[Span], *, most: int) -> list[Part]:
    """Return about `most` stretches of neighbouring words, at most twice as many, that end with a sentence if they can.

    Short sentences are joined and long ones cut.
    """
    size = -(-len(words) // most)
    parts: list[Part] = []
    part: Part = []
    for place, word in enumerate(words):
        part.append(word)
        last = place == len(words) - 1
        gap_end = len(text) if last else words[place + 1][0]
        ends = _SENTENCE_ENDS.search(text, word[0], gap_end) is not None
        if last or len(part) >= size or (ends and 2 * len(part) >= size):
            parts.append(part)
            part = []
    return parts
