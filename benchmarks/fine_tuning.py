"""Film reviews: a fine-tuned encoder, a frozen one and n-grams, alone and together, on the test rows of the data."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.datasets import Labelled, checkpoints, examples, project_of, sides
from benchmarks.record import Board, Figure, Goal, Outcome, say
from tamiz.classifiers.ensemble import EnsembleClassifier
from tamiz.config import CandidateConfig, Project
from tamiz.model import Model
from tamiz.pipeline.evaluate import evaluate, speed
from tamiz.pipeline.train import assemble, fit_classifier
from tamiz.types import Classifier, Validation

__all__ = ["measure"]

_HEADINGS = ["family", "accuracy (95 %)", "macro F1", "ECE", "fit s", "texts/s", "MB"]
_MOST_S = 75 * 60
_PUBLISHED = "published: bert-tiny .894, NB-SVM .912, DistilBERT .921 to .934"


def measure(options: dict[str, Any]) -> Outcome:
    """Fit each family, then weigh them on validation; all cores are used.

    A fine-tuning that is cut off goes on from its checkpoint, if neither code nor settings have changed; its time is
    then that of the last piece.
    """
    linear, tuned = project_of("reviews"), project_of("reviews", "transformer.yaml")
    train, validation, test = sides(linear)
    candidates = [
        *(candidate for candidate in linear.candidates if candidate.family == "linear"),
        CandidateConfig(family="few_shot"),
        *tuned.candidates,
    ]
    fitted: list[Classifier] = []
    rows, details = [], {}
    for candidate in candidates:
        classifier, seconds = _fitted(linear, candidate, train, validation)
        fitted.append(classifier)
        model = assemble(linear, candidate, classifier, examples(linear, validation), {})
        rows.append(_row(candidate.title, model, test, seconds))
        details[candidate.title] = {**rows[-1], "params": candidate.params, "facts": model.manifest.facts}
        say(", ".join(_cells(rows[-1])))
    together, model = _together(linear, candidates, fitted, validation)
    rows.append(_row("ensemble", model, test, sum(row["fit_s"] for row in rows)))
    details["ensemble"] = {**rows[-1], "weights": together.weights_.tolist()}
    say(", ".join(_cells(rows[-1])))
    found = {row["candidate"]: row for row in rows}
    tuned_row, best = found["transformer"], max(rows, key=lambda row: row["accuracy"])
    figures = [
        Figure(
            "film reviews, fine-tuned encoder: test accuracy",
            "",
            found["transformer"]["accuracy"],
            goal=_at_least(0.91),
        ),
        Figure("film reviews, fine-tuned encoder: fit", "s", tuned_row["fit_s"], goal=Goal("<=", _MOST_S)),
        Figure(f"film reviews, best ({best['candidate']}): test accuracy", "", best["accuracy"], goal=_at_least(0.93)),
    ]
    board = Board(f"film reviews ({_PUBLISHED})", _HEADINGS, [_cells(row) for row in rows])
    return Outcome(figures, details, [board])


def _at_least(bound: float) -> Goal:
    return Goal(">=", bound)


def _fitted(
    project: Project, candidate: CandidateConfig, train: Labelled, validation: Labelled
) -> tuple[Classifier, float]:
    start = time.perf_counter()
    known = {"lines": 0.0}

    def told(message: str, done: int = 0, total: int = 0) -> None:
        now = time.perf_counter() - start
        if now - known["lines"] > 60:
            known["lines"] = now
            say(f"{candidate.title}: {message} {done}/{total}, {now:.0f} s")

    return fit_classifier(
        candidate,
        train.labels,
        project.task,
        examples(project, train),
        examples(project, validation),
        seed=0,
        progress=told,
        checkpoints=checkpoints("reviews", candidate),
    )


def _together(
    project: Project, candidates: list[CandidateConfig], fitted: list[Classifier], validation: Labelled
) -> tuple[EnsembleClassifier, Model]:
    members = [{"family": one.family, "params": one.params, "prepare": one.prepare} for one in candidates]
    config = CandidateConfig(family="ensemble", params={"members": members})
    held = examples(project, validation)
    ensemble = EnsembleClassifier(validation.labels, project.task, members=members)
    ensemble.combine(fitted, validation=Validation(held.texts, held.targets))
    return ensemble, assemble(project, config, ensemble, held, {})


def _row(name: str, model: Model, test: Labelled, seconds: float) -> dict[str, Any]:
    found = evaluate(model, test.texts, test.targets, prefix="")
    about = {"candidate": name, "fit_s": seconds, "interval": found.intervals["accuracy"]}
    return {**about, **found.metrics, **speed(model, test.texts)}


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["interval"]
    return [
        row["candidate"],
        f"{row['accuracy']:.4f} ({low:.3f}-{high:.3f})",
        f"{row['f1_macro']:.4f}",
        f"{row['ece']:.3f}",
        f"{row['fit_s']:.0f}",
        f"{row['texts_per_s']:,.0f}",
        f"{row['size_mb']:.1f}",
    ]
