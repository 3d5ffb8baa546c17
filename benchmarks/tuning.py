"""What a search gives: the best of a few trials against a family's defaults, on a test tenth that no trial has seen."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.datasets import project_copy, root
from benchmarks.record import Board, Figure, Outcome, say
from tamiz.config import CandidateConfig, Project, load_project
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.metrics import compare
from tamiz.pipeline.evidence import Answers
from tamiz.pipeline.train import assemble, fit_classifier
from tamiz.pipeline.tune import TuneResult, tune
from tamiz.registry import MemoryRegistry

__all__ = ["measure"]

_FAMILIES = ("linear", "nb_stack", "boosting")
_HEADINGS = ["family", "val default", "val best", "test default", "test best", "difference (95 %)", "trials", "minutes"]


def measure(options: dict[str, Any]) -> Outcome:
    """Search each family, or those that `parts` names; choose on validation, report on test."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for family in options["parts"] or _FAMILIES:
            rows.append(_searched(Path(name) / family, family, options["trials"]))
            say(", ".join(_cells(rows[-1])))
    figures = [
        Figure(f"{row['family']}, tuned: test macro F1", "", row["test_best"], row["test_default"], "the defaults")
        for row in rows
    ]
    return Outcome(
        figures, {row["family"]: row for row in rows}, [Board("complaints", _HEADINGS, list(map(_cells, rows)))]
    )


def _searched(folder: Path, family: str, trials: int) -> dict[str, Any]:
    path = project_copy("complaints", folder, candidates=[{"family": family}])
    project = load_project(path, variables={"TAMIZ_DATA": str(root())})
    project = project.model_copy(update={"tune": project.tune.model_copy(update={"trials": trials})}).at(folder)
    start = time.perf_counter()
    found = tune(project, MemoryRegistry())
    minutes = (time.perf_counter() - start) / 60
    return {
        "family": family,
        "metric": found.metric,
        "val_default": found.default,
        "val_best": found.best,
        "parameters": found.parameters,
        "importances": found.importances,
        "trials": found.trials,
        "minutes": minutes,
        **_on_test(project, found),
    }


def _on_test(project: Project, found: TuneResult) -> dict[str, Any]:
    """Fit default and best as the trials were, and compare them on the test side."""
    labels = tuple(project.labels.names or ())
    lake = Lake(project.resolve(project.lake))
    sides = {
        side: load_examples(lake, side=side, labels=labels, task=project.task)
        for side in ("train", "validation", "test")
    }
    default = project.candidates[0]
    best = default if found.tuned is None else CandidateConfig.model_validate(found.tuned)
    first, second = (_answers(project, candidate, labels, sides) for candidate in (best, default))
    about: dict[str, Any] = {"task": project.task, "labels": labels}
    difference = compare("f1_macro", sides["test"].targets, first, second, **about)
    return {"test_default": difference.second, "test_best": difference.first, "difference": difference._asdict()}


def _answers(
    project: Project, candidate: CandidateConfig, labels: tuple[str, ...], sides: dict[str, Examples]
) -> Answers:
    train, validation = sides["train"], sides["validation"]
    classifier, _ = fit_classifier(candidate, labels, project.task, train, validation, seed=project.split.seed)
    model = assemble(project, candidate, classifier, validation, {})
    probabilities = model.predict_proba(sides["test"].texts_raw)
    return Answers(probabilities, model.rule.decide(probabilities))


def _cells(row: dict[str, Any]) -> list[str]:
    found, counts = row["difference"], row["trials"]
    return [
        row["family"],
        f"{row['val_default']:.4f}",
        f"{row['val_best']:.4f}",
        f"{row['test_default']:.4f}",
        f"{row['test_best']:.4f}",
        f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})",
        f"{counts['complete']} + {counts['pruned']} given up",
        f"{row['minutes']:.1f}",
    ]
