"""Give a published version another calibration or decision rule, without training: the weights stay."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import ValidationError

from tamiz.blobs import open_blobs
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.decision import check_decision, fit_decision, set_thresholds
from tamiz.errors import ConfigError, PackageError, reason_of
from tamiz.model import Model
from tamiz.pipeline.evaluate import evaluate, figures_of, speed, validation_answers
from tamiz.pipeline.promotion import decide
from tamiz.pipeline.publish import release
from tamiz.pipeline.reproduce import check_lake
from tamiz.pipeline.state import fingerprint
from tamiz.pipeline.train import Trained, candidate_package, record_run
from tamiz.store import ModelStore
from tamiz.types import Classifier, FloatArray, Registry, Task

__all__ = ["Decision", "Redecided", "describe", "redecide"]


@dataclass(frozen=True)
class Decision:
    """How a version decides.

    Attributes:
        model: name of the model.
        version: its version; `None` where it is not published.
        task: what kind of answer it gives.
        labels: labels in order.
        positive: positive label of a binary task.
        calibration: the calibrator, as its `to_dict` gives it.
        rule: the rule, as its `to_dict` gives it.
        thresholds: by label; empty for multi-class tasks.
    """

    model: str
    version: str | None
    task: str
    labels: tuple[str, ...]
    positive: str | None
    calibration: dict[str, Any]
    rule: dict[str, Any]
    thresholds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return asdict(self)


@dataclass(frozen=True)
class Redecided:
    """A version with another decision, or what it would be.

    Attributes:
        base: version that the weights come from.
        version: the new version; `None` for a dry run.
        decision: how it decides.
        before: validation figures of `base`.
        after: validation figures with the new decision.
        metrics: all figures of the new version, test ones included; empty for a dry run.
        intervals: 95 % intervals of its test figures.
        promoted: whether it became the champion.
    """

    base: str
    version: str | None
    decision: Decision
    before: dict[str, float]
    after: dict[str, float]
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    promoted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return asdict(self)


def describe(project: Project, ref: str = "champion") -> Decision:
    """Return how a version decides.

    Args:
        project: the project.
        ref: version or alias.

    Raises:
        ModelNotFoundError: there is no such version.
        PackageError: its package is damaged.
    """
    store = ModelStore(project.resolve(project.registry.store))
    name, version = store.resolve(f"{project.name}@{ref}")
    return _decision(Model.load(store.fetch(f"{name}@{version}")))


def redecide(
    project: Project,
    registry: Registry,
    ref: str,
    changes: Mapping[str, Any],
    *,
    by: str,
    reset: bool = False,
    promote: bool = False,
    dry_run: bool = False,
) -> Redecided:
    """Make a version with the same weights and another calibration or rule.

    They are fitted on the validation side of the gold table that the version was trained from, and the new version is
    scored on its test side. Where the version was fitted again on training + validation (`select.refit`), the scores of
    the candidate that it was chosen as are taken, which has not seen the validation side: so its first rule was made
    too. The same change again gives the version that it gave first.

    Args:
        project: the project.
        registry: where the version is registered.
        ref: version or alias to start from.
        changes: keys of a candidate that say how scores become answers, as in the project file; what is not named stays
            as it was for that version.
        by: who does it, for the record.
        reset: forget the version's own thresholds, costs, abstention and sets first.
        promote: make the new version the champion.
        dry_run: fit and measure on validation; keep nothing.

    Raises:
        ConfigError: a change is wrong, or needs validation data that the version has learned from and the candidate
            is not in the lake any more.
        ModelNotFoundError: there is no such version.
        DataError: the gold table or that version of it is gone.
    """
    store = ModelStore(project.resolve(project.registry.store))
    name, base_version = store.resolve(f"{project.name}@{ref}")
    base = Model.load(store.fetch(f"{name}@{base_version}"))
    config = _changed(base, changes, reset=reset)
    validation = _side(project, base, "validation")
    judge = _before_refit(project, base)
    by_hand = not reset and _is_by_hand(changes, config)
    if judge is None and not by_hand and _learns(config, changes):
        raise ConfigError(
            f"version {base.version} was fitted again on training + validation (select.refit), and the candidate that "
            "it was before is not in the lake: nothing can be learned from its validation data; set thresholds and "
            "abstain_below by hand or give costs, or train it again with: tamiz run"
        )
    judge = judge or base
    raw = judge.classifier.predict_proba(base.prepare.many(validation.texts))
    model = _decided(base, config, raw, validation.targets, by_hand, changes, seed=_seed(project, base))
    made = Redecided(
        base_version,
        None,
        _decision(model),
        before=_figures(base, raw, validation.targets),
        after=_figures(model, raw, validation.targets),
    )
    if dry_run:
        return made
    made = _publish(project, store, registry, config, model, made, validation, judge.classifier)
    if promote and made.version is not None:
        # Asked for by a person, who may have other aims than `select.metric`; what the gates say is recorded.
        reason = f"another decision rule than version {base_version}"
        lake = Lake(project.resolve(project.lake))
        decide(project, store, lake, registry, made.version, by=by, asked="hand", why=reason, force=True)
    return replace(made, promoted=promote)


def _changed(base: Model, changes: Mapping[str, Any], *, reset: bool) -> CandidateConfig:
    """Return the candidate that the version would have come from, had the project file said so."""
    settings: dict[str, Any] = {"calibrate": base.calibrator.method} if reset else _settings(base)
    thresholds = dict(changes.get("thresholds", {}))
    if "costs" in changes or "metric" in thresholds:
        settings.pop("thresholds", None)
        settings.pop("costs", None)
    if "abstain" in changes or "abstain_below" in changes:
        settings.pop("abstain", None)
        settings.pop("abstain_below", None)
    merged = {**settings, **changes}
    if thresholds:
        old: dict[str, Any] = settings.get("thresholds", {})
        merged["thresholds"] = {**old, **thresholds}
        merged["thresholds"]["values"] = {**old.get("values", {}), **thresholds.get("values", {})}
    about = base.manifest
    rest = {"family": about.family, "name": about.candidate, "prepare": about.prepare, "params": about.params}
    try:
        config = CandidateConfig.model_validate({**rest, **merged})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {reason_of(first)}") from error
    check_decision(config, base.task, base.labels, base.rule.positive)
    return config


def _settings(base: Model) -> dict[str, Any]:
    """Return what the version was decided by; a package of a release that did not record it says enough."""
    if base.rule.settings:
        return dict(base.rule.settings)
    found: dict[str, Any] = {"calibrate": base.calibrator.method}
    if base.rule.thresholds is not None:
        found["thresholds"] = {"metric": "f1"}
    if base.rule.abstain_below is not None:
        found["abstain_below"] = base.rule.abstain_below
    return found


def _is_by_hand(changes: Mapping[str, Any], config: CandidateConfig) -> bool:
    """Return whether the changes need no example: an error to keep by abstaining does, at other thresholds."""
    if config.abstain is not None and config.abstain.error is not None:
        return False
    return set(changes) <= {"thresholds", "abstain_below"} and set(changes.get("thresholds", {})) <= {"values"}


def _decided(
    base: Model,
    config: CandidateConfig,
    raw: FloatArray,
    targets: NDArray[Any],
    by_hand: bool,
    changes: Mapping[str, Any],
    *,
    seed: int,
) -> Model:
    """Return the version with the decision that `config` says."""
    if by_hand:
        values = config.thresholds.values
        rule = set_thresholds(base.rule, values, base.labels) if values else base.rule
        rule = replace(rule, settings=config.rule_settings())
        return replace(base, rule=replace(rule, abstain_below=changes.get("abstain_below", rule.abstain_below)))
    # What halves of the validation data made goes with the sets that it was made for.
    kept = None if "calibrate" in changes or base.rule.conformal is not None else base.calibrator
    calibrator, rule = fit_decision(
        config, raw, targets, base.task, base.labels, positive=base.rule.positive, seed=seed, calibrator=kept
    )
    return replace(base, calibrator=calibrator, rule=rule)


def _learns(config: CandidateConfig, changes: Mapping[str, Any]) -> bool:
    """Return whether the decision needs validation data."""
    return bool("calibrate" in changes or config.thresholds.metric != "default" or config.abstain or config.conformal)


def _before_refit(project: Project, base: Model) -> Model | None:
    """Return the version as it was before it learned from validation data; `None` where that is not kept."""
    if not base.manifest.data.get("refit"):
        return base
    key = base.manifest.data.get("candidate")
    if key is None:  # of a release that did not record it
        return None
    with tempfile.TemporaryDirectory() as name, suppress(PackageError, KeyError):
        return candidate_package(open_blobs(project.resolve(project.lake)), key, Path(name) / "candidate")
    return None


def _seed(project: Project, base: Model) -> int:
    """Return the seed that the version was made with; a package of an older release does not say."""
    return int((base.manifest.data.get("training") or {}).get("seed", project.split.seed))


def _side(project: Project, base: Model, side: str) -> Examples:
    version = base.manifest.data.get("gold")
    if version is None:
        raise PackageError(
            f"version {base.version} of {base.name!r} does not say which gold table it was trained from; "
            "train it with: tamiz run"
        )
    lake = Lake(project.resolve(project.lake))
    check_lake(base.manifest, project, lake)
    about: dict[str, Any] = {"labels": base.labels, "task": base.task, "version": version}
    return load_examples(lake, side=side, **about, raw=side != "train")


def _figures(model: Model, raw: FloatArray, targets: NDArray[Any]) -> dict[str, float]:
    found = validation_answers(model, raw, targets)
    return figures_of(found, targets, model.rule, model.labels, prefix="val_")


def _publish(
    project: Project,
    store: ModelStore,
    registry: Registry,
    config: CandidateConfig,
    model: Model,
    made: Redecided,
    validation: Examples,
    judge: Classifier,
) -> Redecided:
    """Measure on validation and release; the same decision again finds the version it gave first."""
    key = fingerprint(
        base=store.index(project.name).versions[made.base].sha256,
        calibration=model.calibrator.to_dict(),
        rule=model.rule.to_dict(),
    )
    sides = {side: _side(project, model, side) for side in ("train", "test")} | {"validation": validation}
    before_refit = replace(model, classifier=judge)
    seed = _seed(project, model)
    checked = evaluate(before_refit, validation.texts_raw, validation.targets, prefix="val_", seed=seed, learnt=True)
    kept = {k: v for k, v in model.manifest.metrics.items() if not k.startswith(("val_", "test_"))}
    metrics = {**kept, **checked.metrics, **speed(model, validation.texts_raw)}
    data = {**model.manifest.data, "key": key, "weights_of": made.base}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    model = model.with_records(metrics=metrics, data=data, created_at=now)
    run_id = record_run(registry, config, model, key=key, metrics=metrics, intervals=checked.intervals)
    place = project.resolve(project.lake)
    found = release(
        project,
        Trained(config.title, config.family, key, metrics, checked.intervals, run_id),
        model,
        sides=sides,
        lake=Lake(place),
        blobs=open_blobs(place),
        store=store,
        registry=registry,
    )
    decision = replace(made.decision, version=found.version)
    return replace(made, version=found.version, decision=decision, metrics=found.metrics, intervals=found.intervals)


def _decision(model: Model) -> Decision:
    rule = model.rule
    names = {Task.BINARY: (model.labels[rule.positive],), Task.MULTI_LABEL: model.labels}.get(model.task, ())
    values = rule.thresholds or (0.5,) * len(names)
    return Decision(
        model.name,
        model.version,
        str(model.task),
        model.labels,
        model.positive,
        model.calibrator.to_dict(),
        rule.to_dict(),
        dict(zip(names, values, strict=True)),
    )
