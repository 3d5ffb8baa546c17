"""Make the chosen candidate a version: refit, score on test once, publish to the store, register, promote."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np

from tamiz.blobs import Blobs
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import Examples
from tamiz.data.lake import Lake
from tamiz.errors import NotRegisteredError, PackageError, RegistryError, TamizError
from tamiz.model import Model
from tamiz.pipeline.evaluate import Evaluation, confusion_table, evaluate, speed
from tamiz.pipeline.report import gather, write_report
from tamiz.pipeline.train import (
    Trained,
    candidate_of,
    candidate_package,
    checkpoint_folder,
    facts_of,
    fit_classifier,
    record_folder,
    record_run,
)
from tamiz.store import CHAMPION, ModelStore
from tamiz.types import Progress, Refits, Registry, Resumes

__all__ = ["Published", "promote", "publish", "refitted", "release", "rollback"]


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
        metrics, data = dict(trained.metrics), {**model.manifest.data, "key": key, "refit": project.select.refit}
        checkpoints = checkpoint_folder(blobs, f"{trained.key}-refit", config.family)
        if project.select.refit:
            model = refitted(project, config, model, sides, progress, checkpoints=checkpoints)
            metrics.update(speed(model, sides["validation"].texts_raw))
            data["candidate"] = trained.key  # its package, which has not seen the validation side, stays in the lake
        model = model.with_records(metrics=metrics, data=data)
        published = release(
            project,
            replace(trained, run_id=run_id),
            model,
            sides=sides,
            lake=lake,
            blobs=blobs,
            store=store,
            registry=registry,
            leaderboard=leaderboard,
            progress=progress,
        )
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return published


def release(
    project: Project,
    trained: Trained,
    model: Model,
    *,
    sides: dict[str, Examples],
    lake: Lake,
    blobs: Blobs,
    store: ModelStore,
    registry: Registry,
    leaderboard: Sequence[Trained] = (),
    progress: Progress | None = None,
) -> Published:
    """Score a finished model on test, publish it with card and report, and register it.

    Args:
        project: the project.
        trained: the candidate, with its run in the registry.
        model: what is published; `data["key"]` of its manifest tells whether it was published before.
        sides: examples by side.
        lake: where the figures go into report tables.
        blobs: the lake's storage.
        store: where the version goes.
        registry: where it is registered.
        leaderboard: all candidates, best first, for the report.
        progress: told how far refits for the report have come.
    """
    test, evaluation = sides["test"], None
    if len(test.texts_raw):
        evaluation = evaluate(model, test.texts_raw, test.targets, prefix="test_")
        model = model.with_records(metrics={**model.manifest.metrics, **evaluation.metrics})
    with tempfile.TemporaryDirectory() as name:
        files = Path(name)
        material = gather(project, trained, model, sides, evaluation, lake)
        manifest = model.save(files / "package", facts=material.facts)
        if evaluation is not None:
            record_folder(files, evaluation, model, side="test")
        known = _known_version(store, project.name, str(model.manifest.data["key"]))
        version = known or store.publish(project.name, files / "package")
        about: dict[str, Any] = {"trained": trained, "leaderboard": leaderboard, "sides": sides, "progress": progress}
        report = write_report(files, blobs, project, material, manifest, version, **about)
        figures = evaluation.metrics if evaluation else {}
        registry.register(trained.run_id, version=version, metrics=figures, artifacts=files)
    if evaluation is not None:
        _report(lake, project.name, version, trained.candidate, evaluation, model)
    return Published(version, model.manifest.metrics, evaluation.intervals if evaluation else {}, report)


def refitted(
    project: Project,
    config: CandidateConfig,
    model: Model,
    sides: dict[str, Examples],
    progress: Progress | None,
    *,
    checkpoints: Path | None = None,
) -> Model:
    """Fit a candidate's classifier again on training + validation; calibration, rule and what it settled stay.

    One that can go on from where it was cut off keeps its state in the folder `checkpoints`.
    """
    both, seed = _joined(sides["train"], sides["validation"]), project.split.seed
    if isinstance(model.classifier, Refits):
        if isinstance(model.classifier, Resumes):
            model.classifier.keep_in(checkpoints)
        texts = model.prepare.many(both.texts)
        classifier = model.classifier.refit(texts, both.targets, seed=seed, progress=progress)
    else:
        about: dict[str, Any] = {"seed": seed, "progress": progress, "checkpoints": checkpoints}
        classifier, _ = fit_classifier(config, model.labels, project.task, both, None, **about)
    return replace(model, classifier=classifier).with_records(facts=facts_of(classifier))


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
    versions = store.index(name, missing_ok=True).versions
    same = [version for version, info in versions.items() if info.key == key]
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
        transaction = f"{name}:{version}:{model.manifest.data.get('key')}"
        if not lake.holds(table, [transaction]):
            found = pa.Table.from_pylist(rows)
            lake.append(table, found.schema, found.to_batches(), transaction_ids=[transaction])


def promote(
    store: ModelStore,
    registry: Registry | None,
    name: str,
    version: str,
    *,
    alias: str = CHAMPION,
    by: str,
    reason: str,
    notice: Callable[[str], None] | None = None,
    instead_of: str | EllipsisType | None = ...,
    dry_run: bool = False,
) -> None:
    """Point an alias at a version, in the store, which is what is served, and then in the registry.

    A registry that does not know the version, such as a new one, is given it from its package. In a dry run, see
    whether the store would let it be.

    Raises:
        ConflictError: the alias is not at the version `instead_of`, where one is given; nothing was changed.
        ModelNotFoundError: no such version; nothing was changed.
        RegistryError: the registry refused after the store had changed, and nobody takes a `notice` of that.
    """
    store.set_alias(name, alias, version, by=by, reason=reason, instead_of=instead_of, dry_run=dry_run)
    if not dry_run:
        _follow(store, registry, name, alias, version, notice)


def rollback(
    store: ModelStore,
    registry: Registry | None,
    name: str,
    *,
    by: str,
    reason: str,
    notice: Callable[[str], None] | None = None,
    dry_run: bool = False,
) -> str:
    """Make the previous champion the champion again; return its version. A dry run returns it alone.

    Raises:
        StoreError: there is no earlier champion; nothing was changed.
        RegistryError: as in `promote`.
    """
    version = store.rollback(name, by=by, reason=reason, dry_run=dry_run)
    if not dry_run:
        _follow(store, registry, name, CHAMPION, version, notice)
    return version


def _follow(
    store: ModelStore,
    registry: Registry | None,
    name: str,
    alias: str,
    version: str,
    notice: Callable[[str], None] | None,
) -> None:
    if registry is None:
        return
    try:
        try:
            registry.alias(alias, version)
        except NotRegisteredError:  # its database is another one than when the version was made
            _register(store, registry, name, version)
            registry.alias(alias, version)
    except TamizError as error:
        repeat = f"tamiz promote {version}" + ("" if alias == CHAMPION else f" --alias {alias}")
        text = f"version {version} is the {alias} in the store, but the registry was not told: {error}"
        text += f". Repeat that with: {repeat}"
        if notice is None:
            raise RegistryError(text) from error
        notice(text)


def _register(store: ModelStore, registry: Registry, name: str, version: str) -> None:
    """Record and register a version as its package describes it."""
    package = store.fetch(f"{name}@{version}")
    model = Model.load(package)
    metrics, key = model.manifest.metrics, str(model.manifest.data.get("key", version))
    test = {metric: value for metric, value in metrics.items() if metric.startswith("test_")}
    rest = {metric: value for metric, value in metrics.items() if metric not in test}
    run_id = record_run(registry, candidate_of(model.manifest), model, key=key, metrics=rest, intervals={})
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(package, Path(folder) / "package")
        registry.register(run_id, version=version, metrics=test, artifacts=Path(folder))
