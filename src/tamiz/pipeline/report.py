"""The report and the card of a version: gather what is known, write it, keep it beside the lake."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from tamiz._rule_config import RULE_KEYS
from tamiz.blobs import Blobs
from tamiz.card import CardFacts
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import Examples
from tamiz.data.lake import Lake
from tamiz.data.origin import example_columns
from tamiz.errors import TamizError
from tamiz.extras import require
from tamiz.metrics import METRICS, error_by_chance
from tamiz.model import Model
from tamiz.package import Manifest
from tamiz.pipeline.evaluate import Evaluation, evaluate, figures_of, validation_answers
from tamiz.pipeline.train import Trained, assemble, fit_classifier
from tamiz.reports.findings import Contender, Findings, label_counts, top_words
from tamiz.reports.measures import Bin, Reliability, reliability
from tamiz.reports.mistakes import mistakes, write_mistakes
from tamiz.reports.sample import Sample
from tamiz.reports.slices import slice_figures
from tamiz.types import Progress, RunRecord

__all__ = ["Material", "compare_report", "gather", "report_place", "write_report"]

_QUICK_FIT_S = 5.0
_PARTS = (1 / 8, 1 / 4, 1 / 2)
_FEWEST = 20


@dataclass(frozen=True)
class Material:
    """What card and report of a version are made of, measured once.

    Attributes:
        model: the model that is published.
        sample: examples that the model has not seen, with its answers; `None` where there are none.
        side: their side of the split.
        facts: what the card says.
    """

    model: Model
    sample: Sample | None
    side: str
    facts: CardFacts


def gather(
    project: Project,
    trained: Trained,
    model: Model,
    sides: dict[str, Examples],
    evaluation: Evaluation | None,
    lake: Lake,
) -> Material:
    """Measure slices and count labels of a model that is about to be published.

    Args:
        project: the project.
        trained: the candidate, for its validation figures.
        model: the model; its manifest has the versions of the tables.
        sides: examples by side.
        evaluation: on the test side; without one, the validation side is looked at, unless the model was fitted on it.
        lake: where columns for slices are read from.

    Raises:
        ColumnError: `report.slices` names a column that does not exist.
    """
    side = "test" if evaluation is not None else "validation"
    intervals = {**trained.intervals, **(evaluation.intervals if evaluation else {})}
    if evaluation is None and not project.select.refit:
        evaluation = evaluate(model, sides[side].texts_raw, sides[side].targets, prefix="val_", learnt=True)
    sample = None
    if evaluation is not None:
        columns = example_columns(lake, side=side, versions=model.manifest.data, columns=project.report.slices)
        sample = _sample(model, sides[side], evaluation, columns)
    facts = CardFacts(
        intervals=intervals,
        sizes={name: len(own.texts) for name, own in sides.items()},
        counts={name: label_counts(own.targets, model.labels) for name, own in sides.items()},
        slices=tuple(slice_figures(sample)) if sample is not None else (),
        seed=project.split.seed,
        ece_by_chance=error_by_chance(sample.probabilities, sample.task) if sample is not None else None,
    )
    return Material(model, sample, side, facts)


def _sample(model: Model, examples: Examples, evaluation: Evaluation, columns: dict[str, list[object]]) -> Sample:
    return Sample(
        texts=examples.texts_raw,
        row_ids=examples.row_ids,
        targets=examples.targets,
        raw=evaluation.raw,
        probabilities=evaluation.probabilities,
        decided=evaluation.decided,
        task=model.task,
        labels=model.labels,
        positive=model.rule.positive,
        columns=columns,
    )


def write_report(
    folder: Path,
    blobs: Blobs,
    project: Project,
    material: Material,
    manifest: Manifest,
    version: str,
    *,
    trained: Trained,
    leaderboard: Sequence[Trained],
    sides: dict[str, Examples],
    progress: Progress | None = None,
) -> str:
    """Write `report.html` and `mistakes.csv` into the folder and keep both beside the lake.

    Args:
        folder: where, besides the lake; its other files stay where they are.
        blobs: the lake's storage; `reports/NAME/VERSION` there holds the report.
        project: the project.
        material: what was measured.
        manifest: of the package as written.
        version: of the model.
        trained: the candidate that became the version.
        leaderboard: all candidates, best first.
        sides: examples by side.
        progress: told how far refits for the learning curve have come.

    Returns:
        Key of the report in the lake's storage.
    """
    sample = material.sample
    found = Findings(
        manifest=manifest,
        version=version,
        sample=sample,
        side=material.side,
        intervals=material.facts.intervals,
        sizes=material.facts.sizes,
        counts=material.facts.counts,
        slices=material.facts.slices,
        ece_by_chance=material.facts.ece_by_chance,
        mistakes=mistakes(sample) if sample is not None else (),
        leaderboard=[Contender(t.candidate, t.metrics, t.intervals) for t in leaderboard or (trained,)],
        metric=_metric(project),
        learning=_learning_curve(project, trained, material.model, sides, progress),
        words=top_words(material.model.classifier),
    )
    key = _key(project, version)
    files = {"report.html": _pages().report_page(found).encode("utf-8", "replace")}
    if sample is not None:
        write_mistakes(folder / "mistakes.csv", found.mistakes)
        files["mistakes.csv"] = (folder / "mistakes.csv").read_bytes()
        curve = asdict(reliability(sample))
        files["reliability.json"] = json.dumps(curve).encode()
    (folder / "report.html").write_bytes(files["report.html"])
    for name, content in files.items():
        blobs.write(f"{key}/{name}", content)
    return f"{key}/report.html"


def report_place(blobs: Blobs, key: str) -> str:
    """Return path or address of a report.

    Args:
        blobs: the lake's storage.
        key: what `write_report` returned.
    """
    folder, _, name = key.rpartition("/")
    local = blobs.local(folder)
    return str(local / name) if local is not None else f"{blobs.place}/{key}"


def _pages() -> ModuleType:
    """Return the module that makes pages; only where one is made, plotly is loaded."""
    require("plotly", extra="train")
    return import_module("tamiz.reports.page")


def _key(project: Project, version: str) -> str:
    return f"reports/{project.name}/{version}"


def _metric(project: Project) -> str:
    """Return the metric of choice, or the usual one where that is a cost."""
    chosen = project.select.metric
    return chosen if chosen.removeprefix("val_") in METRICS else "val_f1_macro"


def _learning_curve(
    project: Project, trained: Trained, model: Model, sides: dict[str, Examples], progress: Progress | None
) -> list[tuple[int, float]]:
    """Refit the candidate on parts of the training side; return sizes and validation figures, the whole side last."""
    wanted = project.report.learning_curve
    metric = _metric(project)
    if wanted is False or (wanted == "auto" and trained.metrics["fit_seconds"] > _QUICK_FIT_S):
        return []
    config = next((c for c in project.candidates if c.title == trained.candidate), None)
    if config is None:  # the project names it no more
        return []
    # Decided as the version is, whose rule may be a later one than the project file's.
    weights = config.model_dump(exclude=set(RULE_KEYS))
    config = CandidateConfig.model_validate({**weights, **model.rule.settings})
    train = sides["train"]
    order = np.random.default_rng(project.split.seed).permutation(len(train.texts))
    points = []
    for part in _PARTS:
        rows = order[: round(part * len(order))]
        value = _refitted_value(project, config, model.labels, train.take(rows), sides["validation"], metric, progress)
        if value is not None:
            points.append((len(rows), value))
    return [*points, (len(order), trained.metrics[metric])] if metric in trained.metrics else points


def _refitted_value(
    project: Project,
    config: CandidateConfig,
    labels: Sequence[str],
    train: Examples,
    validation: Examples,
    metric: str,
    progress: Progress | None,
) -> float | None:
    """Return the figure of a refit with a calibrator and rule of its own, as each candidate has them.

    `None` where so few examples cannot be learned from.
    """
    targets = train.targets
    present = int(targets.any(axis=0).sum()) if targets.ndim > 1 else len(np.unique(targets))
    if len(train.texts) < _FEWEST or present < 2:
        return None
    try:
        classifier, _ = fit_classifier(
            config, labels, project.task, train, validation, seed=project.split.seed, progress=progress
        )
        refitted = assemble(project, config, classifier, validation, {})
    except TamizError:
        return None
    raw, targets = refitted.uncalibrated_proba(validation.texts_raw), validation.targets
    found = validation_answers(refitted, raw, targets)
    return figures_of(found, targets, refitted.rule, refitted.labels, prefix="val_").get(metric)


def compare_report(project: Project, runs: Sequence[RunRecord], blobs: Blobs, metric: str) -> str:
    """Return a page that compares recorded runs.

    Args:
        project: the project.
        runs: what to compare, best first.
        blobs: the lake's storage, which keeps the reliability of versions.
        metric: what they are sorted by.
    """
    contenders = [_contender(run) for run in runs]
    curves = {
        f"{run.candidate}, version {run.version}": curve
        for run in runs
        if run.version and (curve := _kept_reliability(blobs, project, run.version)) is not None
    }
    return str(_pages().compare_page(project.name, contenders, metric, curves))


def _contender(run: RunRecord) -> Contender:
    low = {name.removesuffix("_low"): value for name, value in run.metrics.items() if name.endswith("_low")}
    high = {name.removesuffix("_high"): value for name, value in run.metrics.items() if name.endswith("_high")}
    intervals = {name: (value, high[name]) for name, value in low.items() if name in high}
    return Contender(run.candidate, run.metrics, intervals, version=run.version)


def _kept_reliability(blobs: Blobs, project: Project, version: str) -> Reliability | None:
    key = f"{_key(project, version)}/reliability.json"
    if not blobs.exists(key):
        return None
    kept = json.loads(blobs.read(key).data)
    return Reliability(tuple(Bin(*part) for part in kept["bins"]), kept["ece"])
