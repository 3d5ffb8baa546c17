"""Speed of zero-shot answers: pairs of text and label beside Transformers' pipeline, and vectors as labels grow.

The weights of the entailment model are MiniLM's with a random head: its answers mean nothing, its speed is that of any
model of this shape, and both sides give the same scores.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.datasets import project_of, read
from benchmarks.heads import HIDDEN, write_classifier
from benchmarks.record import Board, Figure, Goal, Outcome, say
from tamiz.classifiers.zero_shot import ZeroShotClassifier
from tamiz.types import FloatArray, Task

__all__ = ["measure"]

_EXAMPLE = "complaints"
_LABELS = (
    "mortgages",
    "student loans",
    "credit cards",
    "credit reports",
    "debt collection",
    "bank accounts",
    "money transfers",
    "vehicle loans",
    "identity theft",
    "hidden fees",
)
_NLI = ("contradiction", "neutral", "entailment")
_FORMS = ("int8", "fp32")
_BATCH_SIZES = (32, 1)
_THREADS, _REPEATS = 2, 2
_MOST_TEXTS, _MOST_EMBEDDED = 100, 1_000
_GROWING = (10, 100, 1_000, 10_000)
_PEER = "transformers.pipeline('zero-shot-classification'), fp32, batch size"
_HEADINGS = ["what", "texts/s", "pairs/s", "x batch size 32", "largest difference of a score"]


@dataclass
class _Run:
    """One way to answer, its best time and its scores `(n, k)` in the order of the labels."""

    name: str
    answer: Callable[[], FloatArray]
    seconds: float = float("inf")
    found: FloatArray | None = None


def measure(options: dict[str, Any]) -> Outcome:
    """Measure `entailment` and `embedding`, or what `parts` names; two threads on either side, taking turns."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parts = options["parts"] or ("entailment", "embedding")
    most = min(options["sizes"])
    texts = _texts(max(_MOST_TEXTS, _MOST_EMBEDDED))
    figures: list[Figure] = []
    boards: list[Board] = []
    details: dict[str, Any] = {}
    for part, measured, size in (
        ("entailment", _entailment, _MOST_TEXTS),
        ("embedding", _embedding, _MOST_EMBEDDED),
    ):
        if part in parts:
            found = measured(texts[: min(size, most)])
            figures += found.figures
            boards += found.boards
            details[part] = found.details
    return Outcome(figures, details, boards)


def _texts(count: int) -> list[str]:
    """Return complaints of all lengths, drawn at random."""
    texts = read(project_of(_EXAMPLE)).texts
    return [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:count]]


# --- entailment


def _entailment(texts: Sequence[str]) -> Outcome:
    with TemporaryDirectory() as scratch:
        folder = _with_head(Path(scratch) / "nli")
        runs = [*(_ours(folder, form, texts) for form in _FORMS), *_pipelines(folder, texts)]
        for _ in range(_REPEATS):
            for run in runs:
                start = time.perf_counter()
                run.found = run.answer()
                run.seconds = min(run.seconds, time.perf_counter() - start)
                say(f"{run.name}: {len(texts) / run.seconds:.2f} texts/s")
    by_name = {run.name: run for run in runs}
    rows = [_row(run, by_name[f"pipeline, {_BATCH_SIZES[0]}"], len(texts)) for run in runs]
    speeds = {row["what"]: row["texts_per_s"] for row in rows}
    figures = [
        Figure(
            f"entailment, {form}, {len(_LABELS)} labels",
            "texts/s",
            speeds[form],
            speeds[f"pipeline, {size}"],
            f"{_PEER} {size}",
            Goal(">=", 4, ratio=True) if (form, size) == (_FORMS[0], _BATCH_SIZES[0]) else None,
        )
        for form, size in product(_FORMS, _BATCH_SIZES)
    ]
    fp32 = next(row for row in rows if row["what"] == "fp32")
    figures.append(Figure("entailment, fp32: largest difference of a score", "", fp32["shift"], goal=Goal("<=", 1e-5)))
    title = f"entailment: {len(texts)} texts of {_EXAMPLE}, {len(_LABELS)} labels, {_THREADS} threads"
    return Outcome(figures, {"rows": rows}, [Board(title, _HEADINGS, [_cells(row) for row in rows])])


def _with_head(folder: Path) -> Path:
    """Write MiniLM with a random head as a `BertForSequenceClassification`."""
    weight = np.random.default_rng(0).normal(0, 0.5, (len(_NLI), HIDDEN)).astype(np.float32)
    config = write_classifier(folder, weight, np.zeros(len(_NLI)), _NLI)
    about = {"tokenizer_class": "BertTokenizer", "model_max_length": config["max_position_embeddings"]}
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, **names}), encoding="utf-8")
    return folder


def _ours(folder: Path, form: str, texts: Sequence[str]) -> _Run:
    params: dict[str, Any] = {"method": "entailment", "model": str(folder), "form": form, "num_threads": _THREADS}
    classifier = ZeroShotClassifier(_LABELS, Task.MULTI_CLASS, **params).prepare()
    return _Run(form, lambda: classifier.predict_proba(texts))


def _pipelines(folder: Path, texts: Sequence[str]) -> list[_Run]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    torch.set_num_threads(_THREADS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    peer = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer, device="cpu")

    def answer(size: int) -> FloatArray:
        given = peer(list(texts), list(_LABELS), batch_size=size)
        found = [dict(zip(one["labels"], one["scores"], strict=True)) for one in given]
        return np.array([[one[label] for label in _LABELS] for one in found])

    return [_Run(f"pipeline, {one}", lambda one=one: answer(one)) for one in _BATCH_SIZES]  # type: ignore[misc]


def _row(run: _Run, peer: _Run, texts: int) -> dict[str, Any]:
    assert run.found is not None
    assert peer.found is not None
    return {
        "what": run.name,
        "texts_per_s": texts / run.seconds,
        "ratio": peer.seconds / run.seconds,
        "shift": float(np.abs(run.found - peer.found).max()),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    speed = row["texts_per_s"]
    return [row["what"], f"{speed:.2f}", f"{speed * len(_LABELS):.1f}", f"{row['ratio']:.2f}", f"{row['shift']:.1e}"]


# --- embedding


def _embedding(texts: Sequence[str]) -> Outcome:
    """Measure how the number of labels tells; their vectors are computed before, as they are kept."""
    words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()})
    labels = [f"{one} {other}" for one, other in product(words, words)]
    drawn = np.random.default_rng(0).permutation(len(labels))
    params: dict[str, Any] = {"form": "int8", "num_threads": _THREADS}
    first = ZeroShotClassifier(("yes", "no"), Task.MULTI_CLASS, **params).prepare()
    asked = [first.with_labels([labels[place] for place in drawn[:count]]) for count in _GROWING]
    preparing, best = [], [float("inf")] * len(asked)
    for one in asked:
        start = time.perf_counter()
        one.predict_proba(texts[:1])
        preparing.append(time.perf_counter() - start)
    for _ in range(_REPEATS):
        for place, one in enumerate(asked):
            start = time.perf_counter()
            one.predict_proba(texts)
            best[place] = min(best[place], time.perf_counter() - start)
            say(f"embedding, {len(one.labels)} labels: {len(texts) / best[place]:.1f} texts/s")
    speeds = [len(texts) / seconds for seconds in best]
    rows = [
        {"labels": count, "texts_per_s": speed, "label_s": seconds}
        for count, speed, seconds in zip(_GROWING, speeds, preparing, strict=True)
    ]
    cells = [[f"{row['labels']:,}", f"{row['texts_per_s']:.1f}", f"{row['label_s']:.2f}"] for row in rows]
    figure = Figure(
        f"embedding, int8, {_GROWING[-1]:,} labels",
        "texts/s",
        speeds[-1],
        speeds[0],
        f"embedding with {_GROWING[0]} labels",
        Goal(">=", 0.5, ratio=True),
    )
    title = f"embedding: {len(texts)} texts of {_EXAMPLE}, minilm in 8 bits, {_THREADS} threads"
    board = Board(title, ["labels", "texts/s", "s for new labels, once"], cells)
    return Outcome([figure], {"rows": rows}, [board])
