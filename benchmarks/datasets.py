"""The data sets that `TAMIZ_DATA` names, and the example projects that use them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from tamiz.cleaning import Cleaner
from tamiz.config import CandidateConfig, DataConfig, Project, load_project
from tamiz.data.gold import Examples
from tamiz.encoders.cache import root as cache
from tamiz.pipeline.state import code_version
from tamiz.types import Task

__all__ = [
    "EXAMPLES",
    "Labelled",
    "NoDataError",
    "checkpoints",
    "drawn",
    "examples",
    "linear_candidates",
    "project_copy",
    "project_of",
    "read",
    "root",
    "sides",
    "topic",
]

EXAMPLES = Path(__file__).parents[1] / "examples"
_HELD_OUT = 0.1


class NoDataError(RuntimeError):
    """The data sets are not there."""


@dataclass(frozen=True)
class Labelled:
    """Texts as they come, with targets as a classifier takes them."""

    texts: list[str]
    targets: NDArray[Any]
    labels: tuple[str, ...]


def root() -> Path:
    """Return the folder of the data sets.

    Raises:
        NoDataError: `TAMIZ_DATA` is not set, or names no folder.
    """
    named = os.environ.get("TAMIZ_DATA")
    if not named:
        raise NoDataError(
            "The benchmarks need real data: set TAMIZ_DATA to the folder with the data sets (see benchmarks/README.md)."
        )
    if not Path(named).is_dir():
        raise NoDataError(f"TAMIZ_DATA names {named}, which is no folder (see benchmarks/README.md).")
    return Path(named)


def checkpoints(name: str, candidate: CandidateConfig) -> Path:
    """Return the folder where a long fit keeps its state, so that the same code goes on when it was cut off."""
    return cache() / "checkpoints" / f"benchmark-{name}-{candidate.title}-{code_version()[:12]}"


def project_of(example: str, file: str = "tamiz.yaml") -> Project:
    """Read a project file of an example, as it is now."""
    return load_project(EXAMPLES / example / file, variables={"TAMIZ_DATA": str(root())})


def topic(name: str) -> Project:
    """Return a project over a folder of `topics`, which has a test file of its own; all else is at its defaults."""
    folder = root() / "topics" / name
    data = DataConfig(source=[str(folder / "train.parquet")], test=[str(folder / "test.parquet")])
    return Project(name=name, task=Task.MULTI_CLASS, data=data)


def project_copy(example: str, folder: Path, *, candidates: list[Any] | None = None, **data: Any) -> Path:
    """Copy an example's project file to a folder, so that lake and store stand there.

    Args:
        example: its name.
        folder: where to.
        candidates: what to train, in place of the example's.
        data: keys of its `data` to change.
    """
    raw = yaml.safe_load((EXAMPLES / example / "tamiz.yaml").read_text(encoding="utf-8"))
    raw["data"].update(data)
    raw["candidates"] = raw["candidates"] if candidates is None else candidates
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tamiz.yaml"
    path.write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def linear_candidates(project: Project) -> Iterator[CandidateConfig]:
    """Return the candidates of the `linear` family."""
    return (candidate for candidate in project.candidates if candidate.family == "linear")


def read(project: Project, places: list[str] | None = None) -> Labelled:
    """Read a project's labelled texts, or those of other places with the same columns."""
    data = project.data
    frame = pl.concat([pl.read_parquet(place) for place in places or data.source])
    frame = frame.drop_nulls([data.text, data.label])
    column = frame[data.label]
    labels = tuple(project.labels.names or sorted(set(column.explode().to_list())))
    number = {label: place for place, label in enumerate(labels)}
    if project.task is not Task.MULTI_LABEL:
        return Labelled(frame[data.text].to_list(), np.array([number[label] for label in column]), labels)
    targets = np.zeros((len(frame), len(labels)), np.bool_)
    for row, found in enumerate(column.to_list()):
        targets[row, [number[label] for label in found]] = True
    return Labelled(frame[data.text].to_list(), targets, labels)


def drawn(side: Labelled, most: int, seed: int = 0) -> Labelled:
    """Return all rows, or so many drawn at random."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(side.texts))[:most])
    return Labelled([side.texts[row] for row in rows], side.targets[rows], side.labels)


def sides(project: Project) -> tuple[Labelled, Labelled, Labelled]:
    """Return training, validation and test: the set's own test file where it has one, else a tenth."""
    data = read(project)
    if project.data.test:
        train, test = data, read(project, list(project.data.test))
    else:
        train, test = _divided(data, project.task)
    train, validation = _divided(train, project.task)
    return train, validation, test


def _divided(data: Labelled, task: Task) -> tuple[Labelled, Labelled]:
    stratify = None if task is Task.MULTI_LABEL else data.targets
    rows = train_test_split(np.arange(len(data.texts)), test_size=_HELD_OUT, stratify=stratify, random_state=0)
    first, second = (Labelled([data.texts[row] for row in part], data.targets[part], data.labels) for part in rows)
    return first, second


def examples(project: Project, side: Labelled) -> Examples:
    """Return a side as the pipeline's steps take it, cleaned as the project says."""
    return Examples(side.texts, Cleaner(project.clean).many(side.texts), side.targets, [], {})
