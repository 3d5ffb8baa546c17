"""One leaderboard a data set over all families: quality, calibration, speed and size on examples no fit has seen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from benchmarks.datasets import Labelled, checkpoints, examples, project_of, sides, topic
from benchmarks.record import Board, Figure, Goal, Outcome, say
from tamiz.classifiers import CLASSIFIERS
from tamiz.config import CandidateConfig, Project
from tamiz.metrics import calibration_error
from tamiz.model import Model
from tamiz.pipeline.evaluate import evaluate, speed
from tamiz.pipeline.members import ENSEMBLE, named, shared
from tamiz.pipeline.publish import refitted
from tamiz.pipeline.train import assemble, fit_classifier
from tamiz.types import Classifier, Task

__all__ = ["measure"]

_HEADINGS = ["family", "macro F1 (95 %)", "macro ROC AUC", "ECE raw", "ECE", "fit s", "texts/s", "MB"]
_MOST_ECE = 0.03
# Half an hour to an hour a data set, and nothing learnt: only where a project has them; they have tables of their own.
_OWN_TABLE = ("transformer", "zero_shot")


@dataclass(frozen=True)
class _Set:
    """A data set: its project (an example's, or one for a folder of `topics`) and its own test file, if any."""

    name: str
    example: str | None = None
    file: str = "tamiz.yaml"
    least_f1: float | None = None

    def project(self) -> Project:
        if self.example is not None:
            return project_of(self.example, self.file)
        return topic(self.name)


_SETS = (
    _Set("movies", "movies", "encoders.yaml"),
    _Set("complaints", "complaints", "transformer.yaml", least_f1=0.86),
    _Set("reviews", "reviews"),
    _Set("agnews"),
    _Set("newsgroups"),
    _Set("banking77"),
    _Set("clinc150"),
)


def measure(options: dict[str, Any]) -> Outcome:
    """Fit every family on every data set, or on those that `parts` names."""
    figures: list[Figure] = []
    boards: list[Board] = []
    details: dict[str, Any] = {}
    for one in _SETS:
        if options["parts"] and one.name not in options["parts"]:
            continue
        rows = _leaderboard(one)
        details[one.name] = rows
        boards.append(Board(one.name, _HEADINGS, [_cells(row) for row in rows]))
        best = rows[0]
        goal = None if one.least_f1 is None else Goal(">=", one.least_f1)
        figures.append(Figure(f"{one.name}, best ({best['candidate']}): macro F1", "", best["f1_macro"], goal=goal))
        name = f"{one.name}, best ({best['candidate']}): calibration error"
        figures.append(Figure(name, "", best["ece"], goal=Goal("<=", _MOST_ECE)))
    return Outcome(figures, details, boards)


def _candidates(project: Project) -> list[CandidateConfig]:
    """Return the project's own candidates, and every other family at its defaults."""
    chosen = [candidate for candidate in named(project.candidates) if candidate.family != "prior"]
    known = {candidate.family for candidate in chosen}
    thresholds = "f1" if project.task is Task.MULTI_LABEL else "default"
    families = [family for family in CLASSIFIERS if family not in known and family not in _OWN_TABLE]
    return [*chosen, *(CandidateConfig(family=family, thresholds=thresholds) for family in families)]


def _leaderboard(one: _Set) -> list[dict[str, Any]]:
    """Fit every candidate and, where the project says so, fit it again on training and validation.

    Where it does not, for the cost, that is done once, as a `tamiz run` that refits would: for the candidate of the
    project that is best on validation.
    """
    project = one.project()
    train, validation, test = sides(project)
    held, rows = examples(project, validation), []
    both = {"train": examples(project, train), "validation": held}
    fitted: dict[str, Classifier] = {}
    models: dict[str, Model] = {}
    candidates = sorted(_candidates(project), key=lambda candidate: candidate.family == ENSEMBLE)
    for candidate in candidates:
        members = {place: fitted[other.title] for place, other in shared(candidate, candidates).items()}
        about = {"labels": train.labels, "task": project.task, "seed": 0, "members": members}
        classifier, seconds = fit_classifier(candidate, checkpoints=checkpoints(one.name, candidate), **both, **about)  # type: ignore[arg-type]
        fitted[candidate.title] = classifier
        models[candidate.title] = model = assemble(project, candidate, classifier, held, {})
        about = {"candidate": candidate.title, "fit_s": seconds, "validation_f1_macro": _f1(model, validation)}
        if project.select.refit:
            model = refitted(project, candidate, model, both, None)
        rows.append({**about, **_measured(model, test)})
        say(f"{one.name}: " + ", ".join(_cells(rows[-1])))
    if not project.select.refit:
        title = max(rows, key=lambda row: row["validation_f1_macro"])["candidate"]
        best = next(candidate for candidate in candidates if candidate.title == title)
        began = time.perf_counter()
        kept = checkpoints(f"{one.name}-refit", best)
        model = refitted(project, best, models[title], both, None, checkpoints=kept)
        about = {"candidate": f"{title}, refitted", "fit_s": time.perf_counter() - began}
        rows.append({**about, **_measured(model, test)})
        say(f"{one.name}: " + ", ".join(_cells(rows[-1])))
    return sorted(rows, key=lambda row: -row["f1_macro"])


def _f1(model: Model, side: Labelled) -> float:
    return evaluate(model, side.texts, side.targets, prefix="").metrics["f1_macro"]


def _measured(model: Model, test: Labelled) -> dict[str, Any]:
    found = evaluate(model, test.texts, test.targets, prefix="")
    return {
        **found.metrics,
        "f1_macro_interval": found.intervals["f1_macro"],
        "ece_raw": calibration_error(test.targets, found.raw, found.decided, task=model.task, labels=model.labels),
        "calibration": model.calibrator.method,
        **speed(model, test.texts),
    }


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["f1_macro_interval"]
    auc = row.get("roc_auc_macro")
    return [
        row["candidate"],
        f"{row['f1_macro']:.3f} ({low:.3f}-{high:.3f})",
        "-" if auc is None else f"{auc:.3f}",
        f"{row['ece_raw']:.3f}",
        f"{row['ece']:.3f}",
        f"{row['fit_s']:.1f}",
        f"{row['texts_per_s']:,.0f}",
        f"{row['size_mb']:.1f}",
    ]
