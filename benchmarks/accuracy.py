"""How right Tamiz is on three real tasks, beside plain scikit-learn on the same texts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import KFold, train_test_split

from benchmarks import peers
from benchmarks.datasets import Labelled, linear_candidates, project_copy, project_of, read
from benchmarks.record import Figure, Goal, Outcome, say
from benchmarks.running import tamiz_run
from tamiz.classifiers import classifier_class
from tamiz.classifiers.ensemble import EnsembleClassifier
from tamiz.cleaning import Cleaner
from tamiz.config import CandidateConfig, Project
from tamiz.pipeline.members import ENSEMBLE, named
from tamiz.types import Validation

__all__ = ["measure"]


def measure(options: dict[str, Any]) -> Outcome:
    """Run the parts that are asked for: `reviews`, `movies`, `complaints`."""
    parts: dict[str, Callable[[], Outcome]] = {"reviews": _reviews, "movies": _movies, "complaints": _complaints}
    outcomes = [parts[name]() for name in options["parts"] or parts]
    details: dict[str, Any] = {}
    for outcome in outcomes:
        details |= outcome.details
    return Outcome([figure for outcome in outcomes for figure in outcome.figures], details)


def _reviews() -> Outcome:
    """Time the whole of `tamiz run`, and score the refitted champion on the test set of the data."""
    say("reviews: the whole of `tamiz run`")
    with tempfile.TemporaryDirectory() as folder:
        run = tamiz_run(project_copy("reviews", Path(folder)))
    found = run.answer["metrics"]["test_accuracy"]
    say(f"reviews: accuracy {found:.4f} in {run.seconds:.0f} s; now the peer")
    project = project_of("reviews")
    train, test = read(project), read(project, list(project.data.test or []))
    pipeline = peers.bigrams().fit(train.texts, train.targets)
    peer = accuracy_score(test.targets, pipeline.predict(test.texts))
    leaderboard = {one["candidate"]: one["metrics"] for one in run.answer["leaderboard"]}
    return Outcome(
        [
            Figure("reviews: test accuracy", "", found, float(peer), peers.BIGRAMS, Goal(">=", 0.92)),
            Figure("reviews: whole `tamiz run`", "s", run.seconds, goal=Goal("<=", 240)),
            Figure("reviews: peak memory of the run", "MB", run.peak_mb),
        ],
        {"reviews": {"chosen": run.answer["chosen"], "leaderboard": leaderboard, "metrics": run.answer["metrics"]}},
    )


def _movies() -> Outcome:
    """Mean macro ROC AUC of five folds, over the labels that have both outcomes in the fold."""
    project = project_of("movies")
    data = read(project)
    folds = list(KFold(5, shuffle=True, random_state=0).split(data.texts))
    figures, details = [], {}
    peer = _mean_auc(data, folds, lambda texts, targets: peers.one_vs_rest().fit(texts, targets).predict_proba)
    for candidate in linear_candidates(project):
        cleaned = Labelled(_cleaned(project, candidate, data.texts), data.targets, data.labels)
        found = _mean_auc(cleaned, folds, _fitter(project, candidate, data.labels))
        say(f"movies, {candidate.title}: {np.mean(found):.4f} beside {np.mean(peer):.4f}")
        name = f"movies, {candidate.title}: macro ROC AUC, 5 folds"
        figures.append(
            Figure(name, "", np.mean(found).item(), np.mean(peer).item(), peers.ONE_VS_REST, Goal(">=", 0.9))
        )
        details[f"movies, {candidate.title}"] = {"folds": found, "peer_folds": peer, "params": candidate.params}
    figure, details["movies, ensemble"] = _movies_with_encoder(data, folds, float(np.mean(peer)))
    return Outcome([*figures, figure], details)


def _movies_with_encoder(data: Labelled, folds: list[Any], peer: float) -> tuple[Figure, dict[str, Any]]:
    """N-grams and sentence embeddings together, weighed on a tenth of a fold's training part and refitted on all."""
    project = project_of("movies", "encoders.yaml")
    candidate = next(one for one in named(project.candidates) if one.family == ENSEMBLE)
    texts = _cleaned(project, candidate, data.texts)

    def fit(texts: list[str], targets: NDArray[Any]) -> Predict:
        rows, held = train_test_split(np.arange(len(texts)), test_size=0.1, random_state=0)
        validation = Validation(_taken(texts, held), targets[held])
        made = EnsembleClassifier(data.labels, project.task, seed=0, **candidate.params)
        made.fit(_taken(texts, rows), targets[rows], validation=validation)
        return made.refit(texts, targets, seed=0).predict_proba

    found = _mean_auc(Labelled(texts, data.targets, data.labels), folds, fit)
    say(f"movies, ensemble with an encoder: {np.mean(found):.4f}")
    name = "movies, ensemble of n-grams and an encoder: macro ROC AUC, 5 folds"
    figure = Figure(name, "", np.mean(found).item(), peer, peers.ONE_VS_REST, Goal(">=", 0.91))
    return figure, {"folds": found, "params": candidate.params}


def _complaints() -> Outcome:
    """Macro F1 on a stratified tenth."""
    project = project_of("complaints")
    data = read(project)
    rows = np.arange(len(data.texts))
    train, test = train_test_split(rows, test_size=0.1, stratify=data.targets, random_state=0)
    pipeline = peers.words().fit(_taken(data.texts, train), data.targets[train])
    peer = float(f1_score(data.targets[test], pipeline.predict(_taken(data.texts, test)), average="macro"))
    figures, details = [], {}
    for candidate in linear_candidates(project):
        texts = _cleaned(project, candidate, data.texts)
        predict_proba = _fitter(project, candidate, data.labels)(_taken(texts, train), data.targets[train])
        decided = predict_proba(_taken(texts, test)).argmax(axis=1)
        found = float(f1_score(data.targets[test], decided, average="macro"))
        say(f"complaints, {candidate.title}: {found:.4f} beside {peer:.4f}")
        name = f"complaints, {candidate.title}: macro F1"
        figures.append(Figure(name, "", found, peer, peers.WORDS, Goal(">=", 0.85)))
        details[f"complaints, {candidate.title}"] = {"params": candidate.params}
    return Outcome(figures, details)


Predict = Callable[[list[str]], NDArray[Any]]


def _fitter(
    project: Project, candidate: CandidateConfig, labels: tuple[str, ...]
) -> Callable[[list[str], NDArray[Any]], Predict]:
    """Return what fits a candidate's classifier and gives its `predict_proba`."""
    family: Any = classifier_class(candidate.family)

    def fit(texts: list[str], targets: NDArray[Any]) -> Predict:
        fitted: Predict = family(labels, project.task, seed=0, **candidate.params).fit(texts, targets).predict_proba
        return fitted

    return fit


def _cleaned(project: Project, candidate: CandidateConfig, texts: list[str]) -> list[str]:
    return Cleaner(project.clean).then(Cleaner(candidate.prepare)).many(texts)


def _taken(texts: list[str], rows: Iterable[int]) -> list[str]:
    return [texts[row] for row in rows]


def _mean_auc(data: Labelled, folds: list[Any], fit: Callable[[list[str], NDArray[Any]], Predict]) -> list[float]:
    found = []
    for train, test in folds:
        probabilities = fit(_taken(data.texts, train), data.targets[train])(_taken(data.texts, test))
        truth = data.targets[test]
        both = [j for j in range(truth.shape[1]) if 0 < truth[:, j].sum() < len(truth)]
        found.append(float(np.mean([roc_auc_score(truth[:, j], probabilities[:, j]) for j in both])))
    return found
