"""Small projects with made-up texts, and whole runs of them, for tests of the pipeline and the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tamiz import pipeline
from tamiz.config import Project, parse_project
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.pipeline import RunResult
from tamiz.registry import MemoryRegistry
from tamiz.store import ModelStore
from tamiz.types import Task

LABELS = ("food", "money", "sport")
# Barely learns: some figure is sure to be worse than with the usual strength.
WEAK = [{"family": "linear", "params": {"C": 1e-6, "nb_weighting": False, "class_weight": None}}]
PRIOR = [{"family": "prior"}]
_TOPICS = {
    "food": "bread soup cheese apple salt butter kitchen dinner taste oven",
    "money": "bank loan credit interest account debt payment market share price",
    "sport": "goal match team ball coach league score stadium referee player",
}
_COMMON = [f"{a}{b}{c}" for a in "bcdfghjklmnp" for b in "aeiou" for c in ("mar", "tel", "son", "vik")]
_NOISE = 0.1


def rows(n: int, *, task: Task = Task.MULTI_CLASS, seed: int = 0, start: int = 0) -> list[dict[str, Any]]:
    """Make `n` rows of id, text and label; every tenth label is wrong, so that no figure is perfect."""
    rng = np.random.default_rng([seed, start])
    labels = LABELS[: 2 if task is Task.BINARY else 3]
    made: list[dict[str, Any]] = []
    for i in range(start, start + n):
        topic = int(rng.integers(len(labels)))
        if task is Task.MULTI_LABEL:
            own = [label for j, label in enumerate(labels) if j == topic or rng.random() < 0.3]
        else:
            own = [labels[topic]]
        words = [str(word) for label in own for word in rng.choice(_TOPICS[label].split(), 3)]
        words += [str(word) for word in rng.choice(_COMMON, 12)]
        rng.shuffle(words)
        given: Any = own
        if task is not Task.MULTI_LABEL:
            given = labels[(topic + 1) % len(labels)] if rng.random() < _NOISE else own[0]
        made.append({"id": f"r{i}", "text": " ".join(words), "label": given})
    return made


def write_csv(path: Path, table: Sequence[dict[str, Any]], *, delimiter: str = ",") -> Path:
    """Write rows as CSV; lists become text with `|` between their parts."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter=delimiter)
        writer.writeheader()
        for row in table:
            writer.writerow({k: "|".join(v) if isinstance(v, list) else v for k, v in row.items()})
    return path


def write_jsonl(path: Path, table: Iterable[dict[str, Any]]) -> Path:
    """Write rows as JSON, one a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), encoding="utf-8")
    return path


def raw_project(task: Task = Task.MULTI_CLASS, **sections: Any) -> dict[str, Any]:
    """Return what the project file says; `data` is merged, other sections replace the usual ones."""
    data = {"source": "texts.csv", "id": "id", **sections.pop("data", {})}
    if task is Task.MULTI_LABEL:
        data.setdefault("separator", "|")
    usual: dict[str, Any] = {"split": {"validation": 0.2, "test": 0.25}, "candidates": [{"family": "linear"}]}
    return {"version": 1, "name": "topics", "task": str(task), "data": data, **usual, **sections}


def make_project(folder: Path, task: Task = Task.MULTI_CLASS, *, n: int = 120, **sections: Any) -> Project:
    """Write `texts.csv` into the folder, unless it is there, and return a project of it."""
    if not (folder / "texts.csv").exists():
        write_csv(folder / "texts.csv", rows(n, task=task))
    return parse_project(raw_project(task, **sections)).at(folder)


def write_project(folder: Path, task: Task = Task.MULTI_CLASS, *, n: int = 120, **sections: Any) -> Path:
    """Write `texts.csv`, unless it is there, and `tamiz.yaml` into the folder; return the path of the latter."""
    make_project(folder, task, n=n, **sections)
    path = folder / "tamiz.yaml"
    path.write_text(yaml.safe_dump(raw_project(task, **sections), sort_keys=False), encoding="utf-8")
    return path


class Told:
    """A listener that remembers what it was told."""

    progress = None

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self.notices: list[str] = []

    def started(self, step: str) -> None:
        self.begun.append(step)

    def finished(self, step: str, summary: str) -> None:
        self.done[step] = summary

    def skipped(self, step: str, why: str) -> None:
        self.why[step] = why

    def notice(self, text: str) -> None:
        self.notices.append(text)


def run(project: Project, registry: MemoryRegistry | None = None, **about: Any) -> RunResult:
    """Run a project; without a registry in one that is thrown away."""
    return pipeline.run(project, registry or MemoryRegistry(), **about)


def figures(metrics: dict[str, float]) -> dict[str, float]:
    """Return the figures that follow from data and code alone, without times and sizes."""
    return {name: value for name, value in metrics.items() if name.startswith(("val_", "test_"))}


def lake_of(project: Project) -> Lake:
    """Return the lake of a project."""
    return Lake(project.resolve(project.lake))


def store_of(project: Project) -> ModelStore:
    """Return the model store of a project."""
    return ModelStore(project.resolve(project.registry.store))


def side(project: Project, name: str) -> Examples:
    """Return the examples of one side."""
    labels = LABELS[: 2 if project.task is Task.BINARY else 3]
    return load_examples(lake_of(project), side=name, labels=labels, task=project.task)


def sides(project: Project) -> dict[str, str]:
    """Return the side of each row of the present division."""
    found = lake_of(project).read("gold/examples", columns=["row_id", "side"]).to_pylist()
    return {row["row_id"]: row["side"] for row in found}
