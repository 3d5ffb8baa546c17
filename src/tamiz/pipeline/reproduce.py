"""Train a published version again from what its package records, and say how far the two are apart."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tamiz.card import CARD_NAME
from tamiz.config import Project
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.errors import PackageError
from tamiz.model import Model, library_versions
from tamiz.package import Manifest
from tamiz.pipeline.evaluate import evaluate
from tamiz.pipeline.publish import refitted
from tamiz.pipeline.state import code_version
from tamiz.pipeline.train import assemble, candidate_of, fit_classifier
from tamiz.store import ModelStore
from tamiz.types import Progress

__all__ = ["Reproduction", "check_lake", "reproduce"]

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Reproduction:
    """A version beside its repetition.

    Attributes:
        version: the version.
        same: whether figures and probabilities agree within 1e-9.
        metrics: recorded and repeated value of each validation and test figure; `None` where one has it not.
        probability_difference: largest absolute difference of a probability on the test side (on validation without
            one).
        files: whether each file of the package, but for the card, has the same bytes again.
        changed: what is other than it was, such as code and libraries: recorded and present.
    """

    version: str
    same: bool
    metrics: dict[str, tuple[float | None, float | None]]
    probability_difference: float
    files: dict[str, bool]
    changed: dict[str, tuple[str | None, str | None]]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return asdict(self)


def reproduce(
    project: Project, store: ModelStore, lake: Lake, version: str, *, progress: Progress | None = None
) -> Reproduction:
    """Train a version again from its table version, parameters and seed; nothing is kept.

    Args:
        project: where things are; what was learnt and how is taken from the package alone.
        store: where the version is.
        lake: where the tables are that it was made from.
        version: its number or an alias.
        progress: told how far the fit has come.

    Raises:
        ModelNotFoundError: no such version.
        PackageError: the package does not record what is needed, or was made from another lake.
        DataError: the lake has that version of the table no more.
    """
    _, number = store.resolve(f"{project.name}@{version}")
    old = Model.load(store.fetch(f"{project.name}@{number}"))
    manifest = old.manifest
    _check(manifest, number)
    check_lake(manifest, project, lake)
    config, was = candidate_of(manifest), _as_it_was(project, manifest)
    about: dict[str, Any] = {"labels": old.labels, "task": old.task, "version": manifest.data["gold"]}
    sides = {
        side: load_examples(lake, side=side, **about, raw=side != "train") for side in ("train", "validation", "test")
    }
    training = manifest.data["training"]
    seed = training["seed"]
    classifier, _ = fit_classifier(
        config,
        old.labels,
        old.task,
        sides["train"],
        sides["validation"],
        seed=seed,
        progress=progress,
        halved=training.get("halved"),  # `tamiz thresholds` may have added or taken away `conformal` since
    )
    new = assemble(was, config, classifier, sides["validation"], manifest.data)
    metrics = _figures(new, sides["validation"], "val_", seed)  # of a refitted version too, before the refit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if manifest.data.get("refit"):
            new = refitted(was, config, new, sides, progress)
            metrics |= _figures(new, sides["test"], "test_", 0)
            new.save(folder / "package")
        else:  # as a run does: what was kept and loaded again is what the test is asked of
            new.save(folder / "package")
            metrics |= _figures(Model.load(folder / "package"), sides["test"], "test_", 0)
        again = Model.load(folder / "package")
        return _compared(number, old, again, metrics, sides["test"] if sides["test"].texts_raw else sides["validation"])


def _check(manifest: Manifest, number: str) -> None:
    data = manifest.data
    if not isinstance(data.get("training"), dict) or not isinstance(data.get("gold"), int):
        raise PackageError(
            f"version {number} does not record how it was trained (`training` and `gold` in its model.json): it was "
            "made by an older release or by hand, and cannot be repeated"
        )


def check_lake(manifest: Manifest, project: Project, lake: Lake) -> None:
    """Refuse to read the rows of a version from another lake, or from a table that took the place of its own.

    Raises:
        PackageError: the project's lake is another one, or was made anew; its table versions are others.
    """
    recorded, table = manifest.data.get("gold_table"), lake.identity("gold/examples")
    if recorded is not None and recorded == table:  # however the project file spells its place by now
        return
    made_in = manifest.data.get("lake", project.lake)
    if made_in != project.lake:
        raise PackageError(
            f"version {manifest.version} of {manifest.name!r} was made from the lake {made_in!r}, the project's is "
            f"{project.lake!r}; set `lake` in the project file to that one"
        )
    if None not in (recorded, table):
        raise PackageError(
            f"version {manifest.version} was made from a gold table that is gone: the lake {lake.root} was made anew "
            "since. Restore the lake, or train a new version"
        )


def _as_it_was(project: Project, manifest: Manifest) -> Project:
    seed = manifest.data["training"]["seed"]
    return project.model_copy(
        update={
            "task": manifest.task,
            "clean": manifest.clean,
            "labels": project.labels.model_copy(update={"positive": manifest.positive}),
            "data": project.data.model_copy(update={"text": manifest.text_column}),
            "split": project.split.model_copy(update={"seed": seed}),
        }
    ).at(project.folder)


def _figures(model: Model, examples: Examples, prefix: str, seed: int) -> dict[str, float]:
    if not examples.texts_raw:
        return {}
    about: dict[str, Any] = {"prefix": prefix, "seed": seed, "learnt": prefix == "val_"}
    return evaluate(model, examples.texts_raw, examples.targets, **about).metrics


def _compared(number: str, old: Model, new: Model, metrics: dict[str, float], examples: Examples) -> Reproduction:
    recorded = {k: v for k, v in old.manifest.metrics.items() if k.startswith(("val_", "test_"))}
    both = {name: (recorded.get(name), metrics.get(name)) for name in sorted({*recorded, *metrics})}
    pair = [model.predict_proba(examples.texts_raw) for model in (old, new)]
    distance = float(np.abs(pair[0] - pair[1]).max())
    files = new.manifest.files
    names = sorted({*old.manifest.files, *files} - {CARD_NAME})  # the card tells of figures, and when
    same = distance <= _TOLERANCE and all(
        a is not None and b is not None and abs(a - b) <= _TOLERANCE for a, b in both.values()
    )
    return Reproduction(
        number,
        same,
        both,
        distance,
        {name: old.manifest.files.get(name) == files.get(name) for name in names},
        _changes(old.manifest),
    )


def _changes(manifest: Manifest) -> dict[str, tuple[str | None, str | None]]:
    before = {"code": str(manifest.data.get("code")), **manifest.libraries}
    now = {"code": code_version(), **library_versions(manifest.family, manifest.params)}
    pairs = {name: (before.get(name), now.get(name)) for name in sorted({*before, *now})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
