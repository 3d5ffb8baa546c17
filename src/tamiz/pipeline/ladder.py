"""The shot ladder: from labels alone to zero-shot, few-shot and trained models, each step settled by a paired test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tamiz._files import building, explain
from tamiz.classifiers import check_params
from tamiz.config import Project
from tamiz.data.refusals import different
from tamiz.decision import DecisionRule
from tamiz.errors import ConfigError, DataError, SourceError, one_of
from tamiz.pipeline.ladder_answers import ids_of, take_labels
from tamiz.pipeline.ladder_rungs import Rungs
from tamiz.pipeline.ladder_state import (
    BATCH,
    LABELS,
    MODEL,
    STATE,
    State,
    Suggestion,
    id_of,
    locked,
    place_of,
    read_state,
    read_texts,
    replace_model,
    restore_model,
    write_batch,
    write_labels,
    write_state,
    write_texts,
)
from tamiz.pipeline.ladder_suggest import answered, suggest
from tamiz.types import Progress, Task

__all__ = ["Begin", "Step", "begin", "is_ladder", "step"]

_PREVIEWED = 500  # texts on which the shares of labels are told
_EXAMPLES = 5


@dataclass(frozen=True)
class Begin:
    """What a ladder begins with.

    Attributes:
        labels: two or more, all different.
        task: multi-class or multi-label.
        zero_shot: parameters of the family `zero_shot`.
        encoder: of the few-shot rungs.
        name: of the project.
        seed: of every draw.
        size: texts of a batch.
        random_share: share of a batch, and of all texts, that is drawn at random.
        alpha: error probability of a comparison.
    """

    labels: tuple[str, ...]
    task: Task
    zero_shot: dict[str, Any]
    encoder: str = "minilm"
    name: str = "ladder"
    seed: int = 0
    size: int = 20
    random_share: float = 0.5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError("labels: two or more are needed, all different")
        if not (2 <= self.size <= 10_000):
            raise ConfigError(f"batch: {self.size} texts; from 2 to 10000 are allowed")
        if not (0 < self.random_share <= 1):
            raise ConfigError(f"random share: {self.random_share}; above 0 and at most 1 is allowed")
        if not (0 < self.alpha < 0.5):
            raise ConfigError(f"alpha: {self.alpha}; between 0 and 0.5 is allowed")


@dataclass(frozen=True)
class Step:
    """What a run came to.

    Attributes:
        state: the ladder's state after it.
        new: labels taken in.
        conflicts: labels that were not taken in, a sentence each.
        decision: the last decision; empty while there are no labels.
        decided_now: whether it was made in this run.
        examples: of texts that zero-shot answered at the beginning: text, label, score.
    """

    state: State
    new: int
    conflicts: tuple[str, ...]
    decision: dict[str, Any]
    decided_now: bool
    examples: tuple[tuple[str, str, float], ...]

    @property
    def waiting(self) -> tuple[Suggestion, ...]:
        """Texts to label."""
        return self.state.batches[-1].rows if self.state.batches else ()

    def counts(self) -> dict[str, int]:
        """Return how many labelled texts each label has."""
        held = self.state.current().values()
        return {label: sum(label in one.labels for one in held) for label in self.state.labels}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        state, held = self.state, self.state.current().values()
        batch = state.batches[-1] if state.batches else None
        return {
            "rung": state.rung,
            "labels": self.counts(),
            "labelled": len(held),
            "drawn_at_random": sum(one.random for one in held),
            "taken_in": self.new,
            "conflicts": list(self.conflicts),
            "decision": self.decision,
            "decided_now": self.decided_now,
            "zero_shot": {
                **state.zero_shot,
                "examples": [{"text": t, "label": label, "score": score} for t, label, score in self.examples],
            },
            "batch": {
                "number": batch.number if batch else 0,
                "texts": len(self.waiting),
                "at_random": sum(row.random for row in self.waiting),
            },
        }


def is_ladder(folder: Path) -> bool:
    """Tell whether a ladder was begun in a folder."""
    return (folder / STATE).is_file()


def begin(folder: Path, texts: Sequence[str], given: Begin, *, dry_run: bool = False) -> int:
    """Make the folder of a ladder, whole or not at all: project file, texts and a state without labels.

    Blank texts are left out, and of those that are equal but for case and space all but the first; returns how many are
    kept. A dry run makes nothing.

    Raises:
        ConfigError: something stands at `folder`, or a parameter of a rung is wrong.
        DataError: there are fewer than two texts.
        SourceError: the disk refused.
    """
    kept = different(texts)
    if len(kept) < 2:
        raise DataError(f"{len(kept)} different texts are too few; give two or more that are not blank")
    if folder.exists():
        raise ConfigError(f"{folder} exists already; name a folder that does not, or go on with: tamiz ladder {folder}")
    for family, params in (("zero_shot", given.zero_shot), ("few_shot", {"encoder": given.encoder})):
        check_params(family, params)
    if dry_run:
        return len(kept)
    about = {name: getattr(given, name) for name in ("labels", "task", "seed", "size", "random_share", "alpha")}
    state = State(texts=len(kept), rung="zero_shot", **about)
    try:
        with building(folder) as made:
            (made / "tamiz.yaml").write_text(_project_text(given), encoding="utf-8")
            write_texts(made, kept)
            write_state(made, state)
    except OSError as error:
        raise SourceError(f"{folder} could not be written: {explain(error)}") from error
    return len(kept)


def _project_text(given: Begin) -> str:
    data = {"source": LABELS, "text": "text", "label": "label", "id": "id"}
    if given.task is Task.MULTI_LABEL:
        data["separator"] = ","
    few: dict[str, Any] = {"family": "few_shot", "prepare": [], "params": {"encoder": given.encoder, "C": 30.0}}
    members = [{"candidate": "few_shot"}, {"candidate": "linear"}]
    project = {
        "version": 1,
        "name": given.name,
        "task": str(given.task),
        "data": data,
        "labels": {"names": list(given.labels)},
        "candidates": [
            {"family": "zero_shot", "prepare": [], "params": given.zero_shot},
            few,
            {"family": "linear"},
            {"family": "ensemble", "prepare": [], "params": {"members": members}},
        ],
    }
    notes = "# A Tamiz project. `tamiz ladder` takes its candidates as rungs, from the lightest to the heaviest.\n"
    return notes + yaml.safe_dump(project, sort_keys=False, allow_unicode=True, width=110)


def step(
    folder: Path,
    project: Project,
    *,
    answers: Sequence[Path] = (),
    correct: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Step:
    """Take in labels, compare the rungs if there are new ones, write the model of the chosen one and the next batch.

    It may be killed at any moment and then be called again. With the same labels it changes nothing. A dry run reads
    the labels, counts those that it would take in, and keeps none.

    Args:
        folder: of the ladder.
        project: what its project file says; the candidates are the rungs, from the lightest to the heaviest.
        answers: tables with `label` and `id` or `text`, besides the folder's own.
        correct: take other labels for texts that have one already.
        dry_run: change nothing, and compare nothing anew.
        progress: told how far it is.

    Raises:
        BusyError: another process works on it.
        ConfigError: the project has other labels or another task than the ladder began with.
        LabelError: a label or id is unknown; nothing of that file is taken in.
        SourceError: a file is missing or damaged.
    """
    if dry_run:
        state, texts = _read(folder, project)
        state, new, conflicts = _take(folder, state, texts, answers, correct=correct)
        return _outcome(state, texts, new, conflicts, decided_now=False)
    with locked(folder):
        restore_model(folder)
        state, texts = _read(folder, project)
        state, new, conflicts = _take(folder, state, texts, answers, correct=correct)
        _keep(folder, state, texts, new)
        rungs = Rungs(project, state, texts, progress)
        before = len(state.decisions)
        state = _settle(folder, state, rungs)
        state = _preview(folder, state, rungs, texts, progress)
        state = _next_batch(folder, state, rungs, texts, progress)
        return _outcome(state, texts, new, conflicts, decided_now=len(state.decisions) > before)


def _read(folder: Path, project: Project) -> tuple[State, list[str]]:
    state = read_state(folder)
    _check_project(project, state)
    return state, read_texts(folder, state.texts)


def _outcome(state: State, texts: Sequence[str], new: int, conflicts: tuple[str, ...], *, decided_now: bool) -> Step:
    decision = state.decisions[-1] if state.decisions else {}
    shown = state.zero_shot.get("examples", ())  # none where the first run was cut off before it had any
    told = [(texts[place_of(id_)], label, score) for id_, label, score in shown]
    return Step(state, new, conflicts, decision, decided_now, tuple(told))


def _check_project(project: Project, state: State) -> None:
    names = tuple(project.labels.names or ())
    if names != state.labels or project.task is not state.task:
        missing = next((name for name in names if name not in state.labels), "")
        raise ConfigError(
            "the project file has other labels, or another task, than this ladder began with"
            + (f" ({one_of(missing, state.labels)})" if missing else "")
            + "; restore them, or begin another ladder"
        )


def _take(
    folder: Path, state: State, texts: Sequence[str], answers: Sequence[Path], *, correct: bool
) -> tuple[State, int, tuple[str, ...]]:
    """Return the state with the labels of the folder's table and of others."""
    new, conflicts = 0, list[str]()
    own = [folder / BATCH] if (folder / BATCH).is_file() else []
    for path in (*own, *answers):
        taken = take_labels(state, path, texts, correct=correct)
        state, new = state.with_(labelled=taken.labelled), new + taken.new
        conflicts += taken.conflicts
    return state, new, tuple(conflicts)


def _keep(folder: Path, state: State, texts: Sequence[str], new: int) -> None:
    """Keep the labels before anything else is done."""
    if new:
        write_state(folder, state)
    if state.labelled:
        write_labels(folder, state, texts)


def _settle(folder: Path, state: State, rungs: Rungs) -> State:
    """Choose the rung, and write its model if it is not there."""
    before = state
    if state.rung not in rungs.names:
        state = state.with_(rung=rungs.names[0])
    key = _key(state, rungs)
    last = state.decisions[-1]["key"] if state.decisions else None
    if state.labelled and key != last:
        decision = {"key": key, **rungs.decide(state)}
        state = state.with_(rung=decision["rung"], decisions=(*state.decisions, decision))
    made_of = f"{state.rung}:{rungs.config_key(state.rung)}" + (f":{key}" if rungs.learns(state.rung) else "")
    if state.model != made_of or not (folder / MODEL).is_dir():
        replace_model(folder, rungs.model(state.rung))
        state = state.with_(model=made_of)
    if state is not before:
        write_state(folder, state)
    return state


def _key(state: State, rungs: Rungs) -> str:
    held = [(one.id, one.labels) for one in state.current().values()]
    content = json.dumps([sorted(held), [rungs.config_key(name) for name in rungs.names]], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _preview(folder: Path, state: State, rungs: Rungs, texts: Sequence[str], progress: Progress | None) -> State:
    """Record once what the first rung says of texts drawn at random, and of how many each label."""
    if state.zero_shot:
        return state
    order = np.random.default_rng((state.seed, 0)).permutation(state.texts)[:_PREVIEWED].tolist()
    said = answered(rungs.asked(rungs.names[0]), [texts[place] for place in order], progress)
    found = DecisionRule(state.task).decide(said)
    has = found if found.ndim == 2 else found[:, None] == np.arange(len(state.labels))
    best = said.argmax(axis=1).tolist()
    examples = [(id_of(order[row]), state.labels[best[row]], float(said[row, best[row]])) for row in range(len(order))][
        :_EXAMPLES
    ]
    shares = dict(zip(state.labels, has.mean(axis=0).tolist(), strict=True))
    state = state.with_(zero_shot={"texts": len(order), "shares": shares, "examples": examples})
    write_state(folder, state)
    return state


def _next_batch(folder: Path, state: State, rungs: Rungs, texts: Sequence[str], progress: Progress | None) -> State:
    """Suggest texts where labels came since the last suggestion; write the table if it is not there."""
    last = state.batches[-1] if state.batches else None
    fresh = last is None or last.after != len(state.labelled)
    if fresh:
        first = rungs.names[0]
        told = None if rungs.learns(first) else partial(rungs.asked, first)
        last = suggest(state, texts, rungs.asked(state.rung), rungs.embed, told=told, progress=progress)
        state = state.with_batch(last)
        write_state(folder, state)
    assert last is not None  # noqa: S101  # made above
    if fresh or not _is_written(folder, state):
        write_batch(folder, last, texts)
    return state


def _is_written(folder: Path, state: State) -> bool:
    """Tell whether the table has the last batch: a run may have been cut off before it was written."""
    path = folder / BATCH
    return path.is_file() and ids_of(path) == [row.id for row in state.batches[-1].rows]
