"""Make the chosen candidate a version: refit, score on test once, publish to the store, register, promote."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tamiz.blobs import Blobs
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import Examples
from tamiz.data.lake import Lake
from tamiz.errors import PackageError
from tamiz.model import Model
from tamiz.package import read_manifest
from tamiz.pipeline.evaluate import Evaluation, confusion_table, evaluate, speed
from tamiz.pipeline.report import gather, write_report
from tamiz.pipeline.select import prefers_higher
from tamiz.pipeline.train import Trained, candidate_package, fit_classifier, record_folder, record_run
from tamiz.store import ModelStore
from tamiz.types import Progress, Registry

__all__ = ["Published", "champion_verdict", "promote", "publish", "rollback"]

CHAMPION = "champion"


@dataclass(frozen=True)
class Published:
    """A version in the store.

    Attributes:
        version: its number.
        metrics: all figures, test ones included.
        intervals: 95 % intervals of the test figures.
        report: key of its report in the lake's storage; empty for versions of older releases.
    """

    version: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    report: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Published:
        """Read what `to_dict` gave."""
        intervals = {name: (low, high) for name, (low, high) in record["intervals"].items()}
        return cls(record["version"], record["metrics"], intervals, record.get("report", ""))


def publish(
    project: Project,
    trained: Trained,
    *,
    key: str,
    sides: dict[str, Examples],
    lake: Lake,
    blobs: Blobs,
    store: ModelStore,
    registry: Registry,
    leaderboard: Sequence[Trained] = (),
    progress: Progress | None = None,
) -> Published:
    """Publish a candidate as the next version of the project's model.

    With `select.refit` its classifier is fitted again on training + validation; calibration and rule stay as they were
    chosen on validation. The test side is looked at here only, once a version.

    Args:
        project: the project.
        trained: the candidate.
        key: fingerprint of the candidate and of how it is published.
        sides: examples by side.
        lake: where the figures go into report tables.
        blobs: the lake's storage.
        store: where the version goes.
        registry: where it is registered.
        leaderboard: all candidates, best first, for the report.
        progress: told how far a refit has come.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = candidate_package(blobs, trained.key, folder / "candidate")
        config = next(c for c in project.candidates if c.title == trained.candidate)
        # Known already, unless the registry is another one than when the candidate was trained.
        run_id = record_run(
            registry, config, model, key=trained.key, metrics=trained.metrics, intervals=trained.intervals
        )
        if project.select.refit:
            model = _refitted(project, config, model, sides, progress)
        metrics, evaluation = dict(trained.metrics), None
        if project.select.refit:
            metrics.update(speed(model, sides["validation"].texts_raw))
        if len(sides["test"].texts_raw):
            evaluation = evaluate(model, sides["test"].texts_raw, sides["test"].targets, prefix="test_")
            metrics.update(evaluation.metrics)
        data = {**model.manifest.data, "key": key, "refit": project.select.refit}
        model = model.with_records(metrics=metrics, data=data)
        material = gather(project, trained, model, sides, evaluation, lake)
        manifest = model.save(folder / "files" / "package", facts=material.facts)
        if evaluation is not None:
            record_folder(folder / "files", evaluation, model, side="test")
        version = _known_version(store, project.name, key) or store.publish(project.name, folder / "files" / "package")
        about: dict[str, Any] = {"trained": trained, "leaderboard": leaderboard, "sides": sides, "progress": progress}
        report = write_report(folder / "files", blobs, project, material, manifest, version, **about)
        test_figures = evaluation.metrics if evaluation else {}
        registry.register(run_id, version=version, metrics=test_figures, artifacts=folder / "files")
    if evaluation is not None:
        _report(lake, project.name, version, trained.candidate, evaluation, model)
    return Published(version, metrics, evaluation.intervals if evaluation else {}, report)


def _refitted(
    project: Project, config: CandidateConfig, model: Model, sides: dict[str, Examples], progress: Progress | None
) -> Model:
    both = _joined(sides["train"], sides["validation"])
    classifier, _ = fit_classifier(
        config, model.labels, project.task, both, None, seed=project.split.seed, progress=progress
    )
    return Model(model.name, classifier, model.clean, model.prepare, model.calibrator, model.rule, model.manifest)


def _joined(first: Examples, second: Examples) -> Examples:
    """Return the examples of two sides as one; raw texts, which a fit does not use, are left out."""
    return Examples(
        texts_raw=[],
        texts=first.texts + second.texts,
        targets=np.concatenate([first.targets, second.targets]),
        row_ids=first.row_ids + second.row_ids,
        columns={},
    )


def _known_version(store: ModelStore, name: str, key: str) -> str | None:
    """Find a version that an interrupted run published from the same inputs."""
    if name not in store.names():
        return None
    same = [version for version, info in store.index(name).versions.items() if info.key == key]
    for version in reversed(same):
        with suppress(PackageError):  # a damaged one is published anew
            store.fetch(f"{name}@{version}")
            return version
    return None


def _report(lake: Lake, name: str, version: str, candidate: str, evaluation: Evaluation, model: Model) -> None:
    """Append test figures and confusion matrix to the gold report tables; repeating it adds nothing."""
    import pyarrow as pa

    about = {"model": name, "version": version, "candidate": candidate}
    missing = (None, None)
    figures = [
        {**about, "metric": metric, "value": value, "low": low, "high": high}
        for metric, value in evaluation.metrics.items()
        for low, high in [evaluation.intervals.get(metric, missing)]
    ]
    cells = [{**about, **cell} for cell in confusion_table(evaluation, model.labels, model.task)]
    for table, rows in (("gold/metrics", figures), ("gold/confusion", cells)):
        transaction = f"{name}:{version}"
        if not lake.holds(table, [transaction]):
            found = pa.Table.from_pylist(rows)
            lake.append(table, found.schema, found.to_batches(), transaction_ids=[transaction])


def champion_verdict(project: Project, store: ModelStore, published: Published, test: Examples) -> tuple[bool, str]:
    """Say whether a version should become the champion, and why.

    The present champion is scored on the same test examples; the better one in the chosen metric wins, ties go to the
    newer version. Without a test side, validation figures decide nothing: the new version is taken.
    """
    if not project.select.promote:
        return False, "select.promote is false"
    index = store.index(project.name)
    champion = index.aliases.get(CHAMPION)
    if champion is None:
        return True, "there was no champion"
    if champion == published.version:
        return True, "it is the champion already"
    metric = "test_" + project.select.metric.removeprefix("val_")
    if not len(test.texts_raw) or metric not in published.metrics:
        return True, f"there is no {metric} to compare it by"
    try:
        old = Model.load(store.fetch(f"{project.name}@{champion}"))
        new = read_manifest(store.fetch(f"{project.name}@{published.version}"))
        if (old.task, old.labels) != (new.task, new.labels):
            return True, f"the champion, version {champion}, has other labels"
        old_value = evaluate(old, test.texts_raw, test.targets, prefix="test_").metrics[metric]
    except (ValueError, RuntimeError) as error:
        return True, f"the champion, version {champion}, cannot be scored on this test ({error})"
    new_value = published.metrics[metric]
    better = new_value >= old_value if prefers_higher(project.select) else new_value <= old_value
    verdict = "not worse than" if better else "worse than"
    return better, f"{metric} {new_value:.4f} is {verdict} {old_value:.4f} of version {champion} on the same test"


def promote(
    store: ModelStore,
    registry: Registry | None,
    name: str,
    version: str,
    *,
    alias: str = CHAMPION,
    by: str,
    reason: str,
) -> None:
    """Point an alias at a version, in the store and in the registry."""
    store.set_alias(name, alias, version, by=by, reason=reason)
    if registry is not None:
        registry.alias(alias, version)


def rollback(store: ModelStore, registry: Registry | None, name: str, *, by: str, reason: str) -> str:
    """Make the previous champion the champion again; return its version."""
    version = store.rollback(name, by=by, reason=reason)
    if registry is not None:
        registry.alias(CHAMPION, version)
    return version
