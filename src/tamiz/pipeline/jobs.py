"""How far a project is: its five jobs, from fetching data to asking the model, and what each is waiting for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamiz.blobs import open_blobs
from tamiz.config import Project
from tamiz.data.bronze import pending
from tamiz.data.lake import Lake
from tamiz.data.places import find_files
from tamiz.errors import ConfigError, SourceError, counted
from tamiz.pipeline.inputs import clean_inputs, evaluate_inputs, open_sources, split_inputs, train_inputs
from tamiz.pipeline.members import named
from tamiz.pipeline.select import select
from tamiz.pipeline.state import StepState
from tamiz.pipeline.train import Trained
from tamiz.store import CHAMPION, ModelStore

__all__ = ["Job", "jobs"]


@dataclass(frozen=True)
class Job:
    """One of the jobs of a project.

    Attributes:
        name: `fetch`, `clean`, `train`, `deploy` or `query`.
        done: whether there is nothing to do; of `query`, whether there is a model to ask.
        about: a few words on it; may be empty.
        command: what does it alone.
    """

    name: str
    done: bool
    about: str
    command: str


def jobs(project: Project, *, contents: bool = False) -> list[Job]:
    """Return the jobs in their order, each with whether it is done; nothing is changed.

    Args:
        project: the project, variables expanded.
        contents: whether to read the source files; without, one whose content has changed under its old name is not
            seen.

    Raises:
        TamizError: lake or store cannot be read, or the project is wrong.
    """
    state = StepState(open_blobs(project.resolve(project.lake)))
    names, missing = _sources(project)
    fresh = _pending(project) if names and contents else []
    gold = _gold(project, state, names) if names and not fresh else None
    candidates = named(project.candidates)
    trained = [] if gold is None else _trained(project.model_copy(update={"candidates": candidates}), state, gold)
    all_trained = len(trained) == len(candidates)
    champion = _champion(project)
    deployed = gold is not None and all_trained and _evaluated(project, state, gold, trained, champion)
    some = f"{len(trained)} of {len(candidates)} candidates done" if trained and not all_trained else ""
    return [
        Job(
            "fetch",
            bool(names),
            missing or counted(len(names), "file"),
            "tamiz fetch NAME --to FOLDER",
        ),
        Job("clean", gold is not None, counted(len(fresh), "new file") if fresh else "", "tamiz split"),
        Job("train", all_trained, some, "tamiz train"),
        Job("deploy", deployed, f"version {champion} now" if champion else "", "tamiz evaluate"),
        Job("query", champion is not None, "", 'tamiz predict "..."'),
    ]


def _sources(project: Project) -> tuple[list[str], str]:
    """Return the sorted names of the source files; none, and what is missing, where a place has none."""
    names: list[str] = []
    for given in (project.data.source, project.data.test, project.data.unlabeled):
        paths: dict[str, None] = {}  # none twice, as for ingest
        for place in given or ():
            try:
                paths |= dict.fromkeys(found.path for found in find_files([project.resolve(place)]))
            except SourceError:
                return [], f"nothing at {place}"
        names += [Path(path).name for path in paths]
    return sorted(names), ""


def _pending(project: Project) -> list[str]:
    """Return the files that an ingest would add."""
    lake = Lake(project.resolve(project.lake))
    opened = open_sources(project).items()
    return [name for table, source in opened if source for name in pending(lake, source, table=f"bronze/{table}")]


def _gold(project: Project, state: StepState, names: list[str]) -> dict[str, Any] | None:
    """Return what the last split came to, if it was made from these files and settings."""
    last = state.last("clean")
    if last is None or sorted(last["result"]["bronze"]["sources"]) != names:
        return None
    silver = state.recall("clean", clean_inputs(project, last["result"]["bronze"]))
    return None if silver is None else state.recall("split", split_inputs(project, silver))


def _trained(project: Project, state: StepState, gold: dict[str, Any]) -> list[Trained]:
    keys = {config.title: train_inputs(project, gold, config) for config in project.candidates}
    found = (state.recall(f"train-{title}", key) for title, key in keys.items())
    return [Trained.from_dict(one) for one in found if one is not None]


def _champion(project: Project) -> str | None:
    store = ModelStore(project.resolve(project.registry.store))
    return store.index(project.name, missing_ok=True).aliases.get(CHAMPION)


def _evaluated(
    project: Project, state: StepState, gold: dict[str, Any], trained: list[Trained], champion: str | None
) -> bool:
    """Say whether the version that these candidates come to was published and decided about."""
    try:
        winner = select(trained, project.select, strict=champion is None).chosen
    except ConfigError:  # none keeps the limits
        return False
    return state.recall("evaluate", evaluate_inputs(project, gold, winner.key)) is not None
