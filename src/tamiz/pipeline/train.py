"""Train one candidate: fit, calibrate and set the rule on validation, measure, keep."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamiz.blobs import Blobs
from tamiz.classifiers import check_params, classifier_class
from tamiz.classifiers.base import prefixed
from tamiz.cleaning import Cleaner
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import Examples
from tamiz.decision import Calibrator, DecisionRule, check_decision, fit_decision, halves
from tamiz.encoders.cache import root
from tamiz.model import Model, new_manifest
from tamiz.package import MANIFEST_NAME, Manifest
from tamiz.pipeline.evaluate import Evaluation, confusion_table, evaluate, speed
from tamiz.pipeline.follow import Follower
from tamiz.types import (
    EARLIER_SECONDS,
    Borrows,
    Classifier,
    Progress,
    Registry,
    Resumes,
    Task,
    Tells,
    Traces,
    Validation,
)

__all__ = [
    "Trained",
    "assemble",
    "candidate_of",
    "candidate_package",
    "checkpoint_folder",
    "facts_of",
    "fit_classifier",
    "is_kept",
    "positive_index",
    "put_together",
    "record_folder",
    "record_run",
    "train_candidate",
]

_FOLDER, _CHECKPOINTS = "_candidates", "_checkpoints"


@dataclass(frozen=True)
class Trained:
    """A candidate after training.

    Attributes:
        candidate: its name.
        family: its classifier family.
        key: fingerprint of what it was made from.
        metrics: validation figures, cost figures.
        intervals: 95 % intervals of validation figures.
        run_id: its run in the registry.
    """

    candidate: str
    family: str
    key: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    run_id: str

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Trained:
        """Read what `dataclasses.asdict` gave, after a way through JSON."""
        intervals = {name: (low, high) for name, (low, high) in record["intervals"].items()}
        return cls(**{**record, "intervals": intervals})


def fit_classifier(
    config: CandidateConfig,
    labels: Sequence[str],
    task: Task,
    train: Examples,
    validation: Examples | None,
    *,
    seed: int,
    progress: Progress | None = None,
    checkpoints: Path | None = None,
    members: Mapping[int, Classifier] | None = None,
    follower: Follower | None = None,
    halved: bool | None = None,
) -> tuple[Classifier, float]:
    """Fit the candidate's classifier on cleaned texts; return it and the seconds it took, those before a resume too.

    If `halved`, by default with `conformal`, the fit sees one half of validation only, the one that calibration sees. A
    classifier that can go on from where it was cut off keeps its state in the folder `checkpoints`; one that is made of
    others takes the fitted `members`, by place; the figures of one that records some go to the `follower`.
    """
    prepare = Cleaner(config.prepare)
    cls: Any = classifier_class(config.family)
    classifier: Classifier = cls(tuple(labels), task, seed=seed, **config.params)
    if isinstance(classifier, Resumes):
        classifier.keep_in(checkpoints)
    if members and isinstance(classifier, Borrows):
        classifier.borrow(members)
    if follower is not None and isinstance(classifier, Traces):
        progress = follower.beside(classifier, progress)
    if halved is None:
        halved = config.conformal is not None
    if validation is not None and halved:
        validation = validation.take(halves(len(validation.texts), seed)[0])
    held_out = None if validation is None else Validation(prepare.many(validation.texts), validation.targets)
    start = time.perf_counter()
    texts, targets = [prepare.many(train.texts)], train.targets
    del train  # a second copy of a million texts is a gigabyte
    classifier.fit(texts.pop(), targets, validation=held_out, progress=progress)  # so that `fit` can let them go
    earlier = classifier.figures().get(EARLIER_SECONDS, 0.0) if isinstance(classifier, Traces) else 0.0
    return classifier, time.perf_counter() - start + earlier


def train_candidate(
    project: Project,
    config: CandidateConfig,
    *,
    labels: Sequence[str],
    train: Callable[[], Examples],
    validation: Examples,
    key: str,
    data: Mapping[str, Any],
    registry: Registry,
    blobs: Blobs,
    progress: Progress | None = None,
    members: Mapping[int, Classifier] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Trained:
    """Train a candidate, measure it on validation, record it and keep its package beside the lake.

    Args:
        project: the project.
        config: the candidate.
        labels: labels in order.
        train: reads the examples to learn from; they are let go as soon as the classifier has its form of them.
        validation: examples for calibration, thresholds and figures.
        key: fingerprint of all inputs.
        data: table versions and sources, for the record.
        registry: where the run is recorded.
        blobs: the lake's storage, which keeps the package.
        progress: told how far the fit has come.
        members: members of an ensemble, by place, that are fitted already.
        notice: told if the registry takes no figures during the fit, which goes on.
    """
    seed = project.split.seed
    check_decision(config, project.task, labels, positive_index(project, labels))
    checkpoints = checkpoint_folder(blobs, key, config.family)
    classifier, fit_seconds = fit_classifier(
        config,
        labels,
        project.task,
        train(),
        validation,
        seed=seed,
        progress=prefixed(progress, config.title),
        checkpoints=checkpoints,
        members=members,
        follower=Follower(registry, key=key, candidate=config.title, family=config.family, notice=notice),
    )
    model = assemble(project, config, classifier, validation, data)
    evaluation = evaluate(model, validation.texts_raw, validation.targets, prefix="val_", seed=seed, learnt=True)
    metrics = {**evaluation.metrics, **speed(model, validation.texts_raw), "fit_seconds": fit_seconds}
    if isinstance(classifier, Traces):
        metrics.update(classifier.figures())
    model = model.with_records(metrics=metrics)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / "package")
        blobs.upload(folder / "package", f"{_FOLDER}/{key}")
        record_folder(folder / "records", evaluation, model, side="validation")
        run_id = record_run(
            registry,
            config,
            model,
            key=key,
            metrics=metrics,
            intervals=evaluation.intervals,
            artifacts=folder / "records",
        )
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return Trained(config.title, config.family, key, metrics, evaluation.intervals, run_id)


def checkpoint_folder(blobs: Blobs, key: str, family: str) -> Path | None:
    """Return where a fit that is cut off keeps its state: beside the lake, or in the user's cache if that is remote.

    Args:
        blobs: the lake's storage.
        key: fingerprint of what is fitted.
        family: of the candidate; `None` is returned where it keeps no state.
    """
    if not issubclass(classifier_class(family), Resumes):
        return None
    local = blobs.local(f"{_CHECKPOINTS}/{key}")
    if local is not None:
        return local
    return root() / "checkpoints" / key


def record_run(
    registry: Registry,
    config: CandidateConfig,
    model: Model,
    *,
    key: str,
    metrics: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    artifacts: Path | None = None,
) -> str:
    """Record a trained candidate, unless the registry has its key, and return its run id."""
    manifest = model.manifest
    return registry.record(
        key=key,
        candidate=config.title,
        family=config.family,
        params=_flat({**manifest.params, **_choices(config, model)}),
        metrics={**metrics, **_bounds(intervals)},
        tags={"tamiz.code_version": manifest.code_version, **{f"data.{k}": str(v) for k, v in manifest.data.items()}},
        artifacts=artifacts,
        history=model.classifier.history() if isinstance(model.classifier, Traces) else (),
    )


def assemble(
    project: Project, config: CandidateConfig, classifier: Classifier, validation: Examples, data: Mapping[str, Any]
) -> Model:
    """Calibrate and set the rule on validation; put the model together."""
    task, labels = project.task, classifier.labels
    positive = positive_index(project, labels)
    prepared = Cleaner(config.prepare).many(validation.texts)
    raw = classifier.predict_proba(prepared)
    calibrator, rule = fit_decision(
        config, raw, validation.targets, task, labels, positive=positive, seed=project.split.seed
    )
    about: dict[str, Any] = {"positive": labels[positive] if task is Task.BINARY else None}
    about |= {"text_column": project.data.text, "data": dict(data)}
    return put_together(project.name, config, classifier, Cleaner(project.clean), calibrator, rule, **about)


def put_together(
    name: str,
    config: CandidateConfig,
    classifier: Classifier,
    clean: Cleaner,
    calibrator: Calibrator,
    rule: DecisionRule,
    **records: Any,
) -> Model:
    """Return a candidate's fitted classifier as a model whose manifest says how it was made.

    Args:
        name: of the model.
        config: the candidate.
        classifier: fitted.
        clean: what the project does to texts; the candidate's own steps come after.
        calibrator: of the probabilities.
        rule: how they become an answer.
        records: further entries of the manifest.
    """
    prepare = Cleaner(config.prepare)
    manifest = new_manifest(
        name=name,
        task=rule.task,
        labels=classifier.labels,
        clean=list(clean.steps),
        prepare=list(prepare.steps),
        family=config.family,
        candidate=config.title,
        params=check_params(config.family, config.params),
        facts=facts_of(classifier),
        **records,
    )
    return Model(name, classifier, clean, prepare, calibrator, rule, manifest)


def facts_of(classifier: Classifier) -> dict[str, Any]:
    """Return what a classifier says of itself for the record; most say nothing."""
    return dict(classifier.facts()) if isinstance(classifier, Tells) else {}


def positive_index(project: Project, labels: Sequence[str]) -> int:
    """Return which label is the positive one, in tasks that are not binary the last."""
    named = project.labels.positive
    return len(labels) - 1 if named is None or project.task is not Task.BINARY else list(labels).index(named)


def is_kept(blobs: Blobs, key: str) -> bool:
    """Tell whether the package of a candidate is beside the lake."""
    return blobs.exists(f"{_FOLDER}/{key}/{MANIFEST_NAME}")


def candidate_package(blobs: Blobs, key: str, folder: Path) -> Model:
    """Load a kept candidate.

    Args:
        blobs: the lake's storage.
        key: fingerprint of the candidate.
        folder: where to download the package to, if the lake is remote.
    """
    local = blobs.local(f"{_FOLDER}/{key}")
    if local is None:
        blobs.download(f"{_FOLDER}/{key}", folder)
        local = folder
    return Model.load(local)


def candidate_of(manifest: Manifest) -> CandidateConfig:
    """Return the candidate that a model was trained as, from its package alone."""
    return CandidateConfig(
        family=manifest.family,
        name=manifest.candidate,
        prepare=manifest.prepare,
        params=manifest.params,
        **manifest.rule.get("settings", {}),  # as asked for; the rule itself is what came of it
    )


def record_folder(folder: Path, evaluation: Evaluation, model: Model, *, side: str) -> None:
    """Write what people browse of an evaluation: figures with intervals, confusion matrix, environment."""
    folder.mkdir(parents=True, exist_ok=True)
    table = confusion_table(evaluation, model.labels, model.task)
    with (folder / f"{side}_confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    figures = {
        name: {"value": value, "interval": evaluation.intervals.get(name)} for name, value in evaluation.metrics.items()
    }
    about = {"figures": figures, "libraries": model.manifest.libraries, "data": model.manifest.data}
    (folder / f"{side}.json").write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")


def _choices(config: CandidateConfig, model: Model) -> dict[str, Any]:
    goal = config.thresholds.model_dump(exclude_defaults=True)
    return {
        "prepare": list(model.prepare.steps),
        "calibration": model.calibrator.method,
        "thresholds": config.thresholds.metric if set(goal) <= {"metric"} else goal,
        "abstain_below": model.rule.abstain_below,
        **{name: value for name, value in config.rule_settings().items() if name in ("costs", "abstain", "conformal")},
    }


def _flat(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}


def _bounds(intervals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {f"{name}_{end}": bounds[i] for name, bounds in intervals.items() for i, end in enumerate(("low", "high"))}
