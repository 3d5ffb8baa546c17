"""The shot ladder climbed by somebody who labels what it suggests, beside as many texts drawn at random.

The labels that are given are the true ones of training texts. After each batch the model in use answers test rows,
which neither the ladder nor its figures have seen.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.datasets import Labelled, drawn, examples, read, topic
from benchmarks.distilling import teacher_for
from benchmarks.record import Board, Figure, Outcome, say
from benchmarks.zero_shot import words_of
from tamiz.config import CandidateConfig, Project
from tamiz.model import Model
from tamiz.pipeline.evaluate import evaluate
from tamiz.pipeline.ladder import Begin, begin, step
from tamiz.pipeline.ladder_state import Suggestion, place_of, read_state, read_texts
from tamiz.pipeline.train import assemble, fit_classifier
from tamiz.settings import read_project
from tamiz.types import Task

__all__ = ["measure"]

_SETS = {"agnews": 20, "banking77": 77}  # with the texts of a batch
_BATCHES = 8
_TEXTS, _TEST = 2000, 1000
_ENCODER = "minilm"
_HEADINGS = ["labelled texts", "rung", "accuracy (95 %)", "by its own figures", "few_shot on texts at random"]


def measure(options: dict[str, Any]) -> Outcome:
    """Climb on the sets, or those that `parts` names."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    figures, boards, details = [], [], {}
    for name, size in _SETS.items():
        if options["parts"] and name not in options["parts"]:
            continue
        rows, about = _climbed(name, size)
        boards.append(Board(about, _HEADINGS, [_cells(row) for row in rows]))
        details[name] = rows
        last = rows[-1]
        peer = (last["random"], f"few_shot on {last['labelled']} texts at random")
        figures.append(
            Figure(f"{name}, {last['labelled']} texts ({last['rung']}): accuracy", "", last["accuracy"], *peer)
        )
    return Outcome(figures, details, boards)


def _climbed(name: str, size: int) -> tuple[list[dict[str, Any]], str]:
    """Label batch after batch; return what the model in use was worth after each, and a title."""
    project = topic(name)
    train, test = drawn(read(project), _TEXTS), drawn(read(project, project.data.test), _TEST)
    truth = {text: train.labels[target] for text, target in zip(train.texts, train.targets.tolist(), strict=True)}
    model = teacher_for(name)
    zero_shot = {"model": model, "descriptions": words_of(name, train.labels), "adapt": "unlabelled", "form": "int8"}
    rows = []
    with TemporaryDirectory() as place:
        folder = Path(place) / "ladder"
        begin(folder, train.texts, Begin(train.labels, Task.MULTI_CLASS, zero_shot, size=size))
        texts = read_texts(folder, read_state(folder).texts)
        for _ in range(_BATCHES + 1):
            done = step(folder, read_project(folder))
            count = sum(done.counts().values())
            row = {"labelled": count, "rung": done.state.rung, "own": _own_figure(done.decision, done.state.rung)}
            row |= _scored(Model.load(folder / "model"), test)
            row["random"] = _at_random(project, train, test, count) if count else None
            rows.append(row)
            say(f"{name}: " + ", ".join(_cells(row)))
            _answer(folder / "to_label.csv", done.waiting, texts, truth)
    return rows, f"{name}: {len(truth):,} texts, {len(train.labels)} labels, batches of {size}, begun with {model}"


def _answer(path: Path, waiting: Iterable[Suggestion], texts: list[str], truth: dict[str, str]) -> None:
    """Write the labels of a batch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label"))
        writer.writerows((row.id, truth[texts[place_of(row.id)]]) for row in waiting)


def _own_figure(decision: dict[str, Any], rung: str) -> float | None:
    found = decision.get("right", {}).get(rung)
    return None if found is None else float(found["value"])


def _at_random(project: Project, train: Labelled, test: Labelled, count: int) -> float | None:
    """Return the accuracy of `few_shot` taught so many texts drawn at random; None where they have one label."""
    some = drawn(train, count, seed=1)
    if len(np.unique(some.targets)) < 2:
        return None
    config = CandidateConfig(family="few_shot", prepare=[], params={"encoder": _ENCODER, "C": 30.0})
    classifier, _ = fit_classifier(config, train.labels, Task.MULTI_CLASS, examples(project, some), None, seed=0)
    model = assemble(project, config, classifier, examples(project, drawn(some, 0)), {})
    return float(_scored(model, test)["accuracy"])


def _scored(model: Model, test: Labelled) -> dict[str, Any]:
    found = evaluate(model, test.texts, test.targets, prefix="")
    return {"accuracy": found.metrics["accuracy"], "interval": found.intervals["accuracy"]}


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["interval"]
    own, random = ("" if row[name] is None else f"{row[name]:.3f}" for name in ("own", "random"))
    return [str(row["labelled"]), row["rung"], f"{row['accuracy']:.3f} ({low:.3f}-{high:.3f})", own, random]
