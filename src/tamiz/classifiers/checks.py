"""The contract of a classifier, as checks that run over every family.

`check_classifier` is public: a family from outside can be judged with it too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers.occlusion import occlude
from tamiz.types import Classifier, Explains, Task

__all__ = ["CHECKS", "Make", "check_classifier", "examples"]

Make = Callable[[Sequence[str], Task, int], Classifier]
"""Makes an unfitted classifier from labels, task and seed."""

_TOPICS = {
    "food": "bread soup cheese apple salt butter kitchen dinner taste oven",
    "sport": "goal match team ball coach league score stadium referee player",
    "money": "bank loan credit interest account debt payment market share price",
}
_ODD_TEXTS = [
    "",
    " ",
    "\u0442\u0435\u043a\u0441\u0442 \u0431\u0435\u0437 \u0441\u043b\u043e\u0432",
    "\u6f22\u5b57",
    "\U0001f600\U0001f600",
    "a" * 5000,
    "\u0627\u0644\u0646\u0635",
]
_TOLERANCE = 1e-9  # where a family declares none


def examples(task: Task, n: int = 90, seed: int = 0) -> tuple[list[str], NDArray[Any], tuple[str, ...]]:
    """Make `n` short texts with targets of the task and their labels."""
    rng = np.random.default_rng(seed)
    labels = tuple(sorted(_TOPICS))[: 2 if task is Task.BINARY else 3]
    words = [_TOPICS[label].split() for label in labels]
    targets: NDArray[Any]
    if task is Task.MULTI_LABEL:
        targets = rng.random((n, len(labels))) < 0.5
        pools = [[w for has, ws in zip(row, words, strict=True) if has for w in ws] or ["the", "of"] for row in targets]
    else:
        targets = np.arange(n) % len(labels)
        pools = [words[label] for label in targets]
    texts = [" ".join(["the", *rng.choice(pool, 8).tolist(), "of"]) for pool in pools]
    return texts, targets, labels


class _Case:
    """A fitted classifier with what it learnt from."""

    def __init__(self, make: Make, task: Task) -> None:
        self.make, self.task = make, task
        self.texts, self.targets, self.labels = examples(task)
        self.classifier = self.fitted()

    @property
    def tolerance(self) -> float:
        """How far a text's probabilities may move with the texts beside it."""
        return float(getattr(self.classifier, "tolerance", _TOLERANCE))

    def fitted(self) -> Classifier:
        return self.make(self.labels, self.task, 0).fit(self.texts, self.targets)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def check_fit_returns_itself(case: _Case) -> None:
    """`fit` returns the object itself, with labels and task as given."""
    new = case.make(case.labels, case.task, 0)
    _require(new.fit(case.texts, case.targets) is new, "fit returns something else than itself")
    _require(new.labels == case.labels and new.task is case.task, "fit changed labels or task")


def check_valid_probabilities(case: _Case) -> None:
    """Probabilities are float64 `(n, k)`, finite, in 0..1, and sum to one unless the task is multi-label."""
    p = case.classifier.predict_proba(case.texts)
    _require(p.shape == (len(case.texts), len(case.labels)), f"shape {p.shape}")
    _require(p.dtype == np.float64, f"dtype {p.dtype}")
    _require(bool(np.isfinite(p).all() and (p >= 0).all() and (p <= 1).all()), "values outside 0..1")
    if case.task is not Task.MULTI_LABEL:
        _require(bool(np.allclose(p.sum(axis=1), 1)), "rows do not sum to one")


def check_permutation(case: _Case) -> None:
    """Permuted texts give permuted rows."""
    order = np.random.default_rng(1).permutation(len(case.texts))
    p = case.classifier.predict_proba(case.texts)
    permuted = case.classifier.predict_proba([case.texts[i] for i in order])
    _require(bool(np.allclose(permuted, p[order], atol=case.tolerance)), "rows depend on the order of the texts")


def check_batch_equals_single(case: _Case) -> None:
    """A text's row is the same alone and among others, long and odd ones included."""
    texts = [*case.texts[:20], *_ODD_TEXTS]
    together = case.classifier.predict_proba(texts)
    alone = np.vstack([case.classifier.predict_proba([text]) for text in texts])
    _require(bool(np.allclose(together, alone, atol=case.tolerance)), "rows depend on the texts beside them")


def check_empty_list(case: _Case) -> None:
    """No text gives no row."""
    _require(case.classifier.predict_proba([]).shape == (0, len(case.labels)), "the empty list does not give (0, k)")


def check_odd_texts(case: _Case) -> None:
    """Empty, very long and unseen-script texts get valid rows."""
    p = case.classifier.predict_proba(_ODD_TEXTS)
    _require(bool(np.isfinite(p).all()), "an odd text gave a row that is not finite")


def check_save_and_load(case: _Case) -> None:
    """A saved and loaded classifier answers identically, and no file of it is a pickle."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.classifier.save(folder)
        loaded = type(case.classifier).load(folder)
        _require(loaded.labels == case.labels and loaded.task is case.task, "labels or task differ after loading")
        before, after = (c.predict_proba([*case.texts, *_ODD_TEXTS]) for c in (case.classifier, loaded))
        _require(np.array_equal(before, after), "answers differ after loading")
        for path in folder.rglob("*"):
            _require(path.is_dir() or path.read_bytes()[:2] not in (b"\x80\x04", b"\x80\x05"), f"{path.name}: a pickle")


def check_inputs_unchanged(case: _Case) -> None:
    """Texts and targets are not changed by `fit`."""
    texts, targets = list(case.texts), case.targets.copy()
    case.make(case.labels, case.task, 0).fit(texts, targets)
    _require(texts == case.texts and np.array_equal(targets, case.targets), "fit changed its inputs")


def check_seeded_runs_repeat(case: _Case) -> None:
    """The same data and seed give exactly the same answers."""
    p = case.classifier.predict_proba(case.texts)
    _require(np.array_equal(case.fitted().predict_proba(case.texts), p), "two runs with one seed differ")


def check_explanation_adds_up(case: _Case) -> None:
    """Base and contributions sum to the score, and spans lie in the text, in order; also where words are left out."""
    explain = case.classifier.explain if isinstance(case.classifier, Explains) else partial(occlude, case.classifier)
    for text in [case.texts[0], "", "UNSEEN words only?!", case.texts[1] + " \u0442\u0435\u043a\u0441\u0442"]:
        for label in range(len(case.labels)):
            found = explain(text, label)
            total = found.base + sum(c.value for c in found.contributions)
            _require(abs(total - found.score) < 1e-6, "contributions do not sum to the score")
            _require(all(0 <= c.start < c.end <= len(text) for c in found.contributions), "a span leaves the text")
            starts = [c.start for c in found.contributions]
            _require(starts == sorted(starts), "spans are not in text order")
            _require(found.label == case.labels[label], "another label is explained")


CHECKS: tuple[Callable[[_Case], None], ...] = (
    check_fit_returns_itself,
    check_valid_probabilities,
    check_permutation,
    check_batch_equals_single,
    check_empty_list,
    check_odd_texts,
    check_save_and_load,
    check_inputs_unchanged,
    check_seeded_runs_repeat,
    check_explanation_adds_up,
)


def check_classifier(make: Make, tasks: Sequence[Task] = tuple(Task)) -> Iterator[str]:
    """Run every check for every task and yield the names of those that passed.

    Raises:
        AssertionError: the first check that fails, with what it found.
    """
    for task in tasks:
        case = _Case(make, task)
        for check in CHECKS:
            check(case)
            yield f"{check.__name__}[{task}]"
